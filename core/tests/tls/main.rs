//! Real handshakes over in-memory streams: who is let in, who is not, and that nobody else gets or gives a byte.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

#[path = "../support/credulous.rs"]
mod credulous;
mod authority;
mod meeting;
mod rogue;
mod refusals;
mod resumption;
mod trust;
mod hub;
