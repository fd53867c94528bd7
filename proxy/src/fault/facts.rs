//! The one match from a fault to all that follows from it.

use super::Fault;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The caller's.
    Downstream,
    /// The called side's, or the way there.
    Upstream,
    /// This agent's, its configuration's or its policy's.
    Local,
}

/// What kind of fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A request, or response, that is not what its protocol allows.
    Malformed,
    /// One side left.
    Gone,
    /// Something took too long.
    Timeout,
    /// Not permitted.
    Refused,
    /// Not known.
    NotFound,
    /// No connection.
    Connect,
    /// A connection that proved not to be what was expected.
    Trust,
    /// Too much at once.
    Capacity,
    /// Something of ours.
    Internal,
}

/// Whether a request that met the fault may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryRule {
    /// Yes, whatever the method: no application saw any of it.
    Always,
    /// Only if it is idempotent or declared to be: an application may have acted on it.
    Idempotent,
    /// No: it would end the same way, or an answer has begun.
    Never,
}

/// A gRPC status code (<https://grpc.io/docs/guides/status-codes/>), of those that a proxy answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Grpc {
    /// The caller left.
    Cancelled = 1,
    /// Out of time.
    DeadlineExceeded = 4,
    /// Refused by policy.
    PermissionDenied = 7,
    /// Too much.
    ResourceExhausted = 8,
    /// Nobody serves it.
    Unimplemented = 12,
    /// Broken.
    Internal = 13,
    /// Try again.
    Unavailable = 14,
    /// Not known who asks.
    Unauthenticated = 16,
}

/// Everything that follows from a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose fault it is.
    pub origin: Origin,
    /// What kind of fault it is.
    pub kind: Kind,
    /// Whether to try again.
    pub retry: RetryRule,
    /// The HTTP status; 499 is what logs show of a caller that left, and is never sent.
    pub status: u16,
    /// The gRPC status.
    pub grpc: Grpc,
    /// Envoy's response flag; empty where Envoy sets none.
    pub flag: &'static str,
    /// The same after the last try was spent (`URX`).
    pub flag_exhausted: &'static str,
    /// For people.
    pub text: &'static str,
}

const fn facts(origin: Origin, kind: Kind, status: u16, grpc: Grpc, text: &'static str) -> Facts {
    Facts { origin, kind, retry: RetryRule::Never, status, grpc, flag: "", flag_exhausted: "URX", text }
}

impl Facts {
    const fn retry(self, retry: RetryRule) -> Self {
        Self { retry, ..self }
    }
    const fn flag(self, flag: &'static str, flag_exhausted: &'static str) -> Self {
        Self { flag, flag_exhausted, ..self }
    }
}

/// A request that the caller got wrong.
const fn malformed(text: &'static str) -> Facts {
    facts(Origin::Downstream, Kind::Malformed, 400, Grpc::Internal, text).flag("DPE", "DPE")
}

/// No connection was made, so no application saw anything.
const fn unconnected(kind: Kind, text: &'static str) -> Facts {
    let facts = facts(Origin::Upstream, kind, 503, Grpc::Unavailable, text);
    facts.retry(RetryRule::Always).flag("UF", "UF,URX")
}

impl Fault {
    /// Everything that follows from the fault.
    #[must_use]
    pub const fn facts(self) -> Facts {
        use Grpc::{
            Cancelled, DeadlineExceeded, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable,
            Unimplemented,
        };
        use Origin::{Downstream, Local, Upstream};
        use RetryRule::{Always, Idempotent};
        match self {
            Self::NoHost => malformed("the request names no host"),
            Self::BadHost => malformed("the request names two hosts, or one that is none"),
            Self::AmbiguousLength => malformed("the length of the body is ambiguous"),
            Self::BadPath => malformed("the path is not well formed"),
            Self::EncodedSlash => malformed("encoded slashes are refused where rules on paths apply"),
            Self::BadRequest => malformed("the request breaks its protocol"),
            Self::HeaderTooLarge => Facts { status: 431, ..malformed("the header is too large") },
            Self::CallerTooSlow => {
                let text = "no complete request came in time";
                facts(Downstream, Kind::Timeout, 408, DeadlineExceeded, text).flag("SI", "SI")
            }
            Self::CallerGone => {
                let text = "the caller left before the answer";
                facts(Downstream, Kind::Gone, 499, Cancelled, text).flag("DC", "DC")
            }
            Self::CallerRefused => {
                let text = "this process may not use this listener";
                facts(Downstream, Kind::Refused, 403, PermissionDenied, text)
            }
            Self::NoDestination => {
                let text = "no service has this host name";
                facts(Local, Kind::NotFound, 404, Unimplemented, text).flag("NR", "NR")
            }
            Self::NoPort => {
                let text = "the service has no such port";
                facts(Local, Kind::NotFound, 404, Unimplemented, text).flag("NR", "NR")
            }
            Self::NoBackend => {
                let text = "the routing rule leads nowhere";
                facts(Local, Kind::NotFound, 503, Unavailable, text).flag("NC", "NC")
            }
            Self::NoEndpoint => {
                let text = "the service has no endpoint";
                facts(Upstream, Kind::NotFound, 503, Unavailable, text).flag("UH", "UH")
            }
            Self::Denied => facts(Local, Kind::Refused, 403, PermissionDenied, "a policy refused it"),
            Self::DeniedExternally => {
                let text = "the authorization service refused it";
                facts(Local, Kind::Refused, 403, PermissionDenied, text).flag("UAEX", "UAEX")
            }
            Self::Untrusted => {
                let text = "the caller's certificate is no longer trusted";
                facts(Downstream, Kind::Trust, 401, Unauthenticated, text)
            }
            Self::Overloaded => {
                let facts = facts(Local, Kind::Capacity, 503, Unavailable, "a limit was reached");
                facts.retry(Always).flag("UO", "UO,URX")
            }
            Self::RateLimited => {
                let text = "the rate limit was reached";
                facts(Local, Kind::Capacity, 429, ResourceExhausted, text).flag("RL", "RL")
            }
            Self::Draining => facts(Local, Kind::Capacity, 503, Unavailable, "the agent drains")
                .retry(Always)
                .flag("LR", "LR,URX"),
            Self::NotReady => {
                facts(Local, Kind::Capacity, 503, Unavailable, "the agent is not ready").retry(Always)
            }
            Self::Internal => facts(Local, Kind::Internal, 500, Grpc::Internal, "a fault of the agent"),
            Self::ConnectRefused => unconnected(Kind::Connect, "the endpoint refused the connection"),
            Self::ConnectFailed => unconnected(Kind::Connect, "the endpoint could not be reached"),
            Self::ConnectTimeout => unconnected(Kind::Timeout, "the endpoint did not answer in time"),
            Self::TlsFailed => unconnected(Kind::Trust, "the TLS handshake with the endpoint failed"),
            Self::WrongIdentity => unconnected(Kind::Trust, "the endpoint answered with another identity"),
            Self::NoIdentity => unconnected(Kind::Trust, "the endpoint's identity is not known"),
            Self::NotHere => unconnected(Kind::NotFound, "the endpoint's agent does not serve this"),
            Self::PeerDraining => unconnected(Kind::Capacity, "the endpoint's agent drains"),
            Self::WrongFraming => unconnected(Kind::Malformed, "the endpoint's agent wants another framing"),
            Self::PeerDenied => Facts {
                status: 403,
                grpc: PermissionDenied,
                retry: RetryRule::Never,
                ..unconnected(Kind::Refused, "the endpoint's policy refused the connection")
            },
            Self::PeerOverloaded => {
                unconnected(Kind::Capacity, "the endpoint's agent is overloaded").flag("UO", "UO,URX")
            }
            Self::PeerUntrusted => unconnected(Kind::Trust, "the endpoint's agent does not trust this one"),
            Self::HelloFailed => unconnected(Kind::Malformed, "the agents did not understand each other"),
            Self::NotDispatched => {
                unconnected(Kind::Gone, "the connection closed before the request").flag("UR", "UR,URX")
            }
            Self::ConnectionLost => {
                let facts =
                    facts(Upstream, Kind::Gone, 503, Unavailable, "the connection broke before the response");
                facts.retry(Idempotent).flag("UC", "UC,URX")
            }
            Self::PeerSilent => {
                let facts = facts(Upstream, Kind::Timeout, 503, Unavailable, "the endpoint fell silent");
                facts.retry(Idempotent).flag("UC", "UC,URX")
            }
            Self::StreamReset => {
                let facts =
                    facts(Upstream, Kind::Gone, 503, Unavailable, "the stream was reset before the response");
                facts.retry(Idempotent).flag("UR", "UR,URX")
            }
            Self::BadResponse => {
                let facts =
                    facts(Upstream, Kind::Malformed, 502, Unavailable, "the response breaks its protocol");
                facts.retry(Idempotent).flag("UPE", "UPE,URX")
            }
            Self::ResponseTimeout => {
                let text = "the response did not begin in time";
                facts(Upstream, Kind::Timeout, 504, DeadlineExceeded, text).flag("UT", "UT,URX")
            }
            Self::ResponseCut => {
                let text = "the response broke off";
                facts(Upstream, Kind::Gone, 502, Unavailable, text).flag("UC", "UC")
            }
        }
    }
}
