//! What end-to-end tests share: a folder of their own, real processes of the real binary, ports from the OS, a raw HTTP
//! client that never retries, plain HTTP servers that know nothing of Weft, and certificates made on the spot.
//!
//! Use it with `#[path = "../support/support.rs"] mod support;`. Nothing sleeps: [`until`] waits on a state and names it
//! when the deadline passes. Processes end when they are dropped; when the test fails, its folder with all logs is kept.
#![allow(dead_code, unreachable_pub, missing_docs, unused_imports, clippy::unwrap_used)]

pub mod application;
pub mod authority;
pub mod client;
pub mod load;
pub mod mesh;
pub mod process;
pub mod sandbox;

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

pub use application::Application;
pub use authority::Authority;
pub use client::{Connection, Response};
pub use load::{Load, Streams};
pub use mesh::Mesh;
pub use process::Process;
pub use sandbox::Sandbox;

/// How long a state may take to come about on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `state` is there, and fails with `what` when it is not within [`PATIENCE`].
pub fn until<T>(what: &str, state: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, state)
}

/// Waits until `state` is there, at most for `patience`.
pub fn until_within<T>(patience: Duration, what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = state() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A loopback address that nobody listens on. The port lies below the range from which the kernel takes ports of
/// outgoing connections, so that it stays free until it is used.
pub fn address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = 10_000 + (std::process::id() * 131) % 20_000;
    loop {
        let port = 10_000 + (first - 10_000 + NEXT.fetch_add(1, Ordering::Relaxed) * 7) % 22_000;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The user that the test runs as, for a workload's `uid`.
pub fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}
