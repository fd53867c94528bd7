//! Where something runs: region, zone and sub-zone, from coarse to fine.

use std::fmt;

use arcstr::ArcStr;
use serde::{Deserialize, Serialize};

use crate::{intern::Pool, name::NameError};

/// A place, written `region/zone/subzone`; finer parts may be missing. The default is "unknown".
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Locality {
    /// Without trailing slashes, none when unknown. One text and not three, and one word: every endpoint carries it.
    text: Option<ArcStr>,
}

impl Locality {
    /// Reads `region[/zone[/subzone]]`; the empty text is "unknown".
    ///
    /// # Errors
    /// When there are more than three parts, or a part is longer than 63 bytes or not visible ASCII.
    pub fn new(text: &str) -> Result<Self, NameError> {
        for (index, part) in text.split('/').enumerate() {
            if index > 2 {
                return Err(NameError::new("locality", text, "it has more than three parts"));
            }
            if part.len() > 63 || !part.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(NameError::new("locality", text, "a part is too long or not visible ASCII"));
            }
        }
        let text = text.trim_end_matches('/');
        Ok(Self { text: (!text.is_empty()).then(|| text.into()) })
    }

    /// The region, such as `eu-west-1`; empty when unknown.
    #[must_use]
    pub fn region(&self) -> &str {
        self.part(0)
    }

    /// The zone within the region; empty when unknown.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.part(1)
    }

    /// The part of the zone (rack, node class); empty when unknown.
    #[must_use]
    pub fn subzone(&self) -> &str {
        self.part(2)
    }

    fn part(&self, index: usize) -> &str {
        self.as_str().split('/').nth(index).unwrap_or_default()
    }

    fn as_str(&self) -> &str {
        self.text.as_ref().map_or("", |text| text)
    }

    /// Shares the text with all equal ones of the pool.
    pub(crate) fn intern(&mut self, pool: &mut Pool) {
        if let Some(text) = &mut self.text {
            pool.text(text);
        }
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Locality {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<Locality> for String {
    fn from(locality: Locality) -> String {
        locality.to_string()
    }
}
