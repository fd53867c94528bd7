//! What the hub says of the registries that it relays: an agent sees the services, and here whether they are still true.

use std::{collections::BTreeMap, time::SystemTime};

use weft_core::control::RelayedState;
use weft_registries::hub::RelayedStates;

use crate::view::Registry;

/// Adds to each relayed registry's row what is wrong with it at the hub, and a row for each that the hub has not been
/// able to relay yet.
pub(super) fn told(mut rows: Vec<Registry>, states: &RelayedStates, now: SystemTime) -> Vec<Registry> {
    let since_told = now.duration_since(states.told_at).unwrap_or_default();
    for state in &states.registries {
        let lost = state.down_for.map(|down| (down + since_told).as_secs());
        let name = state.registry.as_str();
        let is_of = |row: &&mut Registry| row.scope.split('/').next() == Some(name);
        let mut found = false;
        for row in rows.iter_mut().filter(is_of) {
            found = true;
            row.faults.extend(faults(state));
            if let Some(seconds) = lost {
                row.error.get_or_insert_with(|| lost_text(seconds, &state.error));
                if row.state == "connected" {
                    row.state = "lost".into();
                }
            }
        }
        if !found {
            rows.push(Registry {
                scope: name.to_owned(),
                state: "waiting".into(),
                age_s: None,
                error: Some(match lost {
                    Some(seconds) => lost_text(seconds, &state.error),
                    None => "the hub does not relay it yet".into(),
                }),
                counts: BTreeMap::new(),
                faults: faults(state).collect(),
                unconfirmed: Vec::new(),
                unconfirmed_why: None,
            });
        }
    }
    rows
}

fn lost_text(seconds: u64, error: &str) -> String {
    format!("the hub has had no word from it for {seconds} s: {error}")
}

fn faults(state: &RelayedState) -> impl Iterator<Item = String> {
    state.faults.iter().map(|fault| format!("at the hub: {}: {}", fault.place, fault.message))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_core::{name::RegistryName, registry::OriginFault};

    use super::*;

    #[test]
    fn a_registry_that_the_hub_lost_is_shown_as_lost_with_its_reason() {
        let now = SystemTime::now();
        let row = |scope: &str| Registry {
            scope: scope.into(),
            state: "connected".into(),
            age_s: Some(1),
            error: None,
            counts: BTreeMap::new(),
            faults: Vec::new(),
            unconfirmed: Vec::new(),
            unconfirmed_why: None,
        };
        let fault = OriginFault { message: "no".into(), place: "a.toml:1:1".into(), keeps_last_good: true };
        let state = |name: &str, down: Option<u64>| RelayedState {
            registry: RegistryName::new(name).unwrap(),
            down_for: down.map(Duration::from_secs),
            error: "refused".into(),
            faults: vec![fault.clone()],
        };
        let states = RelayedStates {
            told_at: now - Duration::from_secs(2),
            registries: vec![state("a", Some(3)), state("b", None), state("c", None)],
        };
        let rows = told(vec![row("a/part"), row("ab"), row("b")], &states, now);
        assert_eq!(rows[0].state, "lost");
        assert_eq!(rows[0].error.as_deref(), Some("the hub has had no word from it for 5 s: refused"));
        assert_eq!(rows[0].faults, ["at the hub: a.toml:1:1: no"]);
        assert_eq!((rows[1].state.as_str(), rows[1].faults.len()), ("connected", 0), "another name");
        assert_eq!((rows[2].state.as_str(), rows[2].error.clone()), ("connected", None));
        assert_eq!((rows[3].scope.as_str(), rows[3].state.as_str()), ("c", "waiting"));
    }
}
