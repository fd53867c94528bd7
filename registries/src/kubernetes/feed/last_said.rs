//! By what a store is recognized that went back in time although its versions have passed ours since: it knows nothing of
//! what was said last. Who still has that, in that version, has all that was said before it too.

use super::{Selector, Word, is_older};
use crate::kubernetes::objects::{Kind, List};

/// Whether the server may have gone back in time since it was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    None,
    /// A watch was cut: another server may answer, at an earlier version.
    Cut,
    /// It was away: its versions may even have passed those that were read.
    Away,
}

/// What was said last of the objects of a feed.
#[derive(Debug, Default)]
pub(super) struct LastSaid {
    said: Said,
    /// Whether it is of a list that is still being read.
    is_listing: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Said {
    /// Nothing: there is none.
    #[default]
    Nothing,
    /// That an object is there, in a version.
    There { name: String, namespace: String, version: String },
    /// Something of which no question tells whether it was ever so: that an object is gone, or cannot be read.
    Elusive,
}

impl LastSaid {
    /// The objects of a list come in any order, and the newest of them counts; one that cannot be read may be that, wherever
    /// in the list it stands.
    pub(super) fn hear(&mut self, words: &[Word]) {
        for word in words {
            match word {
                Word::Listing => *self = Self { said: Said::Nothing, is_listing: true },
                Word::Listed => self.is_listing = false,
                Word::Put(object) => {
                    let meta = object.meta();
                    let version = &meta.resource_version;
                    let is_newest = match &self.said {
                        Said::There { version: known, .. } => !is_older(version, known),
                        Said::Elusive => !self.is_listing,
                        Said::Nothing => true,
                    };
                    if is_newest {
                        let (name, namespace) = (meta.name.clone(), meta.namespace.clone());
                        self.said = Said::There { name, namespace, version: version.clone() };
                    }
                }
                Word::Gone(_) | Word::Unreadable(_) | Word::GoneUnread(_) => self.said = Said::Elusive,
                Word::Away | Word::Back => {}
            }
        }
    }

    /// Which of the selected objects answer whether it is still so; any, where none can.
    pub(super) fn asked_by(&self, selector: &Selector) -> Selector {
        let Said::There { name, namespace, .. } = &self.said else { return selector.clone() };
        let mut fields: Vec<_> = selector.fields.iter().cloned().collect();
        fields.push(format!("metadata.name={name}"));
        if !namespace.is_empty() {
            fields.push(format!("metadata.namespace={namespace}"));
        }
        Selector { labels: selector.labels.clone(), fields: Some(fields.join(",")) }
    }

    /// Whether the answer shows that it is still so.
    pub(super) fn holds_in(&self, answer: &List<'_>, kind: Kind) -> bool {
        let mut objects = answer.items.iter().flatten().filter_map(|item| kind.read(item).ok());
        match &self.said {
            Said::Nothing => objects.next().is_none(),
            Said::There { version, .. } => objects.any(|object| object.meta().resource_version == *version),
            Said::Elusive => false,
        }
    }
}
