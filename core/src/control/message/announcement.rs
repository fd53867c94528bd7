//! Announcing local services at the hub (version 2 of the words).

use bytes::Bytes;
use prost::Message;

/// Announces a port of a local service, or tells anew what it is.
#[derive(Clone, PartialEq, Message)]
pub struct Announce {
    /// Chosen by the agent, not 0; the answer carries it.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// An encoded [`super::Event`], see [`crate::control::announcement`].
    #[prost(bytes = "bytes", tag = "2")]
    pub event: Bytes,
}

/// Withdraws what was announced.
#[derive(Clone, PartialEq, Message)]
pub struct Withdraw {
    /// Chosen by the agent, not 0; the answer carries it.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// The origin that the announcement named.
    #[prost(string, tag = "2")]
    pub origin: String,
}

/// What was announced or withdrawn is so, and survives a crash.
#[derive(Clone, PartialEq, Message)]
pub struct Announced {
    /// The number of the request.
    #[prost(uint64, tag = "1")]
    pub request: u64,
}
