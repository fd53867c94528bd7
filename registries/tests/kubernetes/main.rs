//! The Kubernetes registry against a real API server with its controllers and etcd.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod configured;
#[allow(dead_code, reason = "the suite asks for more of it")]
#[path = "../conformance/follower.rs"]
mod follower;
mod joins;
mod outages;
mod proxied;
mod rights;
mod scale;
