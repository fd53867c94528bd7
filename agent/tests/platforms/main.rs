//! The real binary against the real registries: calls that reach what a platform announces, and outages of the platform
//! that cost no call; and the demonstration that shows both.
//!
//! What is asked is the same for every platform ([`outage`]); a platform is how its catalog is written to and how its
//! server dies ([`platform::Platform`]). Where a server is not installed its tests say so and how to get it.
#![allow(clippy::unwrap_used)]

#[path = "../support/support.rs"]
mod support;

mod announced;
mod consul;
mod demonstration;
mod eureka;
mod examples;
mod examples_in_kubernetes;
mod kubernetes;
mod nomad;
mod outage;
mod platform;
mod reader;
