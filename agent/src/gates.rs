//! What must be there before an agent is ready, and before anybody gets in.
//!
//! The mesh port opens when every registry that carries policy has spoken, now or before a restart: an agent that does
//! not know who is denied lets nobody in. A registry that carries none keeps nobody waiting who can be served without it.

use std::collections::BTreeMap;

use weft_core::{
    flow::{RegistryStatus, Status},
    name::{RegistryName, WorkloadName},
    tls::Credentials,
};

use crate::{
    config::AgentConfig,
    readiness::{Guard, Readiness},
};

/// What is still missing.
#[derive(Debug)]
pub struct Gates {
    registries: BTreeMap<RegistryName, Guard>,
    certificates: BTreeMap<WorkloadName, Guard>,
    inbound: Option<Guard>,
    /// Why the inbound port could not be opened at the last attempt.
    fault: Option<String>,
}

impl Gates {
    /// Everything that the configuration needs is missing at first.
    #[must_use]
    pub fn new(config: &AgentConfig, readiness: &Readiness) -> Self {
        let registries = config.registries.iter().map(|plan| {
            let name = plan.name.value.clone();
            let guard = readiness.hold(format!("registry {name}"));
            (name, guard)
        });
        let certificates = config.workloads.iter().map(|configured| {
            let name = configured.workload.name.clone();
            let guard = readiness.hold(format!("certificate of {name}"));
            (name, guard)
        });
        Self {
            registries: registries.collect(),
            certificates: certificates.collect(),
            inbound: config.inbound.as_ref().map(|_| hold_inbound(readiness)),
            fault: None,
        }
    }

    /// Follows a new configuration: waits for what is new in it as long as the agent comes up, and no more for what is
    /// gone from it.
    pub fn follow(&mut self, config: &AgentConfig, before: &AgentConfig, readiness: &Readiness) {
        let follows = |config: &AgentConfig, name: &RegistryName| {
            config.registries.iter().any(|plan| plan.name.value == *name)
        };
        self.registries.retain(|name, _| follows(config, name));
        let new = config.registries.iter().map(|plan| &plan.name.value).filter(|name| !follows(before, name));
        for name in new.filter(|_| !readiness.is_ready()) {
            self.registries.insert(name.clone(), readiness.hold(format!("registry {name}")));
        }
    }

    /// A new configuration may ask for an inbound port where there was none: it stays closed like any other until policy is
    /// known.
    pub fn need_inbound_of(&mut self, config: &AgentConfig, readiness: &Readiness) {
        if config.inbound.is_some() && !self.registries.is_empty() && self.inbound.is_none() {
            self.inbound = Some(hold_inbound(readiness));
        }
    }

    /// Notes the registries that need not be waited for any more: those that have spoken, now or before a restart; and of
    /// those that carry no policy, all when something was restored from disk, and those that failed when another one has
    /// spoken.
    pub fn heard(&mut self, status: &Status) {
        let restored = status.registries.iter().any(|it| it.ready && it.restored_age.is_some());
        let served = status.registries.iter().any(|it| it.ready);
        let is_dispensable = |it: &RegistryStatus| {
            !it.carries_configuration && (restored || (served && it.last_error.is_some()))
        };
        for registry in status.registries.iter().filter(|it| it.ready || is_dispensable(it)) {
            self.registries.remove(&registry.name);
        }
    }

    /// Notes the certificates that are there.
    pub fn certified(&mut self, config: &AgentConfig, credentials: &Credentials) {
        self.certificates.retain(|name, _| {
            let mut configured = config.workloads.iter().map(|configured| &configured.workload);
            configured
                .any(|workload| workload.name == *name && credentials.identity(&workload.identity).is_none())
        });
    }

    /// Notes that the inbound port listens.
    pub fn opened(&mut self) {
        self.inbound = None;
    }

    /// Notes why the inbound port could not be opened. Returns whether that is news.
    pub fn note_fault(&mut self, error: &anyhow::Error) -> bool {
        let fault = Some(format!("{error:#}"));
        let news = self.fault != fault;
        self.fault = fault;
        news
    }

    /// Whether the inbound port is still to be opened.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inbound.is_some()
    }
}

fn hold_inbound(readiness: &Readiness) -> Guard {
    readiness.hold("the inbound port")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_core::config::SourceFile;

    use super::*;
    use crate::config::{Overrides, read_agent};

    fn status_of(name: &str) -> RegistryStatus {
        RegistryStatus {
            name: RegistryName::new(name).unwrap(),
            connected: false,
            carries_configuration: false,
            is_relay: false,
            ready: false,
            restored_age: None,
            last_error: None,
            down_since: None,
            state_error: None,
            counters: Default::default(),
            scopes: Vec::new(),
        }
    }

    /// What is missing when the registries are so, which are called a and b.
    fn missing(change: impl Fn(&mut RegistryStatus, &mut RegistryStatus)) -> Vec<String> {
        let registry =
            |name: &str| format!("[[registry]]\nkind = \"static\"\nname = \"{name}\"\npath = \"/tmp\"\n");
        let text = format!(
            "trust_domain = \"test.mesh\"\nstate_dir = \"/tmp\"\n[identity]\nkind = \"files\"\ndirectory = \"/tmp\"\n{}{}",
            registry("a"),
            registry("b")
        );
        let outcome = read_agent(&SourceFile::new("weft.toml", text.as_str()), &Overrides::default());
        let config = outcome.value.unwrap_or_else(|| panic!("{:?}", outcome.faults));
        let readiness = Readiness::default();
        let mut gates = Gates::new(&config, &readiness);
        let (mut a, mut b) = (status_of("a"), status_of("b"));
        change(&mut a, &mut b);
        gates.heard(&Status { registries: vec![a, b], ..Status::default() });
        let missing = readiness.missing().into_iter().filter(|it| it.starts_with("registry "));
        missing.map(|it| it.replace("registry ", "")).collect()
    }

    #[test]
    fn a_registry_without_policy_is_waited_for_only_where_nothing_is_known() {
        let away = Some("it is away".to_owned());
        assert_eq!(missing(|_, _| {}), ["a", "b"]);
        assert_eq!(missing(|a, b| (a.ready, b.ready) = (true, true)), [""; 0]);
        assert_eq!(missing(|_, b| b.ready = true), ["a"], "it may speak any moment");
        assert_eq!(missing(|a, _| a.last_error = away.clone()), ["a", "b"], "nobody has said anything");
        assert_eq!(missing(|a, b| (a.last_error, b.ready) = (away.clone(), true)), [""; 0]);
        let restored = |b: &mut RegistryStatus| (b.ready, b.restored_age) = (true, Some(Duration::ZERO));
        assert_eq!(missing(|_, b| restored(b)), [""; 0], "it is served from disk");
        let with_policy = |a: &mut RegistryStatus, b: &mut RegistryStatus| {
            (a.carries_configuration, a.last_error) = (true, away.clone());
            restored(b);
        };
        assert_eq!(missing(with_policy), ["a"], "policy is waited for");
    }
}
