//! The wire format: golden bytes as `docs/wire.md` shows them, old against new, and no input that hurts.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod golden;
mod versions;
mod properties;
mod streams;
