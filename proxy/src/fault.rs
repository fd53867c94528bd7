//! What can go wrong between a caller and an application, as a closed list.
//!
//! A [`Fault`] knows whose it is, whether the request may be tried again, and what the caller gets for it. All of that
//! stands in one exhaustive match, [`Fault::facts`], so that status, response flag, metric label and retry rule of a
//! fault cannot drift apart. The response names its fault in the header `x-weft-fault`: towards another agent always
//! (it decides on it whether to try elsewhere; see [`Fault::named`]), towards applications unless that is turned off.

mod facts;
mod response;

pub use facts::{Facts, Grpc, Kind, Origin, RetryRule};
pub use response::{FAULT_HEADER, RULE_HEADER, named, named_rule, respond, strip};

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $text:literal;)*) => {
        /// Everything that ends a request or a connection other than the application's own answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in headers, logs and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// What it means, for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The fault with this label.
            #[must_use]
            pub fn from_label(label: &str) -> Option<Self> {
                match label {
                    $($label => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

faults! {
    /// The request has no host.
    NoHost = "no_host", "the request names no host";
    /// The request names two hosts, or one that is not a host name.
    BadHost = "bad_host", "the request names two hosts, or one that is none";
    /// The length of the body is ambiguous: a transfer coding other than one `chunked`, or a length beside it.
    AmbiguousLength = "ambiguous_length", "the length of the body is ambiguous";
    /// The path has an invalid percent-encoding, a NUL or no leading slash.
    BadPath = "bad_path", "the path is not well formed";
    /// The path has an encoded slash or backslash where rules on paths apply.
    EncodedSlash = "encoded_slash", "encoded slashes are refused where rules on paths apply";
    /// The request breaks its protocol in another way.
    BadRequest = "bad_request", "the request breaks its protocol";
    /// The header is larger than allowed.
    HeaderTooLarge = "header_too_large", "the header is too large";
    /// The caller sent no complete request in time.
    CallerTooSlow = "caller_too_slow", "no complete request came in time";
    /// The caller left before the answer.
    CallerGone = "caller_gone", "the caller left before the answer";
    /// The local process is not one that may use this listener.
    CallerRefused = "caller_refused", "this process may not use this listener";

    /// No service has this host name.
    NoDestination = "no_destination", "no service has this host name";
    /// The service has no such port.
    NoPort = "no_port", "the service has no such port";
    /// The routing rule leads nowhere.
    NoBackend = "no_backend", "the routing rule leads nowhere";
    /// The service has no endpoint that could be asked.
    NoEndpoint = "no_endpoint", "the service has no endpoint";
    /// A policy refused the request; the rule is named beside it.
    Denied = "denied", "a policy refused it";
    /// An external authorization service refused the request.
    DeniedExternally = "denied_externally", "the authorization service refused it";
    /// The caller's certificate is no longer trusted.
    Untrusted = "untrusted", "the caller's certificate is no longer trusted";
    /// A local limit was reached.
    Overloaded = "overloaded", "a limit was reached";
    /// A rate limit was reached.
    RateLimited = "rate_limited", "the rate limit was reached";
    /// This agent drains and takes nothing new.
    Draining = "draining", "the agent drains";
    /// The drain's deadline came before the answer; the application may have acted on the request.
    Drained = "drained", "the agent's drain ended before the answer";
    /// Policy or trust is not known yet.
    NotReady = "not_ready", "the agent is not ready";
    /// A fault of the agent itself.
    Internal = "internal", "a fault of the agent";

    /// The endpoint refused the connection.
    ConnectRefused = "connect_refused", "the endpoint refused the connection";
    /// The connection could not be made for another reason.
    ConnectFailed = "connect_failed", "the endpoint could not be reached";
    /// The connection was not made in time.
    ConnectTimeout = "connect_timeout", "the endpoint did not answer in time";
    /// The TLS handshake failed.
    TlsFailed = "tls_failed", "the TLS handshake with the endpoint failed";
    /// Another identity answered than the one that was expected.
    WrongIdentity = "wrong_identity", "the endpoint answered with another identity";
    /// No identity is known for an endpoint that requires TLS.
    NoIdentity = "no_identity", "the endpoint's identity is not known";
    /// The other agent does not serve this destination.
    NotHere = "not_here", "the endpoint's agent does not serve this";
    /// The other agent drains.
    PeerDraining = "peer_draining", "the endpoint's agent drains";
    /// The other agent wants another framing.
    WrongFraming = "wrong_framing", "the endpoint's agent wants another framing";
    /// The other agent's policy refused the connection.
    PeerDenied = "peer_denied", "the endpoint's policy refused the connection";
    /// The other agent is overloaded.
    PeerOverloaded = "peer_overloaded", "the endpoint's agent is overloaded";
    /// The other agent does not trust us.
    PeerUntrusted = "peer_untrusted", "the endpoint's agent does not trust this one";
    /// The other agent did not understand the hello, or we not its answer.
    HelloFailed = "hello_failed", "the agents did not understand each other";
    /// The request was not begun: a stale connection, REFUSED_STREAM, or GOAWAY above the last stream.
    NotDispatched = "not_dispatched", "the connection closed before the request";
    /// The connection broke before the response.
    ConnectionLost = "connection_lost", "the connection broke before the response";
    /// The peer did not answer a PING while requests waited.
    PeerSilent = "peer_silent", "the endpoint fell silent";
    /// The stream was reset before the response.
    StreamReset = "stream_reset", "the stream was reset before the response";
    /// The response breaks its protocol.
    BadResponse = "bad_response", "the response breaks its protocol";
    /// The response did not begin in time.
    ResponseTimeout = "response_timeout", "the response did not begin in time";
    /// The response broke off after its head.
    ResponseCut = "response_cut", "the response broke off";
}
