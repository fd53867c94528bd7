//! Pods that slices point to before they are heard of themselves, or after they are gone.
//!
//! Slices and pods are followed apart, so every new pod is missing for a moment: that is no fault. One that is still
//! missing after two looks is.

use std::collections::HashSet;

use super::{Catalog, Source, Uid};

/// Those that are waited for. None while all is listed for the first time: what a whole list lacks is missing.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    is_patient: bool,
    new: HashSet<Uid>,
    /// Those that were missing at the last look.
    looked_at: HashSet<Uid>,
}

impl Awaited {
    pub(super) fn begin(&mut self, uids: impl IntoIterator<Item = Uid>) {
        if self.is_patient {
            self.new.extend(uids);
        }
    }

    pub(super) fn is(&self, uid: Uid) -> bool {
        self.new.contains(&uid) || self.looked_at.contains(&uid)
    }
}

impl Catalog {
    /// Everything is listed: whoever is missing now is missing, and whoever is from here on is waited for.
    pub(in crate::kubernetes) fn be_patient(&mut self) {
        self.awaited = Awaited { is_patient: true, ..Awaited::default() };
    }

    /// Whether it is to be looked again.
    pub(in crate::kubernetes) fn awaits_pods(&self) -> bool {
        !self.awaited.new.is_empty() || !self.awaited.looked_at.is_empty()
    }

    /// Looks who is still missing: of those who were so at the last look it is told.
    pub(in crate::kubernetes) fn look_for_pods(&mut self) {
        let next = std::mem::take(&mut self.awaited.new);
        for uid in std::mem::replace(&mut self.awaited.looked_at, next) {
            let missing = self.pods.get(&uid).filter(|entry| entry.pod.is_none());
            let slices = missing.into_iter().flat_map(|entry| entry.slices.iter().cloned());
            self.due.extend(slices.map(Source::Slice));
        }
    }
}
