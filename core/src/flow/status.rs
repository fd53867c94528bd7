//! How the registries are, for `weft status`, readiness and metrics.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::{
    compile::Join,
    diagnostic::Diagnostic,
    driver::Counters,
    name::{OriginName, RegistryName},
    registry::{Completeness, OriginFault, Scope},
};

/// Everything an operator may want to know about registries and configuration, at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// One per followed registry, in the order of the configuration.
    pub registries: Vec<RegistryStatus>,
    /// All registries that were spoken of, most authoritative first: what a relay passes on ranks in its place.
    pub precedence: Vec<RegistryName>,
    /// Which services of different registries are one.
    pub joins: Vec<Join>,
    /// What is refused, contradicts itself or was decided in a way that may surprise.
    pub diagnostics: Vec<Diagnostic>,
    /// The generation of the snapshot.
    pub snapshot_generation: u64,
    /// The generation of the table.
    pub table_generation: u64,
}

/// One followed registry.
#[derive(Clone, Debug, Serialize)]
pub struct RegistryStatus {
    /// Its configured name.
    pub name: RegistryName,
    /// Whether its stream is up and has said something.
    pub connected: bool,
    /// Whether routes and policies come from it: inbound stays closed until it is ready.
    pub carries_configuration: bool,
    /// Whether it speaks for others.
    pub is_relay: bool,
    /// Whether a full list was committed, or one was restored from disk.
    pub ready: bool,
    /// How old the state was with which this process began; none when there was none.
    pub restored_age: Option<Duration>,
    /// Why the stream ended last, until it is up again; of one that comes and goes, until it stays.
    pub last_error: Option<String>,
    /// Since when the stream is down; none while it is up.
    pub down_since: Option<SystemTime>,
    /// Why its state could not be read from, or written to, the disk.
    pub state_error: Option<String>,
    /// What happened on its stream.
    pub counters: Counters,
    /// Its scopes.
    pub scopes: Vec<ScopeStatus>,
}

/// One scope of a registry.
#[derive(Clone, Debug, Serialize)]
pub struct ScopeStatus {
    /// Which one.
    pub scope: Scope,
    /// When the registry last said that this is so.
    pub committed_at: Option<SystemTime>,
    /// What the last full list was; none before the first one.
    pub completeness: Option<Completeness>,
    /// Whether only its endpoints that speak mutual TLS are used, because it was restored from an old file.
    pub stale: bool,
    /// How many origins it holds.
    pub origins: usize,
    /// What could not be taken over, by origin.
    pub faults: Vec<(OriginName, Vec<OriginFault>)>,
    /// Origins that are missing from lists that may have hidden them, and since when.
    pub unconfirmed: Vec<(OriginName, SystemTime)>,
}

impl Status {
    /// The registries that must be ready before inbound may open, and are not.
    pub fn missing(&self) -> impl Iterator<Item = &RegistryName> {
        let awaited = self.registries.iter().filter(|registry| registry.carries_configuration);
        awaited.filter(|registry| !registry.ready).map(|registry| &registry.name)
    }

    /// Whether inbound may open: every registry that carries configuration has spoken, now or before a restart.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().next().is_none()
    }
}

impl ScopeStatus {
    /// How long ago the registry last said that this is so.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        self.committed_at.map(|at| now.duration_since(at).unwrap_or_default())
    }
}
