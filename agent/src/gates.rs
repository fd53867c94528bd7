//! What must be there before an agent is ready, and before anybody gets in.
//!
//! The mesh port opens when every registry that carries policy has spoken, now or before a restart: an agent that does
//! not know who is denied lets nobody in.

use std::collections::BTreeMap;

use weft_core::{
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

    /// Notes a registry that has spoken, now or before a restart.
    pub fn has_spoken(&mut self, registry: &RegistryName) {
        self.registries.remove(registry);
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
