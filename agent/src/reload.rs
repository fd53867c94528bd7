//! What a new configuration may change in a running process, and what became of the attempts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weft_core::{config::Fault, name::RegistryName};

use crate::{admin::pages, config::AgentConfig, view};

/// The word on the configuration, for `weft status` and metrics. Clones are one.
#[derive(Clone, Debug)]
pub struct Record(Arc<Mutex<view::Config>>);

impl Record {
    /// A configuration was read from `path` just now, and is in force.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let first = view::Config { path: path.into(), loaded_at_s: now(), ..view::Config::default() };
        Self(Arc::new(Mutex::new(first)))
    }

    /// A new one is in force.
    pub fn taken_over(&self) {
        let mut record = self.lock();
        record.reloads += 1;
        record.loaded_at_s = now();
        record.fault = None;
    }

    /// A new one was refused; the former stays in force.
    pub fn refused(&self, fault: String) {
        let mut record = self.lock();
        record.refused += 1;
        record.fault = Some(fault);
    }

    /// As it is now.
    #[must_use]
    pub fn view(&self) -> view::Config {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, view::Config> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> u64 {
    pages::seconds(std::time::SystemTime::now())
}

/// The keys that differ and that a running process cannot change; empty when `new` can be taken over.
#[must_use]
pub fn fixed_keys_changed(old: &AgentConfig, new: &AgentConfig) -> Vec<&'static str> {
    // Every field by its name: one that is added must be put on one side or the other.
    let AgentConfig {
        trust_domain,
        state_dir,
        run_dir,
        workers,
        admin,
        eureka_api,
        identity,
        hubs,
        access_log,
        metric_prefix,
        limits,
        // These a running process takes over.
        registries: _,
        locality: _,
        drain_deadline: _,
        fault_header: _,
        inbound: _,
        joins: _,
        workloads: _,
        announce: _,
        announcements: _,
    } = old;
    // A configuration without a workload may name no trust domain.
    let both_name_one = trust_domain.is_some() && new.trust_domain.is_some();
    let fixed = [
        ("trust_domain", !both_name_one || *trust_domain == new.trust_domain),
        ("state_dir", *state_dir == new.state_dir),
        ("run_dir", *run_dir == new.run_dir),
        ("workers", *workers == new.workers),
        ("[admin]", *admin == new.admin),
        ("[eureka_api]", *eureka_api == new.eureka_api),
        ("[identity]", *identity == new.identity),
        ("[hub]", *hubs == new.hubs),
        ("[access_log]", *access_log == new.access_log),
        ("[limits]", *limits == new.limits),
        ("[metrics]", *metric_prefix == new.metric_prefix),
    ];
    fixed.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
}
/// A registry that is new and has the name of one that the hub relays. To follow it would drop all that the hub says of
/// that name, routes and policies too, before the new one has said anything.
#[must_use]
pub fn name_that_is_relayed(
    old: &AgentConfig,
    new: &AgentConfig,
    relayed: impl Fn(&RegistryName) -> bool,
) -> Option<Fault> {
    let follows = |name: &RegistryName| old.registries.iter().any(|plan| plan.name.value == *name);
    let mut fresh = new.registries.iter().map(|plan| &plan.name).filter(|name| !follows(&name.value));
    let name = fresh.find(|name| relayed(&name.value))?;
    let message = format!("the hub relays a registry that is called `{}` too", name.value);
    Some(Fault::error(name.place.clone(), message).help("give this one another `name`"))
}

#[cfg(test)]
mod tests {
    use weft_core::config::SourceFile;

    use super::*;
    use crate::config::{Overrides, read_agent};

    fn config(registries: &str) -> AgentConfig {
        let text = format!(
            "trust_domain = \"test.mesh\"\nstate_dir = \"/tmp\"\n[hub]\naddress = \"127.0.0.1:15012\"\n{registries}"
        );
        let outcome = read_agent(&SourceFile::new("weft.toml", text.as_str()), &Overrides::default());
        outcome.value.unwrap_or_else(|| panic!("{:?}", outcome.faults))
    }

    #[test]
    fn a_reload_takes_no_name_from_the_hub() {
        let hub = "[[registry]]\nkind = \"hub\"\n";
        let local = "[[registry]]\nkind = \"static\"\nname = \"files\"\npath = \"/tmp\"\n";
        let (without, with) = (config(hub), config(&format!("{hub}{local}")));
        let relays = |name: &RegistryName| name.as_str() == "files";
        let fault = name_that_is_relayed(&without, &with, relays).unwrap().to_string();
        assert!(fault.contains("weft.toml:9:") && fault.contains("`files`"), "{fault}");
        assert!(name_that_is_relayed(&with, &with, relays).is_none(), "it is followed already");
        assert!(name_that_is_relayed(&without, &with, |_| false).is_none());
    }
}
