//! The stores that hubs share, each the real one: one contract for all of them, and what their outages may not cost.
//!
//! Where a server is not installed its tests say so and how to get it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod announced;
mod consul;
mod contract;
mod embedded;
mod etcd;
mod kubernetes;
mod outage;
mod support;
