//! Rounds: what moved is found, read and told alone, as long as no whole list is called for.

use std::{collections::BTreeSet, pin::pin};

use futures_util::TryStreamExt;
use tokio::time::Instant;
use weft_core::registry::{Completeness, Event, RegistryError};

use super::{
    super::{
        convert,
        known::{self, Sweep},
        reading,
    },
    Follower,
};

impl Follower {
    /// Finds out what changed, reads it and tells it.
    pub(super) async fn round(&mut self) -> Result<Vec<Event>, RegistryError> {
        if self.moved {
            self.find_written().await?;
            self.moved = false;
        }
        if self.anew {
            return self.list().await;
        }
        let dirty = self.known.take_dirty();
        match self.read_changed(&dirty).await {
            Ok(Some(events)) => {
                self.reconsider = false;
                self.note_told();
                Ok(events)
            }
            Ok(None) => self.list().await,
            Err(error) => {
                // Some of them may be read, and none of them is told.
                self.known.doubt(dirty);
                Err(error)
            }
        }
    }

    /// Reads services that may have changed. Returns what is to be told of them, none where only a whole list may be told.
    async fn read_changed(
        &mut self,
        dirty: &BTreeSet<known::Name>,
    ) -> Result<Option<Vec<Event>>, RegistryError> {
        let (names, unlisted): (BTreeSet<_>, BTreeSet<_>) =
            dirty.iter().cloned().partition(|name| self.known.has(name));
        let mut changed = self.unreadable(&names);
        // Where all is seen, what no list shows is gone.
        let (asked, mut gone) = match self.hiding.is_open() {
            true => (names, unlisted),
            false => {
                let nameless = unlisted.into_iter().filter(|name| convert::checked_name(name).is_err());
                (dirty.clone(), nameless.collect())
            }
        };
        let mut reading = pin!(reading::services(self.client.clone(), asked));
        while let Some(read) = reading.try_next().await? {
            self.hiding.note_read(&read, &self.known);
            self.known.read(&read.name, &read.entries);
            self.owed.read(&read.name, &read.entries);
            if read.entries.is_empty() {
                gone.insert(read.name);
            } else if self.hiding.shows(&read.name, read.entries.len()) {
                self.convert(&read.name, &read.entries, &mut changed);
            }
        }
        for name in &gone {
            self.hiding.note_gone(name);
            self.owed.read(name, &[]);
            if let Some(configured) = self.configured.as_mut().filter(|_| !self.owed.lacks(name)) {
                configured.note(name, None);
            }
        }
        let (configuration, unsaid) = self.configuration();
        changed.extend(configuration);
        // Who is shown more may have been given a right.
        let filtered = self.told.completeness() == Some(Completeness::Filtered);
        if (self.hiding.has_lost() || filtered || !unsaid.is_empty())
            && self.hiding.judge(&self.client).await?
        {
            return Ok(None);
        }
        let unsure = !unsaid.is_empty() && !self.hiding.sight().is_whole();
        if unsure || self.told.completeness() != Some(self.completeness()) {
            return Ok(None);
        }
        changed.extend([self.notices()]);
        let parts = gone.iter().chain(self.owed.completed()).map(|name| convert::part(name));
        let gone = gone.iter().map(|name| convert::origin(name)).chain(parts).chain(unsaid).collect();
        Ok(self.told.tell_changed(changed, gone))
    }

    /// The set that is asked for indexes; of a peer, nodes have none.
    pub(super) fn smaller(&self) -> Sweep {
        if self.waiters.is_some() { Sweep::Services } else { self.known.sweep(self.sweep) }
    }

    /// Asks the smaller set for what moved in it. What is heard counts when all of it is.
    async fn find_written(&mut self) -> Result<(), RegistryError> {
        self.sweep = self.smaller();
        let indexes = self.sweep_indexes().await?;
        if indexes.iter().any(|(name, index)| self.known.went_back(self.sweep, name, *index)) {
            // The lists' own indexes may have gone beyond what they were by now.
            self.owed.went_back(Instant::now());
            self.anew = true;
            return Ok(());
        }
        let moved = indexes.iter().filter(|(name, index)| self.known.is_moved(self.sweep, name, *index));
        let nodes = moved.filter(|_| self.sweep == Sweep::Nodes).map(|(name, _)| name.clone()).collect();
        let found = reading::on_nodes(&self.client, nodes).await?;
        for (name, index) in indexes {
            self.known.index(self.sweep, &name, index);
        }
        for (name, instances) in found {
            self.known.on_node(&name, &instances);
        }
        Ok(())
    }

    pub(super) async fn sweep_indexes(&self) -> Result<Vec<(known::Name, Option<u64>)>, RegistryError> {
        reading::indexes(&self.client, self.sweep, self.known.members(self.sweep)).await
    }
}
