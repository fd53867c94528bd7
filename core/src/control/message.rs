//! The messages, field by field as they are on the wire (package `weft.control.v1`).
//!
//! Unknown fields are skipped, unknown words and enumeration values are refused. Field numbers are never reused. The
//! normative description, with the rules between the fields, is `docs/control-stream.md`.

mod announcement;
mod configuration;
mod discovery;
mod report;

use bytes::Bytes;
use prost::{Enumeration, Message, Oneof};

pub use announcement::{Announce, Announced, Withdraw};
pub use configuration::{
    Backend, Duration, HeaderMatch, Label, Operation, Policy, PolicyRule, PolicyTarget, PrincipalMatch,
    Route, RouteMatch, RouteRule, TextMatch, TextMatchKind,
};
pub use discovery::{
    Commit, Discovery, Endpoint, Event, EventWord, Fault, LabelSet, Ready, Replace, Reset, Service,
    ServicePort,
};
pub use report::{HeldCertificate, RegistryState, RegistryStates, Report};

/// One message of an agent.
#[derive(Clone, PartialEq, Message)]
pub struct ClientMessage {
    /// What it says.
    #[prost(oneof = "ClientWord", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub word: Option<ClientWord>,
}

/// The words of an agent.
#[derive(Clone, PartialEq, Oneof)]
pub enum ClientWord {
    /// The first word of the stream.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// Asks for discovery; a second one replaces the first.
    #[prost(message, tag = "2")]
    Subscribe(Subscribe),
    /// Asks for a certificate.
    #[prost(message, tag = "3")]
    CertificateRequest(CertificateRequest),
    /// Says that a message was taken over.
    #[prost(message, tag = "4")]
    Acknowledge(Acknowledge),
    /// Says what the node holds: after the welcome and on every change.
    #[prost(message, tag = "5")]
    Report(Report),
    /// Announces a local service. From version 2 on.
    #[prost(message, tag = "6")]
    Announce(Announce),
    /// Withdraws it. From version 2 on.
    #[prost(message, tag = "7")]
    Withdraw(Withdraw),
}

/// Who opens the stream. The certificate authorizes; the name must be the certificate's.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// The node's name.
    #[prost(string, tag = "1")]
    pub node: String,
    /// The lowest version of the words it speaks.
    #[prost(uint32, tag = "2")]
    pub lowest_version: u32,
    /// The highest.
    #[prost(uint32, tag = "3")]
    pub highest_version: u32,
    /// The agent's software, for people.
    #[prost(string, tag = "4")]
    pub software: String,
}

/// Asks for discovery events.
#[derive(Clone, PartialEq, Message)]
pub struct Subscribe {
    /// Chosen by the agent; every batch that answers carries it, so that late ones of an earlier subscription are known.
    #[prost(uint64, tag = "1")]
    pub subscription: u64,
    /// The registries wanted; empty means all that the hub follows.
    #[prost(string, repeated, tag = "2")]
    pub registries: Vec<String>,
    /// How far the agent has come; absent for a full list.
    #[prost(message, optional, tag = "3")]
    pub resume: Option<ResumePoint>,
    /// The namespaces whose services are wanted. With this and `services` empty, all are. Routes and policies are told
    /// whatever services they are about.
    #[prost(string, repeated, tag = "4")]
    pub namespaces: Vec<String>,
    /// Services wanted beside those.
    #[prost(string, repeated, tag = "5")]
    pub services: Vec<String>,
}

/// How far an agent has come, see [`super::ResumePoint`].
#[derive(Clone, PartialEq, Message)]
pub struct ResumePoint {
    /// Which hub store the positions belong to.
    #[prost(bytes = "bytes", tag = "1")]
    pub epoch: Bytes,
    /// One entry per scope.
    #[prost(message, repeated, tag = "2")]
    pub positions: Vec<ScopePosition>,
    /// The agent's own mark of the part that it asked for; the hub does not read it.
    #[prost(fixed64, tag = "3")]
    pub part: u64,
    /// The life of the hub that told the last of them; none of a hub that says none.
    #[prost(bytes = "bytes", tag = "4")]
    pub life: Bytes,
}

/// How far an agent has come in one scope.
#[derive(Clone, PartialEq, Message)]
pub struct ScopePosition {
    /// The scope's registry.
    #[prost(string, tag = "1")]
    pub registry: String,
    /// The scope's part.
    #[prost(string, tag = "2")]
    pub part: String,
    /// The position of the last commit taken over.
    #[prost(uint64, tag = "3")]
    pub position: u64,
}

/// Asks for a certificate of one identity, for a key that the request proves.
#[derive(Clone, PartialEq, Message)]
pub struct CertificateRequest {
    /// Chosen by the agent, not 0; the answer carries it.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// The SPIFFE URI wanted.
    #[prost(string, tag = "2")]
    pub identity: String,
    /// A PKCS #10 request (DER). Only its key and the proof of it count.
    #[prost(bytes = "bytes", tag = "3")]
    pub signing_request: Bytes,
}

/// Says that every message up to a number was taken over.
#[derive(Clone, PartialEq, Message)]
pub struct Acknowledge {
    /// The highest sequence number taken over.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
}

/// One message of a hub.
#[derive(Clone, PartialEq, Message)]
pub struct ServerMessage {
    /// Counts from 1 on each stream, without gaps.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// What it says.
    #[prost(oneof = "ServerWord", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub word: Option<ServerWord>,
}

/// The words of a hub.
#[derive(Clone, PartialEq, Oneof)]
pub enum ServerWord {
    /// The answer to the hello.
    #[prost(message, tag = "2")]
    Welcome(Welcome),
    /// The trust bundles in force: all of them, after the welcome and on every change.
    #[prost(message, tag = "3")]
    Bundles(Bundles),
    /// Discovery events of one scope.
    #[prost(message, tag = "4")]
    Discovery(Discovery),
    /// A certificate asked for.
    #[prost(message, tag = "5")]
    Certificate(Certificate),
    /// A refusal.
    #[prost(message, tag = "6")]
    Refusal(Refusal),
    /// How the registries are that the hub follows: all of them, after the welcome and on every change.
    #[prost(message, tag = "7")]
    RegistryStates(RegistryStates),
    /// What was announced or withdrawn is so. From version 2 on.
    #[prost(message, tag = "8")]
    Announced(Announced),
}

/// The hub accepts the stream.
#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    /// The version of the words in use from here on.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The hub store's epoch: positions of another epoch mean nothing here.
    #[prost(bytes = "bytes", tag = "2")]
    pub epoch: Bytes,
    /// The SPIFFE URIs that this node may ask certificates for, beside its own.
    #[prost(string, repeated, tag = "3")]
    pub granted: Vec<String>,
    /// The registries that the hub relays, most authoritative first.
    #[prost(string, repeated, tag = "4")]
    pub registries: Vec<String>,
    /// This start of the hub; what it tells from here on is of this life of its store.
    #[prost(bytes = "bytes", tag = "5")]
    pub life: Bytes,
}

/// All trust bundles in force.
#[derive(Clone, PartialEq, Message)]
pub struct Bundles {
    /// One per trust domain.
    #[prost(message, repeated, tag = "1")]
    pub bundles: Vec<Bundle>,
}

/// The roots of one trust domain.
#[derive(Clone, PartialEq, Message)]
pub struct Bundle {
    /// The trust domain.
    #[prost(string, tag = "1")]
    pub trust_domain: String,
    /// Certificates (DER), at least one. All of them are trusted. In the mesh's own bundle the first is the one under
    /// which the hub signs: a certificate that leads to another one only is renewed at once.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub roots: Vec<Bytes>,
}

/// A certificate that was asked for.
#[derive(Clone, PartialEq, Message)]
pub struct Certificate {
    /// The number of the request.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// The leaf first, then intermediates; the root is left out (DER).
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub chain: Vec<Bytes>,
}

/// The hub says no.
#[derive(Clone, PartialEq, Message)]
pub struct Refusal {
    /// The number of the refused request; 0 when the refusal is about the stream or the subscription.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// Why.
    #[prost(enumeration = "RefusalCode", tag = "2")]
    pub code: i32,
    /// For people: names what was refused.
    #[prost(string, tag = "3")]
    pub message: String,
}

/// Why the hub says no, and so what the agent may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum RefusalCode {
    /// Not said; treat as [`RefusalCode::Unavailable`].
    Unspecified = 0,
    /// The node was not granted this identity. Asking again is of no use until a grant changes.
    NotGranted = 1,
    /// The request makes no sense (a wrong key type, no proof of the key, a missing hello).
    Malformed = 2,
    /// The hub cannot do it now; try again later.
    Unavailable = 3,
    /// The resume point is of another epoch or too old: subscribe again without one.
    ResumeUnknown = 4,
    /// No common version of the words.
    Version = 5,
    /// The node's certificate has expired since the stream was opened: connect again with a current one.
    StaleCertificate = 6,
    /// What is announced contradicts what another node announces. From version 2 on.
    Conflict = 7,
}

/// What a host sends to join: the unary call's request.
#[derive(Clone, PartialEq, Message)]
pub struct JoinRequest {
    /// The secret part of the token.
    #[prost(bytes = "bytes", tag = "1")]
    pub secret: Bytes,
    /// The node's name.
    #[prost(string, tag = "2")]
    pub node: String,
    /// A PKCS #10 request (DER) for the node's own key.
    #[prost(bytes = "bytes", tag = "3")]
    pub signing_request: Bytes,
    /// The lowest version of the words the agent speaks.
    #[prost(uint32, tag = "4")]
    pub lowest_version: u32,
    /// The highest.
    #[prost(uint32, tag = "5")]
    pub highest_version: u32,
}

/// What a host gets when it joined.
#[derive(Clone, PartialEq, Message)]
pub struct JoinResponse {
    /// The node certificate: the leaf first, then intermediates (DER).
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub chain: Vec<Bytes>,
    /// The mesh's own trust domain with its roots.
    #[prost(message, optional, tag = "2")]
    pub bundle: Option<Bundle>,
    /// The SPIFFE URIs that the token granted.
    #[prost(string, repeated, tag = "3")]
    pub granted: Vec<String>,
}
