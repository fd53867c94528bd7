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
    Open {
        seen: Seen,
        /// How many origins the scope had when the list began.
        held: usize,
    },
    Ended(Ended),
}

/// A full list that is over.
#[derive(Debug)]
pub(super) struct Ended {
    /// The origins that it named.
    pub(super) seen: Seen,
    /// How many origins the scope had when it began. Its own first parts do not count: how a list is cut decides nothing.
    pub(super) held: usize,
    pub(super) completeness: Completeness,
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
    /// The full list that ended, if one did.
    pub(super) ended: Option<Ended>,
}

impl Staging {
    /// A full list begins: it says again whatever was said before it. The scope has so many origins.
    pub(super) fn reset(&mut self, held: usize) {
        *self = Self { list: List::Open { seen: Seen::default(), held }, replaced: BTreeMap::new() };
    }

    pub(super) fn replace(&mut self, origin: Arc<Origin>) {
        if let List::Open { seen, .. } | List::Ended(Ended { seen, .. }) = &mut self.list {
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
        if let List::Open { seen, held } = &mut self.list {
            self.list = List::Ended(Ended { seen: std::mem::take(seen), held: *held, completeness });
        }
    }

    /// What a commit makes visible. A list under way stays so: its first part is visible, its end still counts the
    /// origins of all parts.
    pub(super) fn take(&mut self) -> Staged {
        let replaced = std::mem::take(&mut self.replaced);
        match std::mem::take(&mut self.list) {
            List::Ended(ended) => Staged { replaced, ended: Some(ended) },
            list => {
                self.list = list;
                Staged { replaced, ended: None }
            }
        }
    }

    /// Whether a full list is under way: what is visible is not all there is.
    pub(super) fn is_listing(&self) -> bool {
        matches!(self.list, List::Open { .. })
    }
}
