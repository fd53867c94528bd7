//! The agent's side of the hub: one stream for certificates, trust and discovery.
//!
//! [`link::HubLink`] owns the stream, reconnects, and hands out what comes over it; [`relay::HubRegistry`] is the
//! registry whose events it carries; [`join`] is the one call that is made before there is a certificate.

mod transport;
pub mod join;
mod sight;
pub mod link;
mod session;
mod announce;
pub mod relay;

pub use join::{JoinError, join};
pub use link::{CertificateFault, HubLink, LinkConfig, LinkState, RelayedStates};
pub use relay::HubRegistry;
pub use transport::answers;
