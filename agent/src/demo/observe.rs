//! What is seen of the mesh while it runs: who called whom, as the agents' taps tell on both sides, and which certificates
//! the mesh ports present.
//!
//! The called side certifies who called, but does not see what never came through its mesh port; the calling side sees
//! every call, plaintext too. So both are heard.

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
    probe,
    site::{AgentLayout, spiffe_id},
};
use crate::admin::client::AdminClient;

/// How often a mesh port is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a broken tap waits before it connects again.
const TAP_AGAIN: Duration = Duration::from_millis(200);

/// A caller and whom it called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    pub(super) source: String,
    /// The identity that answered; the service's name where nobody had to prove one.
    pub(super) destination: String,
    pub(super) mutual_tls: bool,
}

/// How often a call was seen, from each side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sides {
    pub(super) calling: u64,
    pub(super) called: u64,
}

impl Sides {
    /// How often there was such a call, as far as is known.
    pub(super) fn count(self) -> u64 {
        if self.called > 0 { self.called } else { self.calling }
    }
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
    calls: BTreeMap<Call, Sides>,
    denied: u64,
    /// Calls that a tap was too slow to tell of.
    missed: u64,
    rotations: BTreeMap<String, Rotation>,
}

/// All that is seen.
#[derive(Debug, Default)]
pub(super) struct Observations {
    seen: Mutex<Seen>,
}

impl Observations {
    /// Looks at the taps of `agents`, and at the certificates of the accounts that serve there.
    pub(super) fn start(agents: &[AgentLayout], serving: &[(&str, SocketAddr)]) -> Arc<Self> {
        let observations = Arc::new(Self::default());
        for agent in agents {
            tokio::spawn(observations.clone().follow_tap(agent.socket()));
        }
        for (account, address) in serving {
            tokio::spawn(observations.clone().follow_certificate(spiffe_id(account), *address));
        }
        observations
    }

    /// Who called whom, and how often.
    pub(super) fn calls(&self) -> BTreeMap<Call, Sides> {
        self.lock().calls.clone()
    }

    /// How many calls nobody told of, because they came too fast.
    pub(super) fn missed(&self) -> u64 {
        self.lock().missed
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

    fn count(&self, line: &str) {
        let Ok(told) = serde_json::from_str::<Value>(line) else { return };
        let mut seen = self.lock();
        if let Some(missed) = told.get("missed").and_then(Value::as_u64) {
            seen.missed += missed;
            return;
        }
        let is_called_side = told.get("reporter").and_then(Value::as_str) == Some("destination");
        if told.pointer("/verdict/status").and_then(Value::as_u64) == Some(403) {
            seen.denied += u64::from(is_called_side);
            return;
        }
        let Some(call) = call(&told) else { return };
        let sides = seen.calls.entry(call).or_default();
        if is_called_side {
            sides.called += 1;
        } else {
            sides.calling += 1;
        }
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

/// Who called whom; none of a request that went nowhere.
fn call(told: &Value) -> Option<Call> {
    let text = |pointer: &str| told.pointer(pointer).and_then(Value::as_str);
    let source = text("/source/identity")?.to_owned();
    let mutual_tls = told.get("mutual_tls").and_then(Value::as_bool) == Some(true);
    let destination = if mutual_tls {
        text("/destination/identity")?
    } else {
        // Without an instance nothing was sent.
        text("/destination/instance").and(text("/destination/service/service"))?
    };
    Some(Call { source, destination: destination.to_owned(), mutual_tls })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_sides_are_heard_and_plaintext_shows_though_only_the_caller_sees_it() {
        let seen = Observations::default();
        let mut told = json!({
            "reporter": "source",
            "source": { "identity": "spiffe://demo.mesh/ns/default/sa/web" },
            "destination": {
                "service": { "registry": "static", "service": "reviews.default" },
                "instance": "reviews-v1",
                "identity": "spiffe://demo.mesh/ns/default/sa/reviews",
            },
            "mutual_tls": true,
            "verdict": { "status": 200 },
        });
        seen.count(&told.to_string());
        told["mutual_tls"] = false.into();
        seen.count(&told.to_string());
        told["destination"]["instance"] = Value::Null;
        seen.count(&told.to_string());
        told["reporter"] = "destination".into();
        told["mutual_tls"] = true.into();
        seen.count(&told.to_string());
        told["verdict"]["status"] = 403.into();
        seen.count(&told.to_string());
        seen.count("{\"missed\":3}");
        let calls: Vec<_> = seen.calls().into_iter().collect();
        let [(plain, plain_sides), (secure, sides)] = calls.try_into().unwrap();
        assert_eq!((plain.destination.as_str(), plain.mutual_tls), ("reviews.default", false));
        assert_eq!((plain_sides.calling, plain_sides.called), (1, 0));
        assert!(secure.mutual_tls && secure.destination.ends_with("/sa/reviews"), "{secure:?}");
        assert_eq!((sides.calling, sides.called), (1, 1));
        assert_eq!((seen.denied(), seen.missed()), (1, 3));
    }
}
