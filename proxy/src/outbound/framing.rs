//! The framing that an endpoint's agent asked for with `wrong framing`, remembered so that the next request need not ask.
//!
//! It hangs on the endpoint's state, which all workers share and a new table keeps. It is forgotten when the agent asks
//! for another in turn: whoever was told wrong once is told right by the same means.

use std::sync::atomic::Ordering::Relaxed;

use weft_core::{table::EndpointState, wire::Framing};

/// Takes note of what the agent asked for. What is spoken first anyway need not be kept.
pub(crate) fn learn(state: &EndpointState, asked: Framing) {
    let number = match asked {
        Framing::Http2 | Framing::Mux => 0,
        Framing::Http1 => 1,
        Framing::Tcp => 2,
    };
    state.framing.store(number, Relaxed);
}

/// What the agent asked for; none when that is what is spoken first.
pub(crate) fn learnt(state: &EndpointState) -> Option<Framing> {
    match state.framing.load(Relaxed) {
        1 => Some(Framing::Http1),
        2 => Some(Framing::Tcp),
        _ => None,
    }
}
