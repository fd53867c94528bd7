//! How any demonstration comes up, is observed, and ends.

use std::{net::SocketAddr, sync::Arc};

use super::{children::Children, load::Load, observe::Observations, site::Site};
use crate::lifecycle::Signals;

/// How often it is tried to bring a mesh up: a port that was free may be taken before it is used.
const ATTEMPTS: u32 = 3;

/// What a demonstration brings up.
pub(super) trait Scene: Sized {
    /// Where its files lie.
    fn site(&self) -> &Site;
    /// Brings it all up.
    async fn start(&mut self, children: &mut Children) -> anyhow::Result<()>;
    /// Removes what is left when the children have ended.
    async fn end(self);
}

/// A running mesh and what is seen of it.
pub(super) struct Running<S> {
    pub(super) scene: S,
    pub(super) children: Children,
    pub(super) load: Arc<Load>,
    pub(super) observations: Arc<Observations>,
}

impl<S: Scene> Running<S> {
    /// Begins to call and to look: at the taps of all agents, and at the certificates of those that serve.
    pub(super) fn observe(
        scene: S,
        children: Children,
        load: Arc<Load>,
        serving: &[(&str, SocketAddr)],
    ) -> Self {
        let observations = Observations::start(&scene.site().agents, serving);
        Self { scene, children, load, observations }
    }

    pub(super) async fn end(mut self) {
        self.children.end().await;
        self.scene.end().await;
    }
}

/// Brings a mesh up, on other ports when somebody was faster to take one.
pub(super) async fn bring_up<S: Scene>(
    signals: &mut Signals,
    create: impl Fn() -> anyhow::Result<S>,
) -> anyhow::Result<(S, Children)> {
    let mut attempts = 1;
    loop {
        let mut scene = create()?;
        let mut children = Children::new(scene.site());
        let started = tokio::select! {
            started = scene.start(&mut children) => Some(started),
            _ = signals.next() => None,
        };
        if let Some(Ok(())) = started {
            return Ok((scene, children));
        }
        let again = started.is_some() && attempts < ATTEMPTS && children.has_no_port();
        if started.is_some() && !again {
            children.print_logs();
        }
        children.end().await;
        scene.end().await;
        match started {
            Some(Err(error)) if !again => return Err(error),
            Some(_) => attempts += 1,
            None => anyhow::bail!("stopped before the mesh was up"),
        }
    }
}
