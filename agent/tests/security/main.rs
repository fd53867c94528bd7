//! Peers and processes that keep no rule, against the real binary: whoever must not get a byte gets none and gives none.
//!
//! Every test begins or ends with the same call made rightly, so that nothing passes because nothing works.
#![allow(clippy::unwrap_used)]

#[path = "../support/support.rs"]
mod support;
#[path = "../../../core/tests/support/credulous.rs"]
mod credulous;

mod ambiguity;
mod callers;
mod certificates;
mod garbage;
mod http2;
mod impostors;
mod paths;
mod processes;
mod records;
mod rogue;
mod slots;
mod witness;
