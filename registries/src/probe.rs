//! A look at a registry for a person who sets it up: is it there, is the token good, what is seen and what is not.
//!
//! One look serves every kind: it asks for the [`Right`]s and follows the registry until its first list is whole. So
//! what is shown is what an agent would see, read by the same code.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};
use weft_core::{
    compile::hidden_routes,
    merge::{Limits, Merge, ScopeState},
    name::{InstanceName, ServiceName},
    registry::{Completeness, Event, OriginFault, Registry, RegistryError, Right, Scope},
    resource::Resource,
};

/// How long a registry may take to give back what the look was given at its server.
const CLOSING: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Probe {
    /// Why it could not be listed; none when it could.
    pub error: Option<String>,
    /// What kind of error that is: `unreachable`, `denied`, `overloaded`, `malformed` or `gap`.
    pub error_kind: Option<&'static str>,
    /// The rights it needs, as far as its server tells.
    pub rights: Vec<Right>,
    /// Whether the list is all there is; none when there was no list.
    pub complete: Option<bool>,
    /// How many services were seen.
    pub services: usize,
    /// How many endpoints were seen.
    pub endpoints: usize,
    /// How many of them can be called: in mutual TLS, or in plaintext because the file says so.
    pub usable: usize,
    /// How many routes and policies were seen.
    pub rules: usize,
    /// What was left out, and why.
    pub skipped: Vec<OriginFault>,
    /// Milliseconds from the first question to the whole list.
    pub took_ms: u64,
}

impl Probe {
    /// Whether nothing stands in the way: it was listed, and no right is known to be missing but such as may be.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.error.is_none() && self.rights.iter().all(|right| right.optional || right.given != Some(false))
    }

    fn failed(&mut self, error: &RegistryError) {
        self.error = Some(error.to_string());
        self.error_kind = Some(error.label());
    }
}

/// Looks at a registry of which `limits` are declared, and where instances of `announced` services are to be announced, for
/// at most `within`. Nothing is announced.
pub async fn probe(
    registry: &dyn Registry,
    limits: &Limits,
    announced: &[ServiceName],
    within: Duration,
) -> Probe {
    let began = Instant::now();
    let deadline = began + within;
    let mut probe = Probe::default();
    match timeout_at(deadline, rights(registry, announced)).await {
        Ok(Ok(rights)) => probe.rights = rights,
        Ok(Err(error)) => probe.failed(&error),
        Err(_) => {
            let late = format!("no answer within {} to the question which rights are given", spelled(within));
            probe.failed(&RegistryError::Unreachable(late));
        }
    }
    let mut listed = Listed::new(registry, limits);
    // A server that could not be asked for rights may still be listed, and the other way round.
    match timeout_at(deadline, listed.listen(registry)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => probe.failed(&error),
        // The question before it took all the time.
        Err(_) if probe.error.is_some() => {}
        Err(_) => {
            let late = format!("no whole list within {}: {}", spelled(within), listed.missing());
            probe.failed(&RegistryError::Unreachable(late));
        }
    }
    listed.count(&mut probe);
    probe.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    // What it holds ends by itself where it cannot be given back in time.
    let _closed = timeout(CLOSING, registry.close()).await;
    probe
}

/// A time as a person reads it: `15 s`, `1.5 s`, `1 ms`.
#[must_use]
pub fn spelled(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        _ => format!("{} s", (time.as_secs_f64() * 10.0).round() / 10.0),
    }
}

/// Those to follow, and those to announce.
async fn rights(registry: &dyn Registry, announced: &[ServiceName]) -> Result<Vec<Right>, RegistryError> {
    let mut rights = registry.rights().await?;
    if !announced.is_empty() {
        rights.extend(registry.rights_to_announce(announced).await?);
    }
    Ok(rights)
}

/// What was heard until the first list was whole, as an agent would take it in.
struct Listed {
    merge: Merge,
    /// How many origins have spoken.
    heard: usize,
    listing: BTreeSet<Scope>,
    whole: bool,
}

impl Listed {
    fn new(registry: &dyn Registry, limits: &Limits) -> Self {
        let merge = Merge::new([(registry.name().clone(), limits.clone())].into());
        Self { merge, heard: 0, listing: BTreeSet::new(), whole: false }
    }

    async fn listen(&mut self, registry: &dyn Registry) -> Result<(), RegistryError> {
        let mut words = registry.watch(Scope::whole(registry.name().clone()), None);
        while let Some(word) = words.next().await {
            let word = word?;
            match &word {
                Event::Reset { scope } => drop(self.listing.insert(scope.clone())),
                Event::Ready { scope, .. } => drop(self.listing.remove(scope)),
                Event::Commit { .. } => self.whole = self.listing.is_empty(),
                Event::Replace { .. } => self.heard += 1,
            }
            self.merge.apply(word, SystemTime::now());
            if self.whole {
                return Ok(());
            }
        }
        Err(RegistryError::Unreachable("the stream ended".into()))
    }

    /// What of the list did not come.
    fn missing(&self) -> String {
        match (self.heard, self.listing.is_empty()) {
            (0, true) => "its first question is not answered".into(),
            (0, false) => "it began, and nothing of it came".into(),
            (heard, _) => format!("{heard} parts of it came, and not its end"),
        }
    }

    fn count(self, probe: &mut Probe) {
        let mut unusable: BTreeMap<(&ServiceName, &str), (usize, &InstanceName)> = BTreeMap::new();
        let scopes = &self.merge.snapshot().scopes;
        for origin in scopes.values().flat_map(|state| state.origins.values()) {
            probe.skipped.extend(origin.faults.iter().cloned());
            let rules = |it: &&Resource| matches!(it, Resource::Route(_) | Resource::Policy(_));
            probe.rules += origin.resources.iter().filter(rules).count();
        }
        // What stands in spite of them is counted; which that is, and what it hides, is for whoever wrote it.
        let hidden = self.merge.snapshot().partitions.iter().flat_map(|(registry, partition)| {
            partition.services.values().flat_map(|entry| hidden_routes(registry, &entry.routes))
        });
        let conflicts = self.merge.diagnostics().cloned().chain(hidden);
        probe.skipped.extend(conflicts.map(|conflict| OriginFault {
            message: conflict.message,
            place: conflict.places.join(", "),
            keeps_last_good: false,
        }));
        // What is in force: of what several origins say of one endpoint, one word.
        let partitions = self.merge.snapshot().partitions.values();
        for entry in partitions.flat_map(|partition| partition.services.values()) {
            probe.services += usize::from(entry.service.is_some());
            probe.endpoints += entry.endpoints.len();
            for endpoint in &entry.endpoints {
                match endpoint.unusable() {
                    None => probe.usable += 1,
                    Some(why) => {
                        let of = unusable.entry((&endpoint.service, why));
                        of.or_insert((0, &endpoint.instance)).0 += 1;
                    }
                }
            }
        }
        probe.skipped.extend(unusable.into_iter().map(|((service, why), (count, example))| OriginFault {
            message: format!("not called: {count} of its endpoints, such as {example}: {why}"),
            place: service.to_string(),
            keeps_last_good: false,
        }));
        let is_filtered = |state: &ScopeState| state.completeness == Some(Completeness::Filtered);
        // What is kept as it was is not known as it is.
        let is_unread = |state: &ScopeState| {
            let mut faults = state.origins.values().flat_map(|origin| &origin.faults);
            faults.any(|fault| fault.keeps_last_good)
        };
        probe.complete =
            self.whole.then(|| !scopes.values().any(|state| is_filtered(state) || is_unread(state)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_never_nothing() {
        let spelled = |millis| spelled(Duration::from_millis(millis));
        assert_eq!([1, 999, 1500, 15_000].map(spelled), ["1 ms", "999 ms", "1.5 s", "15 s"]);
    }

    #[test]
    fn a_right_that_may_be_missing_is_no_fault() {
        let with = |given, optional| {
            let right = Right { name: "list nodes".into(), given, needed_for: "regions".into(), optional };
            Probe { rights: vec![right], ..Probe::default() }.is_well()
        };
        assert!(with(Some(false), true) && with(None, false) && with(Some(true), false));
        assert!(!with(Some(false), false));
    }
}
