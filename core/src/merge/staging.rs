//! What a registry said since its last commit, not visible yet.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::snapshot::Origin;
use crate::{name::OriginName, registry::Completeness};

/// Which origins a full list has named.
pub(super) type Seen = HashSet<OriginName, RandomState>;

/// A full list, under way or over.
#[derive(Debug, Default)]
enum List {
    #[default]
    None,
    Open(Seen),
    Ended(Seen, Completeness),
}

/// What is staged for one scope.
#[derive(Debug, Default)]
pub(super) struct Staging {
    list: List,
    replaced: BTreeMap<OriginName, Arc<Origin>>,
}

/// What one commit makes visible.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) replaced: BTreeMap<OriginName, Arc<Origin>>,
    /// The origins that a full list named, when one ended.
    pub(super) ended: Option<(Seen, Completeness)>,
}

impl Staging {
    /// A full list begins: it says again whatever was said before it.
    pub(super) fn reset(&mut self) {
        *self = Self { list: List::Open(Seen::default()), replaced: BTreeMap::new() };
    }

    pub(super) fn replace(&mut self, origin: Arc<Origin>) {
        if let List::Open(seen) | List::Ended(seen, _) = &mut self.list {
            seen.insert(origin.name.clone());
        }
        self.replaced.insert(origin.name.clone(), origin);
    }

    /// What an origin said since the last commit.
    pub(super) fn origin(&self, name: &OriginName) -> Option<&Arc<Origin>> {
        self.replaced.get(name)
    }

    /// The full list is over. Without a beginning it proves no absence.
    pub(super) fn ready(&mut self, completeness: Completeness) {
        if let List::Open(seen) = &mut self.list {
            self.list = List::Ended(std::mem::take(seen), completeness);
        }
    }

    /// What a commit makes visible. A list under way stays so: its first part is visible, its end still counts the
    /// origins of all parts.
    pub(super) fn take(&mut self) -> Staged {
        let replaced = std::mem::take(&mut self.replaced);
        match std::mem::take(&mut self.list) {
            List::Ended(seen, completeness) => Staged { replaced, ended: Some((seen, completeness)) },
            list => {
                self.list = list;
                Staged { replaced, ended: None }
            }
        }
    }

    /// Whether a full list is under way: what is visible is not all there is, and no point to go on from.
    pub(super) fn is_listing(&self) -> bool {
        matches!(self.list, List::Open(_))
    }
}
