//! A look at the store that several hubs share: what a hub does with it is done once, with a record of no meaning. What the
//! store refuses is told by the rule that its operator would have to write.

use std::{future::Future, time::Duration};

use data_encoding::HEXLOWER;
use futures_util::{StreamExt, stream::BoxStream};
use tokio::time::{Instant, timeout, timeout_at};
use weft_core::{
    identity::TrustDomain,
    registry::{RegistryError, Right},
};
use weft_registries::probe::{Probe, spelled};

use crate::{
    config::SharedStore,
    hub::{
        store::{self, Expected, LeaseId, Put, Store, StoreError, Told},
        token::random,
    },
};

/// How long the record stays at most when the look is interrupted, where it has a lease.
const LASTS: Duration = Duration::from_secs(10);

/// How long it is tried to remove one that has none, also when the time for the look is over.
const REMOVED_WITHIN: Duration = Duration::from_secs(1);

/// How long a store may take to tell of a change that it answered as done.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Where the record is while the look lasts.
const FOLDER: &str = "check/";

/// What is written into it, and then changed to. As every record of hubs it is JSON, by which whoever reads configuration in the
/// same store, perhaps for another mesh, knows that it is none.
const RECORDS: [&str; 2] = ["{\"by\":\"weft check\"}", "{\"by\":\"weft check\",\"again\":true}"];

/// What the store is called in a configuration.
pub(super) fn kind(server: &SharedStore) -> &'static str {
    match server {
        SharedStore::Etcd { .. } => "etcd",
        SharedStore::Consul { .. } => "consul",
        SharedStore::Kubernetes { .. } => "kubernetes",
    }
}

/// Looks at a store for at most `within`. Must be called within a runtime.
pub(super) async fn look(
    (prefix, server): (&str, &SharedStore),
    mesh: &TrustDomain,
    within: Duration,
) -> Probe {
    let began = Instant::now();
    let mut look = Look { probe: Probe::default(), prefix, server, deadline: began + within, within };
    match store::shared(prefix, server, mesh) {
        // A step that fails ends the look: those after it would fail alike.
        Ok(store) => drop(look.steps(&*store).await),
        Err(error) => look.failed(&error),
    }
    look.probe.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    look.probe
}

/// What a hub does with its store.
#[derive(Clone, Copy)]
enum Deed {
    List,
    MakeLeases,
    KeepLeases,
    EndLeases,
    ListLeases,
    Watch,
    Create,
    Read,
    Change,
    Remove,
}

impl Deed {
    fn word(self) -> &'static str {
        match self {
            Self::List => "listing keys",
            Self::MakeLeases => "making leases",
            Self::KeepLeases => "keeping leases",
            Self::EndLeases => "ending leases",
            Self::ListLeases => "telling which leases last",
            Self::Watch => "watching keys",
            Self::Create => "creating keys",
            Self::Read => "reading keys",
            Self::Change => "changing keys",
            Self::Remove => "removing keys",
        }
    }

    /// The rule that allows it, in the store's own words.
    fn rule(self, prefix: &str, server: &SharedStore) -> String {
        match (server, self) {
            (SharedStore::Consul { .. }, Self::MakeLeases | Self::KeepLeases | Self::EndLeases) => {
                "session_prefix \"\" { policy = \"write\" }".to_owned()
            }
            (SharedStore::Consul { .. }, _) => format!("key_prefix \"{prefix}\" {{ policy = \"write\" }}"),
            (SharedStore::Etcd { .. }, Self::MakeLeases | Self::KeepLeases) => {
                "a user (username, password_file)".to_owned()
            }
            (SharedStore::Etcd { .. }, _) => format!("readwrite on the prefix \"{prefix}\""),
            (SharedStore::Kubernetes { namespace, .. }, _) => {
                let what = match self {
                    Self::List => "list configmaps",
                    Self::MakeLeases => "create leases.coordination.k8s.io",
                    Self::KeepLeases => "patch leases.coordination.k8s.io",
                    Self::EndLeases => "delete leases.coordination.k8s.io",
                    Self::ListLeases => "list leases.coordination.k8s.io",
                    Self::Watch => "watch configmaps",
                    Self::Create => "create configmaps",
                    Self::Read => "get configmaps",
                    Self::Change => "update configmaps",
                    Self::Remove => "delete configmaps",
                };
                format!("{what} in namespace {namespace}")
            }
        }
    }
}

struct Look<'s> {
    probe: Probe,
    prefix: &'s str,
    server: &'s SharedStore,
    deadline: Instant,
    within: Duration,
}

/// The rule that a refusal of Kubernetes names itself: a deed may need more than the one that is its own, such as to read
/// the lease of a key.
fn named_rule(server: &SharedStore, refusal: &str) -> Option<String> {
    let SharedStore::Kubernetes { namespace, .. } = server else { return None };
    let (before, _) = refusal.split_once(&format!(" in namespace {namespace}"))?;
    let mut words = before.rsplit(' ');
    let (resource, verb) = (words.next()?, words.next()?);
    Some(format!("{verb} {resource} in namespace {namespace}"))
}

/// Why a refusal is about who asks, and so no word about rights; none where it is about what was asked.
fn stranger(server: &SharedStore, refusal: &str) -> Option<&'static str> {
    match server {
        SharedStore::Consul { .. } if refusal.contains("ACL not found") => Some("the token is not known"),
        SharedStore::Kubernetes { .. } if refusal.contains("our credential is not accepted") => {
            Some("the credential is not accepted")
        }
        _ => None,
    }
}

impl Look<'_> {
    async fn steps(&mut self, store: &dyn Store) -> Option<()> {
        let key = format!("{FOLDER}{}", HEXLOWER.encode(&random::<8>()));
        let listed = self.step(Deed::List, "all that hubs share", store.list(FOLDER)).await;
        let lease = self.step(Deed::MakeLeases, "which hub holds which stream", store.grant(LASTS)).await;
        if let Some(lease) = &lease {
            let kept =
                async { if store.keep_alive(lease).await? { Ok(()) } else { Err(StoreError::LeaseGone) } };
            // Without it the look goes on: the lease lasts for as long.
            let _kept = self.step(Deed::KeepLeases, "which hub holds which stream", kept).await;
        }
        let written = self.write(store, &key, lease.clone()).await;
        match lease {
            Some(lease) => {
                self.step(Deed::EndLeases, "hubs that leave in order", store.revoke(&lease)).await?;
            }
            // It would stay for ever, and one more with each look.
            None if written.is_none() => {
                drop(timeout(REMOVED_WITHIN, store.swap(&key, Expected::Any, None)).await);
            }
            None => {}
        }
        listed.and(written)
    }

    /// Makes the record, changes it, and removes it; what is told of that is what a hub hears of others.
    async fn write(&mut self, store: &dyn Store, key: &str, lease: Option<LeaseId>) -> Option<()> {
        let put = |value: &'static str| Some(Put { lease: lease.clone(), ..Put::durable(value) });
        let needed_for = "joins, tokens and announcements";
        self.step(Deed::Create, needed_for, store.swap(key, Expected::Absent, put(RECORDS[0]))).await?;
        let mut told = store.watch(FOLDER);
        // The key has a lease: whoever lists it, or begins to watch it, asks for the leases.
        let begun = match &lease {
            Some(_) => self.step(Deed::ListLeases, "hubs that died", store.list(FOLDER)).await.map(drop),
            None => Some(()),
        };
        let watched = match begun {
            Some(()) => self.step(Deed::Watch, "what other hubs write", first(&mut told)).await,
            None => None,
        };
        let entry = self.step(Deed::Read, needed_for, store.get(key)).await??;
        // Of a change to the same nobody is told.
        let changed = store.swap(key, Expected::Version(entry.version), put(RECORDS[1]));
        self.step(Deed::Change, needed_for, changed).await?;
        if watched.is_some() {
            self.step(Deed::Watch, "what other hubs write", change(&mut told, key)).await;
        }
        self.step(Deed::Remove, needed_for, store.swap(key, Expected::Any, None)).await.map(drop)
    }

    /// One step. What the store denies is a missing right, all else a fault.
    async fn step<T>(
        &mut self,
        deed: Deed,
        needed_for: &str,
        step: impl Future<Output = Result<T, StoreError>>,
    ) -> Option<T> {
        if self.probe.error.is_some() {
            return None;
        }
        let late = |_| {
            Err(StoreError::Unreachable(format!(
                "no answer within {} for {}",
                spelled(self.within),
                deed.word()
            )))
        };
        let done = timeout_at(self.deadline, step).await.unwrap_or_else(late);
        let given = match &done {
            Ok(_) => true,
            Err(StoreError::Denied(why)) => match stranger(self.server, why) {
                Some(why) => {
                    self.failed(&StoreError::Denied(why.to_owned()));
                    return None;
                }
                None => false,
            },
            Err(error) => {
                self.failed(error);
                return None;
            }
        };
        let why = done.as_ref().err().map(|error| format!(" ({error})")).unwrap_or_default();
        let own = || deed.rule(self.prefix, self.server);
        let right = Right {
            name: named_rule(self.server, &why).unwrap_or_else(own),
            given: Some(given),
            needed_for: format!("{}, so for {needed_for}{why}", deed.word()),
            optional: false,
        };
        if !self.probe.rights.contains(&right) {
            self.probe.rights.push(right);
        }
        done.ok()
    }

    fn failed(&mut self, error: &StoreError) {
        let kind = match error {
            StoreError::Denied(_) => RegistryError::Denied(String::new()),
            StoreError::Unreachable(_) => RegistryError::Unreachable(String::new()),
            _ => RegistryError::Malformed(String::new()),
        };
        self.probe.error = Some(error.to_string());
        self.probe.error_kind = Some(kind.label());
    }
}

/// What a watch begins with.
async fn first(told: &mut BoxStream<'_, Result<Told, StoreError>>) -> Result<(), StoreError> {
    told.next().await.unwrap_or_else(|| Err(StoreError::Unreachable("a watch ended".to_owned()))).map(drop)
}

/// Waits until a watch tells of a key.
async fn change(told: &mut BoxStream<'_, Result<Told, StoreError>>, key: &str) -> Result<(), StoreError> {
    let telling = async {
        while let Some(word) = told.next().await {
            match word? {
                Told::Put(entry) if entry.key == key => return Ok(()),
                // After a gap it begins anew, with the change in it.
                Told::All(entries) if entries.iter().any(|entry| entry.key == key) => return Ok(()),
                Told::All(_) | Told::Put(_) | Told::Gone(_) => {}
            }
        }
        Err(StoreError::Unreachable("a watch ended".to_owned()))
    };
    let late = |_| {
        Err(StoreError::Unreachable(format!("a watch tells no change within {} s", TOLD_WITHIN.as_secs())))
    };
    timeout(TOLD_WITHIN, telling).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_a_look_is_known_to_who_reads_configuration_beside_it() {
        let folders = weft_registries::consul::configuration::HUB_FOLDERS;
        assert!(folders.contains(&FOLDER.trim_end_matches('/')));
        for record in RECORDS {
            serde_json::from_str::<serde_json::Value>(record).expect(record);
        }
    }
}
