//! A look at the store that several hubs share: what a hub does with it is done once, with a record of no meaning. What the
//! store refuses is told by the rule that its operator would have to write.

use std::{future::Future, time::Duration};

use data_encoding::HEXLOWER;
use tokio::time::{Instant, timeout_at};
use weft_core::{
    identity::TrustDomain,
    registry::{RegistryError, Right},
};
use weft_registries::probe::Probe;

use crate::{
    config::SharedStore,
    hub::{
        store::{self, Expected, LeaseId, Put, Store, StoreError},
        token::random,
    },
};

/// How long the record stays at most when the look is interrupted.
const LASTS: Duration = Duration::from_secs(10);

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
    KeepLeases,
    EndLeases,
    Create,
    Read,
    Change,
    Remove,
}

impl Deed {
    fn word(self) -> &'static str {
        match self {
            Self::List => "listing keys",
            Self::KeepLeases => "keeping leases",
            Self::EndLeases => "ending leases",
            Self::Create => "creating keys",
            Self::Read => "reading keys",
            Self::Change => "changing keys",
            Self::Remove => "removing keys",
        }
    }

    /// The rule that allows it, in the store's own words.
    fn rule(self, prefix: &str, server: &SharedStore) -> String {
        match (server, self) {
            (SharedStore::Consul { .. }, Self::KeepLeases | Self::EndLeases) => {
                "session_prefix \"\" { policy = \"write\" }".to_owned()
            }
            (SharedStore::Consul { .. }, _) => format!("key_prefix \"{prefix}\" {{ policy = \"write\" }}"),
            (SharedStore::Etcd { .. }, Self::KeepLeases) => "a user (username, password_file)".to_owned(),
            (SharedStore::Etcd { .. }, _) => format!("readwrite on the prefix \"{prefix}\""),
            (SharedStore::Kubernetes { namespace, .. }, _) => {
                let what = match self {
                    Self::List => "list configmaps",
                    Self::KeepLeases => "create leases.coordination.k8s.io",
                    Self::EndLeases => "delete leases.coordination.k8s.io",
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

impl Look<'_> {
    async fn steps(&mut self, store: &dyn Store) -> Option<()> {
        let key = format!("check/{}", HEXLOWER.encode(&random::<8>()));
        let listed = self.step(Deed::List, "all that hubs share", store.list("check/")).await;
        let lease = self.step(Deed::KeepLeases, "which hub holds which stream", store.grant(LASTS)).await;
        let written = self.write(store, &key, lease.clone()).await;
        if let Some(lease) = lease {
            self.step(Deed::EndLeases, "hubs that leave in order", store.revoke(&lease)).await?;
        }
        listed.and(written)
    }

    /// Makes the record, changes it, and removes it.
    async fn write(&mut self, store: &dyn Store, key: &str, lease: Option<LeaseId>) -> Option<()> {
        let put = || Some(Put { lease: lease.clone(), ..Put::durable("weft check") });
        let needed_for = "joins, tokens and announcements";
        self.step(Deed::Create, needed_for, store.swap(key, Expected::Absent, put())).await?;
        let entry = self.step(Deed::Read, needed_for, store.get(key)).await??;
        let changed = store.swap(key, Expected::Version(entry.version), put());
        self.step(Deed::Change, needed_for, changed).await?;
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
        let late = |_| Err(StoreError::Unreachable(format!("no answer within {} s", self.within.as_secs())));
        let done = timeout_at(self.deadline, step).await.unwrap_or_else(late);
        let given = match &done {
            Ok(_) => true,
            Err(StoreError::Denied(_)) => false,
            Err(error) => {
                self.failed(error);
                return None;
            }
        };
        let why = done.as_ref().err().map(|error| format!(" ({error})")).unwrap_or_default();
        self.probe.rights.push(Right {
            name: deed.rule(self.prefix, self.server),
            given: Some(given),
            needed_for: format!("{}, so for {needed_for}{why}", deed.word()),
            optional: false,
        });
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
