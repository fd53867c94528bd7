//! Versions of hello and answer: both sides say what they know, the highest common one wins.

use std::fmt;

/// The versions this build speaks.
pub const OUR_VERSIONS: VersionRange = VersionRange { lowest: 1, highest: 1 };

/// Versions that a side speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// From 1.
    pub lowest: u8,
    /// At least `lowest`.
    pub highest: u8,
}

impl VersionRange {
    /// The highest version in both ranges.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u8> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest.max(other.lowest)).then_some(highest)
    }

    /// What a message says, where absent numbers mean the version of the frame alone. Numbers above 255 cannot be
    /// spoken by frames of ALPN `/1` and are cut to it.
    pub(super) fn read(lowest: u32, highest: u32, frame: u8) -> Option<Self> {
        let byte = |number: u32| match number {
            0 => frame,
            _ => u8::try_from(number).unwrap_or(u8::MAX),
        };
        let range = Self { lowest: byte(lowest), highest: byte(highest) };
        (range.lowest <= range.highest).then_some(range)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.lowest, self.highest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_wins() {
        let range = |lowest, highest| VersionRange { lowest, highest };
        assert_eq!(range(1, 3).common(range(2, 9)), Some(3));
        assert_eq!(range(1, 1).common(range(1, 200)), Some(1));
        assert_eq!(range(1, 1).common(range(2, 2)), None);
        assert_eq!(range(4, 5).common(range(1, 3)), None);
    }
}
