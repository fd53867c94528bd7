//! Discovery: the registry contract's events, in a compact form.

use bytes::Bytes;
use prost::{Message, Oneof};

use super::configuration::{Policy, Route};

/// Events of one scope, in order.
#[derive(Clone, PartialEq, Message)]
pub struct Discovery {
    /// The subscription that is answered.
    #[prost(uint64, tag = "1")]
    pub subscription: u64,
    /// The scope's registry.
    #[prost(string, tag = "2")]
    pub registry: String,
    /// The scope's part.
    #[prost(string, tag = "3")]
    pub part: String,
    /// Encoded [`Event`]s. They are bytes within bytes, so that the hub encodes an event once for all its agents.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub events: Vec<Bytes>,
}

/// One event.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// What it says.
    #[prost(oneof = "EventWord", tags = "1, 2, 3, 4")]
    pub word: Option<EventWord>,
}

/// The words of the registry contract.
#[derive(Clone, PartialEq, Oneof)]
pub enum EventWord {
    /// Supersedes all that an origin said before.
    #[prost(message, boxed, tag = "1")]
    Replace(Box<Replace>),
    /// A full list begins.
    #[prost(message, tag = "2")]
    Reset(Reset),
    /// The full list is over.
    #[prost(message, tag = "3")]
    Ready(Ready),
    /// All since the last commit becomes visible.
    #[prost(message, tag = "4")]
    Commit(Commit),
}

/// What an origin says now. Numbers that name a string count from 1 in `strings`; 0 is "none".
#[derive(Clone, PartialEq, Message)]
pub struct Replace {
    /// Who speaks.
    #[prost(string, tag = "1")]
    pub origin: String,
    /// The version; only equality means anything.
    #[prost(bytes = "bytes", tag = "2")]
    pub version: Bytes,
    /// Strings that the resources refer to.
    #[prost(string, repeated, tag = "3")]
    pub strings: Vec<String>,
    /// Label sets that the endpoints refer to, counted from 1.
    #[prost(message, repeated, tag = "4")]
    pub label_sets: Vec<LabelSet>,
    /// Services.
    #[prost(message, repeated, tag = "5")]
    pub services: Vec<Service>,
    /// Endpoints.
    #[prost(message, repeated, tag = "6")]
    pub endpoints: Vec<Endpoint>,
    /// Routes.
    #[prost(message, repeated, tag = "7")]
    pub routes: Vec<Route>,
    /// Policies.
    #[prost(message, repeated, tag = "8")]
    pub policies: Vec<Policy>,
    /// What could not be taken over.
    #[prost(message, repeated, tag = "9")]
    pub faults: Vec<Fault>,
}

/// A full list begins.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Reset {}

/// The full list is over.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Ready {
    /// Whether something may be hidden from the list.
    #[prost(bool, tag = "1")]
    pub filtered: bool,
}

/// All since the last commit becomes visible.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Commit {
    /// Where to go on after a disconnect.
    #[prost(uint64, tag = "1")]
    pub position: u64,
    /// How many milliseconds ago the hub's registry last said that this is so.
    #[prost(uint64, tag = "2")]
    pub age_ms: u64,
}

/// Labels as pairs of strings: key, value, key, value.
#[derive(Clone, PartialEq, Message)]
pub struct LabelSet {
    /// Numbers of strings, an even count, sorted by key.
    #[prost(uint32, repeated, tag = "1")]
    pub pairs: Vec<u32>,
}

/// A service.
#[derive(Clone, PartialEq, Message)]
pub struct Service {
    /// Its name, a string's number.
    #[prost(uint32, tag = "1")]
    pub name: u32,
    /// Its ports.
    #[prost(message, repeated, tag = "2")]
    pub ports: Vec<ServicePort>,
    /// Further host names.
    #[prost(string, repeated, tag = "3")]
    pub hosts: Vec<String>,
    /// Whether callers prefer the nearest endpoints.
    #[prost(bool, tag = "4")]
    pub nearest: bool,
    /// Whether it is known by more than its instances. Tag 5 had the opposite meaning.
    #[prost(bool, tag = "6")]
    pub declared: bool,
}

/// A port of a service.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ServicePort {
    /// Its name, a string's number.
    #[prost(uint32, tag = "1")]
    pub name: u32,
    /// The number callers use.
    #[prost(uint32, tag = "2")]
    pub number: u32,
    /// 0 HTTP/1.1, 1 HTTP/2, 2 gRPC, 3 opaque bytes.
    #[prost(uint32, tag = "3")]
    pub protocol: u32,
}

/// One port of one instance of a service.
#[derive(Clone, PartialEq, Message)]
pub struct Endpoint {
    /// The service, a string's number.
    #[prost(uint32, tag = "1")]
    pub service: u32,
    /// The port's name, a string's number.
    #[prost(uint32, tag = "2")]
    pub port_name: u32,
    /// The instance.
    #[prost(string, tag = "3")]
    pub instance: String,
    /// The application's address: 4 or 16 bytes of IP, then 2 of port, in network order.
    #[prost(bytes = "bytes", tag = "4")]
    pub address: Bytes,
    /// The mesh address, in the same form; empty for none.
    #[prost(bytes = "bytes", tag = "5")]
    pub mesh_address: Bytes,
    /// The expected identity, a string's number; 0 for none.
    #[prost(uint32, tag = "6")]
    pub identity: u32,
    /// The label set's number; 0 for none.
    #[prost(uint32, tag = "7")]
    pub labels: u32,
    /// The weight; absent means 1.
    #[prost(uint32, optional, tag = "8")]
    pub weight: Option<u32>,
    /// The locality, a string's number; 0 for unknown.
    #[prost(uint32, tag = "9")]
    pub locality: u32,
    /// 0 healthy, 1 draining, 2 unhealthy, 3 unconfirmed.
    #[prost(uint32, tag = "10")]
    pub health: u32,
    /// 0 required, 1 off.
    #[prost(uint32, tag = "11")]
    pub tls: u32,
    /// Who named the identity: 0 declared, 1 platform, 2 metadata, 3 service rule, 4 registry rule, 5 nobody. An unknown
    /// number is read as 0: it only explains.
    #[prost(uint32, tag = "12")]
    pub identity_from: u32,
    /// Who named the mesh port, likewise.
    #[prost(uint32, tag = "13")]
    pub mesh_address_from: u32,
    /// Who said whether plaintext is allowed, likewise.
    #[prost(uint32, tag = "14")]
    pub tls_from: u32,
}

/// Something in an origin that could not be taken over.
#[derive(Clone, PartialEq, Message)]
pub struct Fault {
    /// What is wrong and what was expected.
    #[prost(string, tag = "1")]
    pub message: String,
    /// Where.
    #[prost(string, tag = "2")]
    pub place: String,
    /// Whether the origin's last good resources stay in force.
    #[prost(bool, tag = "3")]
    pub keeps_last_good: bool,
}
