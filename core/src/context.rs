//! One context per request: the sole input of policy, log, metric, trace and explanation.
//!
//! What a request is gets known in steps, and the steps have a fixed order ([`InboundPhase`], [`OutboundPhase`]). Every
//! consumer names a fact by the same [`Attribute`], so that a log line, a metric label and an explanation never
//! disagree about what it is called.

mod outcome;

use std::{net::SocketAddr, time::Duration};

use http::Method;
use serde::Serialize;

pub use outcome::{Asked, Outcome, Reached, Value};

use crate::{
    identity::SpiffeId,
    name::{InstanceName, RuleName, ServiceKey, WorkloadName},
    workload::Source,
};

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2, gRPC included.
    Http2,
    /// Opaque bytes.
    Tcp,
    /// Opaque TLS, passed through.
    Tls,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Istio's value of the label `request_protocol`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Http1 | Self::Http2 => "http",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
        }
    }
}

/// What policy sees: the received request, before any rewrite, with its path normalised.
#[derive(Clone, Copy, Debug)]
pub struct PolicyInput<'a> {
    /// The caller's certified identity.
    pub identity: &'a SpiffeId,
    /// The application's port.
    pub port: u16,
    /// The request; none on opaque bytes.
    pub request: Option<PolicyRequest<'a>>,
}

/// The layer-7 part of [`PolicyInput`].
#[derive(Clone, Copy, Debug)]
pub struct PolicyRequest<'a> {
    /// As received.
    pub method: &'a Method,
    /// Normalised, without the query.
    pub path: &'a str,
}

/// The steps of an incoming request, in order. All but the last can end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InboundPhase {
    /// Who connects, as far as the socket tells.
    Source,
    /// The handshake and the hello.
    Tls,
    /// Which protocol is spoken.
    Detect,
    /// The path gets its one canonical form, which is what is forwarded.
    Normalise,
    /// Who asks: the peer's certificate, and later tokens.
    Authenticate,
    /// DENY policies.
    Deny,
    /// The one slot for external authorization, processing and rate-limit services.
    External,
    /// ALLOW policies.
    Allow,
    /// Local limits.
    Limits,
    /// To the application.
    Forward,
}

/// The steps of an outgoing request, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutboundPhase {
    /// Which local workload connects.
    Source,
    /// Which destination and rule.
    Route,
    /// Local limits.
    Limits,
    /// Injected delay or abort.
    Fault,
    /// Which endpoint.
    Pick,
    /// The attempt loop.
    Attempt,
}

/// On which side of a call the reporting agent stands; Istio's label `reporter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reporter {
    /// The caller's side.
    Source,
    /// The called side.
    Destination,
}

impl Reporter {
    /// The label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// What was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Called {
    /// The service; on the called side as the hello names it.
    pub service: ServiceKey,
    /// The port: the service's on the caller's side, the application's on the called side.
    pub port: u16,
    /// The workload that serves; known on the called side.
    pub workload: Option<WorkloadName>,
    /// The instance, once one was picked.
    pub instance: Option<InstanceName>,
    /// The identity that answered, or that serves.
    pub identity: Option<SpiffeId>,
    /// Where the request went.
    pub address: Option<SocketAddr>,
}

/// The request itself; opaque bytes have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// As received.
    pub method: String,
    /// Normalised, without the query, which may hold secrets.
    pub path: String,
    /// The host that the caller named.
    pub authority: String,
    /// The value of `x-request-id`.
    pub id: String,
    /// The W3C trace ID, 32 hexadecimal digits; empty when there is none.
    pub trace: String,
    /// Whether it is gRPC.
    pub grpc: bool,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The status that the caller got; 0 on opaque bytes, and when the caller left before it.
    pub status: u16,
    /// The gRPC status, where the response or its trailers had one.
    pub grpc_status: Option<u16>,
    /// Envoy's response flags, such as `UF`; empty when the application itself answered.
    pub flags: &'static str,
    /// The label of the fault that ended it.
    pub fault: Option<&'static str>,
    /// The rule that refused it, or that allowed it.
    pub rule: Option<RuleName>,
}

/// Everything known of one request or one opaque connection, to be kept; [`Outcome`] is the same, borrowed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RequestContext {
    /// When it ended, in milliseconds since 1970.
    #[serde(rename = "ended_at_ms")]
    pub ended_at: u64,
    /// On which side we stand.
    pub reporter: Reporter,
    /// Who asks.
    pub source: Source,
    /// What is asked for; none while unknown.
    pub destination: Option<Called>,
    /// Where the caller's connection was accepted; none on a Unix socket.
    pub local_address: Option<SocketAddr>,
    /// Where it came from; none on a Unix socket.
    pub peer_address: Option<SocketAddr>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether the call itself is mutual TLS.
    pub mutual_tls: bool,
    /// The request; none on opaque bytes.
    pub request: Option<Request>,
    /// The routing rule that applied.
    pub route: Option<RuleName>,
    /// How often it was tried.
    pub attempts: u8,
    /// How it ended.
    pub verdict: Verdict,
    /// From the first byte to the last.
    #[serde(rename = "duration_us", serialize_with = "as_microseconds")]
    pub duration: Duration,
    /// Bytes of body from the caller.
    pub received_bytes: u64,
    /// Bytes of body to the caller.
    pub sent_bytes: u64,
}

fn as_microseconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}

macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The one list of facts about a request, by the names that policy, log, metric and trace use.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Attribute {
            $($(#[$doc])* $name,)*
        }

        impl Attribute {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

attributes! {
    /// `source` or `destination`.
    Reporter = "reporter",
    /// The calling workload's name.
    SourceWorkload = "source.workload",
    /// The caller's SPIFFE ID.
    SourcePrincipal = "source.principal",
    /// The caller's namespace.
    SourceNamespace = "source.namespace",
    /// Where the caller's connection came from.
    SourceAddress = "source.address",
    /// `name.namespace` of the called service.
    DestinationService = "destination.service",
    /// The registry of the called service.
    DestinationRegistry = "destination.registry",
    /// The called port.
    DestinationPort = "destination.port",
    /// The workload that serves.
    DestinationWorkload = "destination.workload",
    /// The instance that was picked.
    DestinationInstance = "destination.instance",
    /// The called identity.
    DestinationPrincipal = "destination.principal",
    /// Where the request went.
    DestinationAddress = "destination.address",
    /// Where the caller's connection was accepted.
    LocalAddress = "connection.local_address",
    /// `mutual_tls` or `none`.
    SecurityPolicy = "connection.security_policy",
    /// `http`, `grpc`, `tcp`, `tls` or `udp`.
    RequestProtocol = "request.protocol",
    /// The method.
    RequestMethod = "request.method",
    /// The normalised path, without the query.
    RequestPath = "request.path",
    /// The host that the caller named.
    RequestHost = "request.host",
    /// The value of `x-request-id`.
    RequestId = "request.id",
    /// The W3C trace ID.
    TraceId = "request.trace_id",
    /// Bytes of body from the caller.
    RequestSize = "request.size",
    /// The routing rule.
    Route = "route.name",
    /// How often it was tried.
    Attempts = "request.attempts",
    /// The status.
    ResponseCode = "response.code",
    /// The gRPC status.
    GrpcStatus = "response.grpc_status",
    /// Envoy's response flags.
    ResponseFlags = "response.flags",
    /// Bytes of body to the caller.
    ResponseSize = "response.size",
    /// The fault that ended it.
    Fault = "response.fault",
    /// The policy rule that decided.
    PolicyRule = "policy.rule",
    /// Microseconds from the first byte to the last.
    Duration = "request.duration_us",
}

impl RequestContext {
    /// The value of an attribute as text; none when it is not known.
    #[must_use]
    pub fn attribute(&self, attribute: Attribute) -> Option<String> {
        match self.as_outcome().value(attribute) {
            Value::Absent => None,
            value => Some(value.to_string()),
        }
    }
}
