//! The hub's protocol: one gRPC stream per agent, over TLS 1.3, with certificates, trust and discovery.
//!
//! [`message`] holds the messages as they are on the wire (normative text: `docs/control-stream.md`), [`discovery`] and
//! [`configuration`] turn resources into messages and back. All is pure: sockets are the hub's and the agent's.
//!
//! What one endpoint's change costs on the wire decides the form: a [`message::Replace`] carries its strings once in a
//! table, and the rest refers to them by number. Whatever arrives is checked name by name; a message that breaks a rule
//! is a [`ControlError`], never a panic, and never a resource left out in silence: a DENY policy that vanishes because
//! it was not understood would open what it closed.

pub mod configuration;
pub mod discovery;
pub mod announcement;
mod error;
pub mod message;
mod report;
mod resume;

use std::time::Duration;

pub use error::ControlError;
pub use report::{HeldCertificate, MOST_FAULTS, NodeReport, RelayedState};
pub use resume::ResumePoint;

/// The path of the streaming call.
pub const CONNECT_PATH: &str = "/weft.control.v1.Hub/Connect";
/// The path of the unary call by which a host joins with a token.
pub const JOIN_PATH: &str = "/weft.control.v1.Hub/Join";
/// The versions of the words that this build speaks, lowest and highest. The highest that both sides know is used.
pub const VERSIONS: (u32, u32) = (1, 2);
/// The version from which on nodes announce their local services.
pub const ANNOUNCING: u32 = 2;
/// The port of the hub, unless configured otherwise.
pub const DEFAULT_PORT: u16 = 15012;
/// The largest message either side accepts, in bytes.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// The size at which the hub closes a batch of discovery events, in bytes. One event may be larger, up to
/// [`MAX_MESSAGE`].
pub const BATCH: usize = 32 * 1024;
/// How many batches of discovery may be unacknowledged; the hub then waits. What changes meanwhile coalesces.
pub const WINDOW: u64 = 16;
/// How many scopes a resume point may name at most.
pub const MOST_SCOPES: usize = 1024;
/// How many registries, namespaces and services a subscription may name at most, together.
pub const MOST_NAMES: usize = 10_000;
/// How often the hub repeats a `Commit` of a scope that is still true.
pub const COMMIT_INTERVAL: Duration = Duration::from_secs(10);
/// How far before its issue a certificate's validity begins, for hosts whose clock is late.
pub const BACKDATE: Duration = Duration::from_secs(65 * 60);
/// The account of a node's identity.
#[must_use]
pub fn node_account(node: &str) -> String {
    format!("node-{node}")
}

/// The highest version both ranges hold; none when they do not meet.
#[must_use]
pub fn common_version(ours: (u32, u32), theirs: (u32, u32)) -> Option<u32> {
    let highest = ours.1.min(theirs.1);
    (highest >= ours.0 && highest >= theirs.0).then_some(highest)
}
