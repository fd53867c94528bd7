//! Nodes that may not be seen: all else is told without them, and they are asked for again.
//!
//! An API server that begins answers before it has loaded who may do what. So a refusal is no reason to forget what was
//! known, nor to wait for long before the next question; each that follows is waited for longer.
//!
//! Who may list them and not watch them is refused right after the list. So a list proves nothing before it has stood for a
//! while: until then the fault stays, and the next refusal counts as one more.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Sleep, sleep};
use weft_core::registry::RegistryError;

use super::{Followed, Following};
use crate::{
    http_client::growing_pause,
    kubernetes::{
        compact::{Key, Node},
        objects::Kind,
    },
    names::fault,
};

/// The fault that tells that nodes are not seen.
pub(super) const NO_NODES: &str = "nodes";
/// How long to wait after the first refusal, doubled after each that follows.
const AGAIN: Duration = Duration::from_secs(2);
/// How long after a list nothing is refused any more that follows from it.
const STANDS: Duration = Duration::from_secs(3);
/// The longest wait where nodes were seen before.
const SEEN_BEFORE: Duration = Duration::from_secs(60);
/// The longest wait where they never were: they are not meant to be.
const NEVER_SEEN: Duration = Duration::from_secs(600);

/// What one stream leaves to the next.
#[derive(Clone, Debug, Default)]
pub(in crate::kubernetes) struct KnownNodes(Arc<Mutex<HashMap<Key, Node>>>);

impl KnownNodes {
    pub(super) fn get(&self) -> HashMap<Key, Node> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, nodes: HashMap<Key, Node>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }
}

/// When they are asked for again.
pub(super) struct Nodes {
    known: KnownNodes,
    refused: u32,
    next: Option<(Due, Pin<Box<Sleep>>)>,
}

/// What it is time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// To ask for them again, by this feed.
    Again(usize),
    /// To believe that they are seen: they were listed, and nothing was refused since.
    Seen,
}

impl Nodes {
    pub(super) fn new(known: KnownNodes) -> Self {
        Self { known, refused: 0, next: None }
    }

    /// Waits until it is time for something; for ever where it is for nothing. May be dropped while it waits.
    pub(super) async fn due(&mut self) -> Due {
        let Some((due, until)) = &mut self.next else { return std::future::pending().await };
        let due = *due;
        until.await;
        self.next = None;
        if due == Due::Seen {
            self.refused = 0;
        }
        due
    }

    /// They were listed.
    pub(super) fn are_listed(&mut self) {
        self.next = Some((Due::Seen, Box::pin(sleep(STANDS))));
    }

    fn wait(&mut self, index: usize, longest: Duration) {
        let pause = growing_pause((AGAIN, longest), self.refused);
        self.refused = self.refused.saturating_add(1);
        self.next = Some((Due::Again(index), Box::pin(sleep(pause))));
    }
}

impl Following {
    /// Whether such an error of a feed is none of the whole: nodes that may not be seen, or that could not be asked for
    /// again.
    pub(super) fn may_go_without(&self, index: usize, error: &RegistryError) -> bool {
        let followed = &self.feeds[index];
        let denied = matches!(error, RegistryError::Denied(_));
        followed.feed.place.kind == Kind::Nodes && (denied || followed.absent)
    }

    /// Without nodes there are no regions, and no zones but those that slices name: no reason to see nothing at all.
    pub(super) fn go_without_nodes(&mut self, index: usize, error: &RegistryError) {
        let is_known = !self.catalog.nodes().is_empty();
        if let RegistryError::Denied(why) = error {
            let rest = if is_known {
                "what was known of them before is kept, and they are asked for again"
            } else {
                "regions are unknown, and zones that slices do not name; what is nearest is judged by zone alone"
            };
            let told = fault(NO_NODES, format!("not allowed: {why}; {rest}"));
            self.catalog.set_fault(&NO_NODES.into(), Some(told));
        }
        self.nodes.wait(index, if is_known { SEEN_BEFORE } else { NEVER_SEEN });
        let followed = &mut self.feeds[index];
        self.listed |= !followed.ready;
        let feed = followed.feed.clone();
        *followed = Followed { feed, listing: None, ready: true, absent: true, away: false };
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.nodes.known.set(self.catalog.nodes().clone());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    /// How long they are waited for after one more refusal, in seconds.
    async fn waited(nodes: &mut Nodes) -> u64 {
        nodes.wait(3, SEEN_BEFORE);
        let began = Instant::now();
        assert_eq!(nodes.due().await, Due::Again(3));
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_without_a_watch_is_waited_for_longer_and_longer() {
        let mut nodes = Nodes::new(KnownNodes::default());
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            let waited = waited(&mut nodes).await;
            assert!(waited >= pause * 3 / 4 - 1 && waited <= pause * 5 / 4, "{waited} of {pause}");
            // They are listed, and soon after that a watch is refused.
            nodes.are_listed();
            advance(Duration::from_secs(1)).await;
        }
        nodes.are_listed();
        assert_eq!(nodes.due().await, Due::Seen);
        assert!(waited(&mut nodes).await <= 2, "they were seen");
    }
}
