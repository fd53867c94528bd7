//! Names, followed at a real server of the domain name system.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../nomad/follower.rs"]
mod follower;
mod support;
mod names;
mod outages;
mod resolvers;
