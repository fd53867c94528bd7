//! Weft's registries: each follows one catalog and tells it as the events of [`weft_core::registry`].
//!
//! A registry kind is a folder here and one line in [`KINDS`]: its word in `[[registry]] kind = "…"`, and how its section
//! is read. Reading yields a [`Plan`], which is built into a running registry when the agent knows its surroundings.

pub mod names;
pub mod shared;
pub mod address;
pub mod speaking;
pub mod told;
pub mod withheld;
pub mod credential;
pub mod http_client;
pub mod announcing;
pub mod check;
pub mod checked;
pub mod narrow;
pub mod plan;
pub mod probe;
pub mod static_files;
pub mod hub;
pub mod consul;
pub mod nomad;
pub mod dns;
pub mod eureka;
pub mod kubernetes;

pub use plan::{BuildError, Environment, Kind, KindError, Plan, Settings, add_kinds};

/// Every kind of registry.
pub const KINDS: &[Kind] = &[
    Kind { word: "static", read: static_files::read },
    Kind { word: "hub", read: plan::read_hub },
    Kind { word: "consul", read: consul::read },
    Kind { word: "nomad", read: nomad::read },
    Kind { word: "dns", read: dns::read },
    Kind { word: "eureka", read: eureka::read },
    Kind { word: "kubernetes", read: kubernetes::read },
];
