//! The registry contract as a check: every registry's tests follow it through [`held`].

use std::collections::BTreeSet;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;

use super::{Capabilities, Event, Registry, RegistryError, Resume, Scope};
use crate::{name::RegistryName, resource::Resource};

/// One stream of a registry, held against the contract.
#[derive(Debug)]
pub struct Contract {
    name: RegistryName,
    capabilities: Capabilities,
    /// Whether it goes on from a point: scopes then need not be listed.
    resumed: bool,
    /// Scopes that were listed, or are.
    begun: BTreeSet<Scope>,
    /// Scopes of which a full list is under way.
    listing: BTreeSet<Scope>,
}

/// The first rule that a word breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// No registry speaks for another but a relay.
    #[error("it speaks of another registry and is no relay")]
    Foreign,
    /// A stream that does not go on from a point lists every scope first.
    #[error("it speaks of a scope before its full list has begun")]
    Unlisted,
    /// `Ready` ends what `Reset` began.
    #[error("it ends a full list that it did not begin")]
    NotListing,
    /// A point to go on from, where it said that it has none.
    #[error("it gives a resume point and cannot resume")]
    Resume,
    /// Only a relay passes on what others confirmed.
    #[error("what it confirms has an age, and it is no relay")]
    Age,
    /// Routes or policies, where it said that it carries none.
    #[error("it carries routes or policies and did not say so")]
    Configuration,
    /// See [`Resource::check`].
    #[error("a resource means nothing: {0}")]
    Resource(&'static str),
}

impl Contract {
    /// For a stream that is about to be watched from `resume`.
    #[must_use]
    pub fn new(registry: &dyn Registry, resume: Option<&Resume>) -> Self {
        let capabilities = registry.capabilities();
        Self {
            name: registry.name().clone(),
            capabilities,
            resumed: resume.is_some() && (capabilities.resume || capabilities.returns),
            begun: BTreeSet::new(),
            listing: BTreeSet::new(),
        }
    }

    /// Holds the next word against the contract.
    ///
    /// # Errors
    /// Names the rule that it breaks.
    pub fn hear(&mut self, event: &Event) -> Result<(), Breach> {
        let scope = event.scope();
        let holds = |rule: bool, breach: Breach| if rule { Ok(()) } else { Err(breach) };
        holds(self.capabilities.relay || scope.registry == self.name, Breach::Foreign)?;
        if !matches!(event, Event::Reset { .. }) {
            holds(self.resumed || self.begun.contains(scope), Breach::Unlisted)?;
        }
        match event {
            Event::Reset { .. } => {
                self.begun.insert(scope.clone());
                self.listing.insert(scope.clone());
            }
            Event::Replace { resources, .. } => {
                let is_configuration = |it: &Resource| matches!(it, Resource::Route(_) | Resource::Policy(_));
                let carries = self.capabilities.configuration || !resources.iter().any(is_configuration);
                holds(carries, Breach::Configuration)?;
                resources.iter().try_for_each(|resource| resource.check().map_err(Breach::Resource))?;
            }
            Event::Ready { .. } => holds(self.listing.remove(scope), Breach::NotListing)?,
            Event::Commit { resume, age, .. } => {
                let resumes = self.capabilities.resume || self.capabilities.returns;
                holds(resumes || resume.is_none(), Breach::Resume)?;
                holds(self.capabilities.relay || age.is_zero(), Breach::Age)?;
            }
        }
        Ok(())
    }
}

/// Watches all of a registry and holds every word against the contract.
///
/// # Panics
/// When the contract is broken: this is for tests.
pub fn held(registry: &dyn Registry, resume: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
    let mut contract = Contract::new(registry, resume.as_ref());
    let stream = registry.watch(Scope::whole(registry.name().clone()), resume);
    let check = move |word: &Result<Event, RegistryError>| {
        if let Ok(event) = word
            && let Err(breach) = contract.hear(event)
        {
            panic!("{breach}: {event:?}");
        }
    };
    stream.inspect(check).boxed()
}

#[cfg(test)]
mod tests {
    use super::{super::scripted::scripted, *};
    use crate::merge::testing::{commit, origin_of_endpoints, ready, replace, reset, scope};

    fn heard(capabilities: Capabilities, resume: Option<&Resume>, events: &[Event]) -> Result<(), Breach> {
        let (registry, _script) = scripted(RegistryName::new("static").unwrap(), capabilities);
        let mut contract = Contract::new(&*registry, resume);
        events.iter().try_for_each(|event| contract.hear(event))
    }

    #[test]
    fn every_breach_is_found() {
        let (own, other) = (scope("static"), scope("other"));
        let words = replace(&own, "a", "1", origin_of_endpoints("a", 1));
        let none = Capabilities::default();
        let list = [reset(&own), words.clone(), ready(&own), commit(&own), words.clone(), commit(&own)];
        assert_eq!(heard(none, None, &list), Ok(()));
        assert_eq!(heard(none, None, &[reset(&other)]), Err(Breach::Foreign));
        assert_eq!(heard(none, None, std::slice::from_ref(&words)), Err(Breach::Unlisted));
        let point = Resume(bytes::Bytes::from_static(b"1"));
        assert_eq!(heard(none, Some(&point), std::slice::from_ref(&words)), Err(Breach::Unlisted));
        let resuming = Capabilities { resume: true, ..none };
        assert_eq!(heard(resuming, Some(&point), &[words, commit(&own)]), Ok(()));
        assert_eq!(heard(none, None, &[reset(&own), ready(&own), ready(&own)]), Err(Breach::NotListing));
        let with = |resume, age| Event::Commit { scope: own.clone(), resume, age };
        let late = std::time::Duration::from_secs(1);
        assert_eq!(
            heard(none, None, &[reset(&own), with(Some(point), Default::default())]),
            Err(Breach::Resume)
        );
        assert_eq!(heard(none, None, &[reset(&own), with(None, late)]), Err(Breach::Age));
        let mut portless = crate::merge::testing::service("a");
        portless.ports.clear();
        let portless = replace(&own, "a", "1", vec![Resource::Service(portless.into())]);
        assert!(matches!(heard(none, None, &[reset(&own), portless]), Err(Breach::Resource(_))));
    }
}
