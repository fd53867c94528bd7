//! What callers call themselves.
//!
//! A caller's certificate says who it is; the name of its workload comes with the hello and is whatever it likes. Each
//! name makes series of metrics of its own, of which there are only so many, so that one caller with ever new names would
//! take those of all others. Each identity may have a few names at a time; who comes with one more has none.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use weft_core::{identity::SpiffeId, name::WorkloadName};

/// How many names an identity may have on one worker.
const MOST: usize = 16;
/// How long a name that nobody comes with counts: as long as its series.
const FORGET: Duration = Duration::from_secs(15 * 60);

/// The names that were seen lately.
#[derive(Debug, Default)]
pub(crate) struct CallerNames(HashMap<SpiffeId, Vec<(WorkloadName, Instant)>, RandomState>);

impl CallerNames {
    /// The name, if the identity may have it.
    pub(crate) fn admit(
        &mut self,
        identity: &SpiffeId,
        name: Option<WorkloadName>,
        now: Instant,
    ) -> Option<WorkloadName> {
        let name = name?;
        if !self.0.contains_key(identity) {
            self.forget(now);
        }
        let names = self.0.entry(identity.clone()).or_default();
        if let Some((_, seen)) = names.iter_mut().find(|(known, _)| *known == name) {
            *seen = now;
            return Some(name);
        }
        if names.len() >= MOST {
            names.retain(|(_, seen)| now.duration_since(*seen) < FORGET);
        }
        (names.len() < MOST).then(|| {
            names.push((name.clone(), now));
            name
        })
    }

    /// Forgets identities that come no more, whenever a new one comes.
    fn forget(&mut self, now: Instant) {
        self.0.retain(|_, names| names.iter().any(|(_, seen)| now.duration_since(*seen) < FORGET));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_cannot_have_ever_new_names() {
        let identity = |name| SpiffeId::parse(&format!("spiffe://test.mesh/ns/default/sa/{name}")).unwrap();
        let name = |number: usize| WorkloadName::new(&format!("web-{number}")).unwrap();
        let (mut names, now) = (CallerNames::default(), Instant::now());
        for number in 0..MOST {
            assert_eq!(names.admit(&identity("web"), Some(name(number)), now), Some(name(number)));
        }
        assert_eq!(names.admit(&identity("web"), Some(name(MOST)), now), None);
        assert_eq!(names.admit(&identity("web"), Some(name(0)), now), Some(name(0)));
        assert_eq!(names.admit(&identity("other"), Some(name(MOST)), now), Some(name(MOST)));
        assert_eq!(names.admit(&identity("web"), Some(name(MOST)), now + FORGET), Some(name(MOST)));
        assert_eq!(names.admit(&identity("new"), None, now + FORGET), None);
        assert_eq!(names.admit(&identity("new"), Some(name(1)), now + FORGET * 3), Some(name(1)));
        assert_eq!(names.0.len(), 1);
    }
}
