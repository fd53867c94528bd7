//! What is seen of the mesh while it runs: who called whom, as the agents' taps tell, and which certificates the mesh
//! ports present.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use weft_core::identity::SpiffeId;

use super::{
    layout::{Layout, spiffe_id},
    probe,
};
use crate::admin::client::AdminClient;

/// How often a mesh port is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a broken tap waits before it connects again.
const TAP_AGAIN: Duration = Duration::from_millis(200);

/// A caller and whom it called, as the called side's agent saw them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) mutual_tls: bool,
}

/// The certificates that one identity has presented.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    pub(super) serial: String,
    pub(super) not_after: SystemTime,
    /// When this serial was first seen.
    pub(super) since: SystemTime,
    /// How many serials there were before it.
    pub(super) changes: u64,
}

#[derive(Debug, Default)]
struct Seen {
    calls: BTreeMap<Call, u64>,
    denied: u64,
    rotations: BTreeMap<String, Rotation>,
}

/// All that is seen.
#[derive(Debug, Default)]
pub(super) struct Observations {
    seen: Mutex<Seen>,
}

impl Observations {
    pub(super) fn start(layout: &Layout) -> Arc<Self> {
        let observations = Arc::new(Self::default());
        let [one, two] = &layout.agents;
        for agent in [one, two] {
            tokio::spawn(observations.clone().follow_tap(agent.socket()));
        }
        for (account, address) in [("web", two.inbound), ("reviews", one.inbound)] {
            tokio::spawn(observations.clone().follow_certificate(spiffe_id(account), address));
        }
        observations
    }

    /// Who called whom, and how often.
    pub(super) fn calls(&self) -> BTreeMap<Call, u64> {
        self.lock().calls.clone()
    }

    /// How many requests a rule refused.
    pub(super) fn denied(&self) -> u64 {
        self.lock().denied
    }

    /// The certificates, by identity.
    pub(super) fn rotations(&self) -> BTreeMap<String, Rotation> {
        self.lock().rotations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow_tap(self: Arc<Self>, socket: PathBuf) {
        let client = AdminClient::new(&socket);
        loop {
            if let Ok(mut lines) = client.lines("/tap").await {
                while let Ok(Some(line)) = lines.next().await {
                    self.count(&line);
                }
            }
            tokio::time::sleep(TAP_AGAIN).await;
        }
    }

    /// Counts a request as the called side saw it: there the caller's identity is certified.
    fn count(&self, line: &str) {
        let Ok(request) = serde_json::from_str::<Value>(line) else { return };
        let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str);
        if text("/reporter") != Some("destination") {
            return;
        }
        let (Some(source), Some(destination)) = (text("/source/identity"), text("/destination/identity"))
        else {
            return;
        };
        let mutual_tls = request.pointer("/mutual_tls").and_then(Value::as_bool) == Some(true);
        let mut seen = self.lock();
        if request.pointer("/verdict/status").and_then(Value::as_u64) == Some(403) {
            seen.denied += 1;
            return;
        }
        let call = Call { source: source.into(), destination: destination.into(), mutual_tls };
        *seen.calls.entry(call).or_default() += 1;
    }

    async fn follow_certificate(self: Arc<Self>, identity: SpiffeId, address: SocketAddr) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            if let Ok(presented) = probe::look(address, &identity).await {
                self.note(identity.to_string(), presented);
            }
        }
    }

    fn note(&self, identity: String, presented: probe::Presented) {
        let mut seen = self.lock();
        let before = seen.rotations.get(&identity);
        if before.is_some_and(|rotation| rotation.serial == presented.serial) {
            return;
        }
        let changes = before.map_or(0, |rotation| rotation.changes + 1);
        let probe::Presented { serial, not_after } = presented;
        let rotation = Rotation { serial, not_after, since: SystemTime::now(), changes };
        seen.rotations.insert(identity, rotation);
    }
}
