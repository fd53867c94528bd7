//! Nomad's catalog, followed on a real server whose jobs really run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod follower;
mod following;
mod front;
mod health;
mod hostile;
mod outage;
mod support;
mod variables;
