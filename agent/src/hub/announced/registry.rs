//! The announcements as a registry of this process: a full list, then what changes, and "still true" in between.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use weft_core::{
    control::discovery::encode_replace,
    name::{NameError, OriginName, RegistryName},
    registry::{Capabilities, Completeness, Event, Registry, RegistryError, Resume, Scope, Version},
};

use super::{
    Announcements,
    listing::{Listed, listing},
};
use crate::hub::records::{ANNOUNCED, OWNERS};

/// How often it says that all is still true.
const STILL_TRUE: Duration = Duration::from_secs(5);
/// For how long the store may tell nothing before that is an outage: a few tries, and the time that a leader is chosen in.
const AWAY: Duration = Duration::from_secs(10);

/// Follows a hub's announcements.
pub(in crate::hub) struct AnnouncedRegistry(pub(in crate::hub) Arc<Announcements>);

impl Registry for AnnouncedRegistry {
    fn name(&self) -> &RegistryName {
        self.0.name()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { health: true, ..Capabilities::default() }
    }

    fn watch(&self, scope: Scope, _: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        let changes = self.0.changed.subscribe();
        let walk = Walk { announcements: &self.0, scope, changes, told: None };
        stream::unfold(walk, |mut walk| async move {
            let words = walk.next().await;
            Some((stream::iter(words), walk))
        })
        .flatten()
        .boxed()
    }
}

struct Walk<'a> {
    announcements: &'a Announcements,
    scope: Scope,
    changes: watch::Receiver<()>,
    /// What was told last; none before the first list.
    told: Option<BTreeMap<OriginName, Listed>>,
}

impl Walk<'_> {
    /// The next words, which end with a commit.
    async fn next(&mut self) -> Vec<Result<Event, RegistryError>> {
        if self.told.is_some() {
            // It cannot end before the announcements do, which we hold.
            let _changed = timeout(STILL_TRUE, self.changes.changed()).await;
        }
        let silent_since = Instant::now();
        let listed = loop {
            self.changes.mark_unchanged();
            if let Some(listed) = self.list() {
                break listed;
            }
            if silent_since.elapsed() >= AWAY {
                let store = self.announcements.records.store().describe();
                return vec![Err(RegistryError::Unreachable(store))];
            }
            let _changed = timeout_at(silent_since + AWAY, self.changes.changed()).await;
        };
        let now: BTreeMap<_, _> = match listed {
            Ok(listed) => listed.into_iter().map(|listed| (listed.origin.clone(), listed)).collect(),
            Err(fault) => return vec![Err(RegistryError::Malformed(fault.to_string()))],
        };
        let scope = || self.scope.clone();
        let first = self.told.is_none();
        let before = self.told.take().unwrap_or_default();
        let mut words = Vec::new();
        words.extend(first.then(|| Event::Reset { scope: scope() }));
        let changed = now.values().filter(|listed| before.get(&listed.origin) != Some(listed));
        words.extend(changed.map(|listed| self.replace(listed)));
        let gone = before.values().filter(|listed| !now.contains_key(&listed.origin));
        words.extend(gone.map(|listed| {
            self.replace(&Listed { resources: Vec::new(), faults: Vec::new(), ..listed.clone() })
        }));
        words.extend(first.then(|| Event::Ready { scope: scope(), completeness: Completeness::Full }));
        words.push(Event::Commit { scope: scope(), resume: None, age: Duration::ZERO });
        self.told = Some(now);
        words.into_iter().map(Ok).collect()
    }

    /// What is announced; none while the store tells nothing of it: what was known last is then not known to be so still.
    fn list(&self) -> Option<Result<Vec<Listed>, NameError>> {
        let (state, now) = (self.announcements.lock(), Instant::now().into_std());
        let is_told = [ANNOUNCED, OWNERS].iter().all(|prefix| state.stored.told_for(prefix, now).is_some());
        is_told.then(|| listing(&state.stored, &state.doubted))
    }

    fn replace(&self, listed: &Listed) -> Event {
        let Listed { origin, resources, faults } = listed;
        let version = encode_replace(origin.as_str(), resources, faults).version;
        Event::Replace {
            scope: self.scope.clone(),
            origin: origin.clone(),
            version: Version(format!("{version:016x}").into()),
            resources: resources.clone(),
            faults: faults.clone(),
        }
    }
}
