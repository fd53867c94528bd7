//! Consul's real server: what its catalog says, what it hides, and how it dies.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../conformance/follower.rs"]
#[allow(dead_code, reason = "shared with the suite, which asks for more")]
mod follower;

mod access;
mod announced;
mod bed;
mod catalog;
mod configuration;
mod datacenters;
mod hostile;
mod impatient;
mod outage;
mod peers;
mod restored;
mod scale;
