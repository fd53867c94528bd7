//! What the tests of every store need.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weft_agent::hub::store::Store;

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Two clients of one store, as two hubs have it.
pub(crate) struct Bed {
    pub(crate) stores: [Arc<dyn Store>; 2],
    /// The shortest lease, and how long it may last at most.
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
