//! Identity on the wire: certificates, trust bundles and the TLS configurations that use them.
//!
//! TLS says who is there, nothing more; what a peer may do is policy. The rules are few and hold on both sides:
//!
//! - A peer shows a certificate with exactly one SPIFFE URI, that is no CA and signs nothing, and that chains to a root
//!   in the bundle of **its own** trust domain. A root of one domain says nothing about another.
//! - The name a client dials is the encoded identity it expects ([`crate::identity::SpiffeId::server_name`]), so one
//!   client configuration per local identity serves all destinations, and "somebody valid" is never enough.
//! - TLS 1.3 only, no early data, X25519MLKEM768 first.
//! - A resumed handshake runs no verifier: a ticket carries the certificate of long ago. So whoever completes a
//!   handshake calls [`TlsContext::check_client`] or [`TlsContext::check_server`], full or resumed.
//!
//! [`Credentials`] is one immutable snapshot of all that and travels by [`crate::publish`]; configurations made by
//! [`TlsContext`] read it at every handshake, so a rotation needs no new listener and no new connection.

mod moment;
mod pem;
mod leaf;
mod certificate;
mod bundle;
mod credentials;
mod peer;
mod checker;
mod verifier;
mod ticketer;
mod context;
mod hub;

pub use bundle::{Bundle, BundleError, Root};
pub use certificate::{Certificate, CertificateError};
pub use context::{TlsContext, TlsError};
pub use credentials::Credentials;
pub use hub::{HUB_ALPN, RootPin, RootPinError, pinned_hub_client_config};
pub use leaf::{Leaf, LeafError, Validity};
pub use moment::rfc3339;
pub use peer::{Peer, PeerError, explain_handshake, peer_fault};
pub use pem::{PemBlock, PemError, read_pem};
