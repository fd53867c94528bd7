//! Weft's data path.
//!
//! ```text
//!   local process -> listen -> source -> outbound: route -> pick -> attempt -> pool --(mutual TLS)--> another agent
//!   another agent -> listen -> inbound: TLS -> hello -> normalise -> decide -> pool ----------------> application
//! ```
//!
//! The modules below are in dependency order: each uses only those before it, and a test holds that.

pub mod clock;
pub mod fault;
pub mod headers;
pub mod frames;
pub mod message;
pub mod normalise;
pub mod source;
pub mod balance;
pub mod resilience;
pub mod record;
pub mod tcp;
mod config;
mod connections;
mod executor;
mod signal;
mod stream;
mod socket;
mod connect;
mod slots;
mod quiet;
mod standing;
mod names;
mod shown;
mod http;
mod dial;
mod command;
mod pool;
mod worker;
mod inbound;
mod outbound;
mod listen;
mod run;
mod inspector;
mod proxy;

pub use config::{
    AccessLogTarget, AllowedLocal, InboundConfig, Limits, ListenAddress, OutboundKind, OutboundListener,
    ProxyConfig, WorkloadListeners,
};
pub use connections::ConnectionInfo;
pub use inspector::Inspector;
pub use proxy::{Addresses, Proxy, StartError};
pub use record::{TapReceiver, Tapped};
