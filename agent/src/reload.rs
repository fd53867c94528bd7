//! What a new configuration may change in a running process, and what became of the attempts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
        identity,
        hub,
        access_log,
        metric_prefix,
        limits,
        // These a running process takes over.
        registries: _,
        drain_deadline: _,
        fault_header: _,
        inbound: _,
        joins: _,
        workloads: _,
    } = old;
    // A configuration without a workload may name no trust domain.
    let both_name_one = trust_domain.is_some() && new.trust_domain.is_some();
    let fixed = [
        ("trust_domain", !both_name_one || *trust_domain == new.trust_domain),
        ("state_dir", *state_dir == new.state_dir),
        ("run_dir", *run_dir == new.run_dir),
        ("workers", *workers == new.workers),
        ("[admin]", *admin == new.admin),
        ("[identity]", *identity == new.identity),
        ("[hub]", *hub == new.hub),
        ("[access_log]", *access_log == new.access_log),
        ("[limits]", *limits == new.limits),
        ("[metrics]", *metric_prefix == new.metric_prefix),
    ];
    fixed.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
}
