//! What both sides tell of themselves, for operators and for root rotation.

use bytes::Bytes;
use prost::Message;

use super::Fault;

/// What a node holds. Told after it is in force and on the node's disk.
#[derive(Clone, PartialEq, Message)]
pub struct Report {
    /// The SHA-256 of each root of the mesh's own trust domain that it trusts.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub roots: Vec<Bytes>,
    /// The node's own certificate and those of its workloads.
    #[prost(message, repeated, tag = "2")]
    pub certificates: Vec<HeldCertificate>,
}

/// A certificate in force at a node.
#[derive(Clone, PartialEq, Message)]
pub struct HeldCertificate {
    /// The SPIFFE URI that it names.
    #[prost(string, tag = "1")]
    pub identity: String,
    /// Its serial number in hexadecimal, lower case.
    #[prost(string, tag = "2")]
    pub serial: String,
    /// Until when it is valid, in seconds since 1970.
    #[prost(uint64, tag = "3")]
    pub not_after: u64,
    /// The SHA-256 of the first root of the bundle that it leads to; empty when it leads to none.
    #[prost(bytes = "bytes", tag = "4")]
    pub root: Bytes,
}

/// How the registries are that a hub follows.
#[derive(Clone, PartialEq, Message)]
pub struct RegistryStates {
    /// One per registry.
    #[prost(message, repeated, tag = "1")]
    pub registries: Vec<RegistryState>,
}

/// How one registry is, seen from the hub.
#[derive(Clone, PartialEq, Message)]
pub struct RegistryState {
    /// Its name.
    #[prost(string, tag = "1")]
    pub registry: String,
    /// Since how many milliseconds the hub has no word from it; absent while it has.
    #[prost(uint64, optional, tag = "2")]
    pub down_for_ms: Option<u64>,
    /// Why, for people.
    #[prost(string, tag = "3")]
    pub error: String,
    /// What the hub could not take over, at most 64.
    #[prost(message, repeated, tag = "4")]
    pub faults: Vec<Fault>,
}
