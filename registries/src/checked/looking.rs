//! Asking the endpoints, each by a task of its own, so many at a time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
};
use weft_core::tls::TlsContext;

use super::findings::{EndpointKey, Finding, Findings};
use crate::{
    check::{CheckSettings, Tally, ask, ask_mesh, mesh::MeshTarget},
    http_client::jittered,
};

/// How many endpoints of a registry are asked at a time.
const AT_A_TIME: usize = 64;
/// How many judgements may wait to be told.
const UNTOLD: usize = 256;

/// Judgements on endpoints: whether each is well.
pub(super) type Verdicts = BTreeMap<EndpointKey, bool>;

/// What is asked, of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) settings: CheckSettings,
    pub(super) place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An application, in plaintext.
    Plain(SocketAddr),
    /// Through the agent of an endpoint of the mesh.
    Mesh(Box<MeshTarget>),
}

/// The tasks of one stream; they end when the next one has said all.
pub(super) struct Looking {
    tasks: JoinSet<()>,
    running: BTreeMap<EndpointKey, (Target, AbortHandle)>,
    slots: Arc<Semaphore>,
    tls: Option<Arc<TlsContext>>,
    findings: Findings,
    telling: mpsc::Sender<(EndpointKey, bool)>,
    told: mpsc::Receiver<(EndpointKey, bool)>,
}

impl Looking {
    pub(super) fn new(tls: Option<Arc<TlsContext>>, findings: Findings) -> Self {
        let (telling, told) = mpsc::channel(UNTOLD);
        let slots = Arc::new(Semaphore::new(AT_A_TIME));
        Self { tasks: JoinSet::new(), running: BTreeMap::new(), slots, tls, findings, telling, told }
    }

    /// The next judgement that changed.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(EndpointKey, bool)> {
        // We keep a sender, so it never ends.
        if let Poll::Ready(Some(told)) = self.told.poll_recv(context) {
            return Poll::Ready(told);
        }
        // Only what was ended ends.
        while let Poll::Ready(Some(_)) = self.tasks.poll_join_next(context) {}
        Poll::Pending
    }

    /// Asks this endpoint from here on; `known` is what was found before.
    pub(super) fn look_after(&mut self, key: &EndpointKey, target: Target, known: Option<bool>) {
        if self.running.get(key).is_some_and(|(running, _)| *running == target) {
            return;
        }
        self.leave(key);
        let looker = Looker {
            key: key.clone(),
            target: target.clone(),
            tally: Tally::known(known),
            slots: self.slots.clone(),
            tls: self.tls.clone(),
            findings: self.findings.clone(),
            telling: self.telling.clone(),
        };
        self.running.insert(key.clone(), (target, self.tasks.spawn(looker.run())));
    }

    /// Asks it no more.
    pub(super) fn leave(&mut self, key: &EndpointKey) {
        if let Some((_, task)) = self.running.remove(key) {
            task.abort();
        }
    }
}

struct Looker {
    key: EndpointKey,
    target: Target,
    tally: Tally,
    slots: Arc<Semaphore>,
    tls: Option<Arc<TlsContext>>,
    findings: Findings,
    telling: mpsc::Sender<(EndpointKey, bool)>,
}

impl Looker {
    async fn run(mut self) {
        let interval = self.target.settings.interval;
        // Whole catalogs come in one moment; their endpoints are not asked in one.
        tokio::time::sleep(interval.mul_f64(fastrand::f64()).min(Duration::from_secs(5))).await;
        let mut since = SystemTime::now();
        loop {
            let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
            let answer = self.ask().await;
            drop(slot);
            let changed = self.tally.take(&self.target.settings, answer.is_ok());
            let healthy = self.tally.healthy() != Some(false);
            if changed {
                since = SystemTime::now();
            }
            match answer {
                Err(reason) if !healthy => {
                    let question = self.question();
                    self.findings.set(&self.key, Some(Finding { question, reason, since }));
                }
                _ if healthy => self.findings.set(&self.key, None),
                _ => {}
            }
            if changed && self.telling.send((self.key.clone(), healthy)).await.is_err() {
                return;
            }
            tokio::time::sleep(jittered(interval)).await;
        }
    }

    fn question(&self) -> String {
        let question = &self.target.settings.question;
        match &self.target.place {
            Place::Plain(address) => format!("{question} at {address}"),
            Place::Mesh(target) => format!("{question} through {}", target.mesh),
        }
    }

    async fn ask(&self) -> Result<(), String> {
        match (&self.target.place, &self.tls) {
            (Place::Plain(address), _) => ask(&self.target.settings, *address).await,
            (Place::Mesh(target), Some(tls)) => ask_mesh(&self.target.settings, tls, target).await,
            // A process without a part in the mesh cannot ask: nothing is known against it.
            (Place::Mesh(_), None) => Ok(()),
        }
    }
}
