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
}

const fn facts(origin: Origin, kind: Kind, status: u16, grpc: Grpc) -> Facts {
    Facts { origin, kind, retry: RetryRule::Never, status, grpc, flag: "", flag_exhausted: "URX" }
}

impl Facts {
    const fn retry(self, retry: RetryRule) -> Self {
        Self { retry, ..self }
    }
    const fn flag(self, flag: &'static str) -> Self {
        Self { flag, flag_exhausted: flag, ..self }
    }
    const fn flags(self, flag: &'static str, flag_exhausted: &'static str) -> Self {
        Self { flag, flag_exhausted, ..self }
    }
}

/// A request that the caller got wrong.
const MALFORMED: Facts = facts(Origin::Downstream, Kind::Malformed, 400, Grpc::Internal).flag("DPE");

/// Something that this agent, its configuration or its policy says no to.
const fn local(kind: Kind, status: u16, grpc: Grpc) -> Facts {
    facts(Origin::Local, kind, status, grpc)
}

/// No connection was made, so no application saw anything.
const fn unconnected(kind: Kind) -> Facts {
    facts(Origin::Upstream, kind, 503, Grpc::Unavailable).retry(RetryRule::Always).flags("UF", "UF,URX")
}

/// An application may have seen the request.
const fn interrupted(kind: Kind, status: u16) -> Facts {
    facts(Origin::Upstream, kind, status, Grpc::Unavailable).retry(RetryRule::Idempotent)
}

impl Fault {
    /// Everything that follows from the fault.
    #[must_use]
    pub const fn facts(self) -> Facts {
        use Grpc::{
            Cancelled, DeadlineExceeded, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable,
            Unimplemented,
        };
        use Kind::{Capacity, Connect, Gone, Malformed, NotFound, Refused, Timeout, Trust};
        use Origin::{Downstream, Upstream};
        use RetryRule::{Always, Never};
        match self {
            Self::NoHost
            | Self::BadHost
            | Self::AmbiguousLength
            | Self::BadPath
            | Self::EncodedSlash
            | Self::BadRequest => MALFORMED,
            Self::HeaderTooLarge => Facts { status: 431, ..MALFORMED },
            Self::CallerTooSlow => facts(Downstream, Timeout, 408, DeadlineExceeded).flag("SI"),
            Self::CallerGone => facts(Downstream, Gone, 499, Cancelled).flag("DC"),
            Self::CallerRefused => facts(Downstream, Refused, 403, PermissionDenied),
            Self::Untrusted => facts(Downstream, Trust, 401, Unauthenticated),
            Self::NoDestination | Self::NoPort => local(NotFound, 404, Unimplemented).flag("NR"),
            Self::NoBackend => local(NotFound, 503, Unavailable).flag("NC"),
            Self::Denied => local(Refused, 403, PermissionDenied),
            Self::DeniedExternally => local(Refused, 403, PermissionDenied).flag("UAEX"),
            Self::Overloaded => local(Capacity, 503, Unavailable).retry(Always).flags("UO", "UO,URX"),
            Self::RateLimited => local(Capacity, 429, ResourceExhausted).flag("RL"),
            Self::Draining => local(Capacity, 503, Unavailable).retry(Always).flags("LR", "LR,URX"),
            Self::Drained => {
                local(Capacity, 503, Unavailable).retry(RetryRule::Idempotent).flags("LR", "LR,URX")
            }
            Self::NotReady => local(Capacity, 503, Unavailable).retry(Always),
            Self::Internal => local(Kind::Internal, 500, Grpc::Internal),
            Self::NoEndpoint => facts(Upstream, NotFound, 503, Unavailable).flag("UH"),
            Self::ConnectRefused | Self::ConnectFailed => unconnected(Connect),
            Self::ConnectTimeout => unconnected(Timeout),
            Self::TlsFailed | Self::WrongIdentity | Self::NoIdentity | Self::PeerUntrusted => {
                unconnected(Trust)
            }
            Self::NotHere => unconnected(NotFound),
            Self::PeerDraining => unconnected(Capacity),
            Self::PeerOverloaded => unconnected(Capacity).flags("UO", "UO,URX"),
            Self::WrongFraming | Self::HelloFailed => unconnected(Malformed),
            Self::PeerDenied => {
                Facts { status: 403, grpc: PermissionDenied, ..unconnected(Refused).retry(Never).flag("UF") }
            }
            Self::NotDispatched => unconnected(Gone).flags("UR", "UR,URX"),
            Self::ConnectionLost => interrupted(Gone, 503).flags("UC", "UC,URX"),
            Self::PeerSilent => interrupted(Timeout, 503).flags("UC", "UC,URX"),
            Self::StreamReset => interrupted(Gone, 503).flags("UR", "UR,URX"),
            Self::BadResponse => interrupted(Malformed, 502).flags("UPE", "UPE,URX"),
            Self::ResponseTimeout => facts(Upstream, Timeout, 504, DeadlineExceeded).flags("UT", "UT,URX"),
            Self::ResponseCut => interrupted(Gone, 502).retry(Never).flag("UC"),
        }
    }
}
