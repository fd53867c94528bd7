//! The hub: certificate authority, one-time tokens, and the relay of discovery.
//!
//! ```text
//!   token ──> records (compare and swap) ──> authority (signs) ┐
//!   nodes' announcements ──┐
//!   registries ──> core::flow ──> Snapshot ──> relay ──────────┴──> stream ──> agents
//! ```
//!
//! What hubs must not forget are [`records`] in a [`store`], of one hub or shared by several; what is a hub's own is in its
//! [`journal`]; keys and certificates are plain files beside it ([`authority`]).

pub mod token;
pub mod file;
pub mod store;
pub mod journal;
pub mod records;
pub mod authority;
pub mod operator;
pub mod office;
pub mod announced;
pub mod relay;
mod roster;
mod departed;
mod states;
mod stream;
mod outgoing;
mod keeper;
mod service;
mod strangers;
mod listener;
mod page;
mod serve;

pub use keeper::KeeperError;
pub use listener::MAX_CONNECTIONS;
pub use serve::{Hub, HubError};
