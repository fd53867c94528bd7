//! Which nodes are connected. Who only looks (`weft check`) has a stream too, and is no agent that is there. What they told of themselves is in the store, so that a hub that was restarted still knows
//! of those that are away.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::Notify;

/// The streams that are open.
#[derive(Debug, Default)]
pub(super) struct Roster(Mutex<Streams>);

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    /// By number: a node that comes back may still have its former stream.
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    node: String,
    connected: Connected,
    /// Whether it spoke for the node.
    is_agents: bool,
    removed: Arc<Notify>,
}

/// An open stream.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    /// Where the node calls from.
    pub(super) from: SocketAddr,
    /// Since when.
    pub(super) since: SystemTime,
}

/// A stream's place in the roster, for as long as it is kept.
#[derive(Debug)]
pub(super) struct Presence {
    roster: Arc<Roster>,
    number: u64,
    removed: Arc<Notify>,
}

impl Roster {
    /// Notes that a node's stream has begun.
    pub(super) fn enter(self: &Arc<Self>, node: &str, from: SocketAddr) -> Presence {
        let removed = Arc::new(Notify::new());
        let connected = Connected { from, since: SystemTime::now() };
        let mut streams = self.lock();
        streams.next += 1;
        let number = streams.next;
        let (node, removed_too) = (node.to_owned(), removed.clone());
        streams.open.insert(number, Open { node, connected, is_agents: false, removed: removed_too });
        Presence { roster: self.clone(), number, removed }
    }

    /// The latest stream of each node whose agent is connected.
    pub(super) fn connected(&self) -> BTreeMap<String, Connected> {
        let streams = self.lock();
        let agents = streams.open.values().filter(|open| open.is_agents);
        agents.map(|open| (open.node.clone(), open.connected.clone())).collect()
    }

    /// The nodes in whose name a stream is open, an agent's or not.
    pub(super) fn nodes(&self) -> BTreeSet<String> {
        self.lock().open.values().map(|open| open.node.clone()).collect()
    }

    /// Ends every stream of a node.
    pub(super) fn end(&self, node: &str) {
        for open in self.lock().open.values().filter(|open| open.node == node) {
            open.removed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence {
    /// It spoke for its node: that one is there. Returns whether that is news.
    pub(super) fn appear(&self) -> bool {
        let mut streams = self.roster.lock();
        let open = streams.open.get_mut(&self.number);
        open.is_some_and(|open| !std::mem::replace(&mut open.is_agents, true))
    }

    /// Whether it spoke for its node.
    pub(super) fn is_agents(&self) -> bool {
        self.roster.lock().open.get(&self.number).is_some_and(|open| open.is_agents)
    }

    /// Waits until the operator removes the node.
    pub(super) async fn removed(&self) {
        self.removed.notified().await;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.roster.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_is_there_until_its_last_stream_ends() {
        let roster = Arc::new(Roster::default());
        let from = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let first = roster.enter("one", from(1));
        let second = roster.enter("one", from(2));
        let other = roster.enter("two", from(3));
        let looks = roster.enter("three", from(4));
        assert!([&first, &second, &other].iter().all(|presence| presence.appear()));
        assert!(!first.appear());
        assert!(roster.nodes().contains("three") && !roster.connected().contains_key("three"));
        drop(looks);
        assert_eq!(roster.connected()["one"].from, from(2), "the latest counts");
        drop(second);
        assert_eq!(roster.connected()["one"].from, from(1));
        roster.end("one");
        first.removed().await;
        drop(first);
        assert_eq!(roster.connected().keys().collect::<Vec<_>>(), ["two"]);
        drop(other);
    }
}
