//! The `weft` binary's own matters: it wires registries, flow, identity and proxy together and lets the operator look in.
//!
//! ```text
//!   cli ──> run ──> compose ──> { hub, identity, registries -> core::flow, proxy } ;  admin looks at all of them
//! ```
//!
//! The modules below are in dependency order: each uses only those before it, and a test holds that.

pub mod config;
pub mod telemetry;
pub mod readiness;
pub mod lifecycle;
pub mod open_files;
pub mod watched;
pub mod file_identity;
pub mod view;
pub mod admin;
pub mod eureka_api;
pub mod files;
pub mod hub;
pub mod identity;
pub mod announcer;
pub mod reload;
pub mod gates;
pub mod compose;
pub mod inspect;
pub mod run;
pub mod demo;
pub mod cli;

/// For a binary with a registry of its own: see [`cli::main_with`].
pub use weft_registries as registries;
