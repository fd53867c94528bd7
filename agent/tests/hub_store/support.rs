//! What the tests of every store need.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weft_agent::{
    config::{Overrides, StoreConfig, read_hub},
    hub::store::{Store, shared},
};
use weft_core::{
    config::{SourceFile, Style, render_all},
    identity::TrustDomain,
};

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Two clients of one store, as two hubs have it.
pub(crate) struct Bed {
    pub(crate) stores: [Arc<dyn Store>; 2],
    /// A lease that a process which stands still for a while can keep alive, and how long it may last at most.
    pub(crate) lease: (Duration, Duration),
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < end, "{what} did not come in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client of the store that a hub's file names.
pub(crate) fn client(section: &str) -> Arc<dyn Store> {
    let source = SourceFile::new("hub.toml", format!("[store]\n{section}"));
    let outcome = read_hub(&source, &Overrides::default());
    let config = outcome.value.unwrap_or_else(|| panic!("{}", render_all(&outcome.faults, Style::Plain)));
    let StoreConfig::Shared { prefix, server } = config.store else { panic!("it is shared") };
    shared(&prefix, &server, &TrustDomain::new("demo.mesh").unwrap()).unwrap()
}

/// Runs what blocks while everything else goes on.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
