//! Registries that joins name and nobody has: while a hub relays registries under names of its own, that shows only once it
//! has said which.

use weft_core::{diagnostic::Diagnostic, flow::Status};
use weft_registries::hub::LinkState;

use crate::config::strangers;

/// What is wrong with the joins, as far as the hub has said what it relays.
pub(super) fn strange(status: &Status, link: &LinkState) -> Vec<Diagnostic> {
    let LinkState::Connected { registries, .. } = link else { return Vec::new() };
    let own = status.registries.iter().map(|registry| &registry.name);
    let known: Vec<_> = own.chain(registries.iter()).cloned().collect();
    let strangers = strangers(&status.joins, &known).into_iter();
    strangers.map(|message| Diagnostic::warning("[[join]]", message)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use weft_core::{
        compile::{Join, Prefer},
        name::RegistryName,
    };

    use super::*;

    #[test]
    fn a_registry_that_a_join_misspells_is_told_once_the_hub_has_said_what_it_relays() {
        let names =
            |names: &[&str]| names.iter().map(|it| RegistryName::new(it).unwrap()).collect::<Vec<_>>();
        let registries = names(&["consul", "kubernets"]);
        let join = Join { registries, services: Vec::new(), prefer: Prefer::Any };
        let status = Status { joins: vec![join], ..Status::default() };
        let relaying = |relayed: &[&str]| LinkState::Connected {
            hub: "hub".into(),
            since: SystemTime::UNIX_EPOCH,
            granted: [].into(),
            registries: names(relayed).into(),
        };
        let told = strange(&status, &relaying(&["consul", "kubernetes"]));
        let [told] = told.as_slice() else { panic!("{told:?}") };
        assert!(told.message.contains("`kubernets`") && told.message.contains("mean `kubernetes`"), "{told}");
        assert!(strange(&status, &relaying(&["consul", "kubernets"])).is_empty());
        assert!(strange(&status, &LinkState::Connecting).is_empty(), "it may relay it");
    }
}
