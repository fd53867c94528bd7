//! The wire formats: golden bytes of what agents and hubs say, as `docs/wire.md` and `docs/control-stream.md` have it; old
//! against new, and no input that hurts.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod golden;
mod control;
mod versions;
mod properties;
mod streams;
