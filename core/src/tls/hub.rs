//! The hub's end and the agent's end of the control stream.
//!
//! The hub is a workload like others, `ns/weft-system/sa/hub`, and agents check it as they check all; only at the very
//! first contact an agent has no bundle yet. Then the join token names the SHA-256 of the root, and the hub shows its
//! roots along with its chain.

use std::{fmt, str::FromStr, sync::Arc};

use data_encoding::HEXLOWER;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    bundle::{Bundle, Usage, sha256},
    certificate::provider,
    context::{OwnCertificate, TlsContext, TlsError, client_config},
    credentials::Credentials,
    peer::{PeerError, check},
    verifier::{MeshVerifier, no_tls12, require_name, verify_schemes, verify_signature},
};
use crate::{
    identity::{SpiffeId, TrustDomain},
    publish::Reader,
};

/// The ALPN of the control stream: gRPC, so HTTP/2.
pub const HUB_ALPN: &[u8] = b"h2";

/// The SHA-256 of a root certificate in DER, as a join token carries it: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootPin([u8; 32]);

/// A text is not a [`RootPin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a root's fingerprint is the 64 lower-case hexadecimal digits of its SHA-256")]
pub struct RootPinError;

impl RootPin {
    /// The pin of a root certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        Self(sha256(certificate))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for RootPin {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootPin({self})")
    }
}

impl FromStr for RootPin {
    type Err = RootPinError;
    fn from_str(text: &str) -> Result<Self, RootPinError> {
        let digest = HEXLOWER.decode(text.as_bytes()).map_err(|_| RootPinError)?;
        digest.try_into().map(Self).map_err(|_| RootPinError)
    }
}

impl TlsContext {
    /// For the hub's port: TLS 1.3, a client certificate is checked when it is shown and otherwise the caller can only
    /// join, whatever name is dialled the certificate of `hub`, followed by the roots of its trust domain. No tickets.
    #[must_use]
    pub fn hub_server_config(&self, hub: &SpiffeId) -> Arc<ServerConfig> {
        let verifier = Arc::new(MeshVerifier::with_optional_client_certificate(self.checker.clone()));
        let resolver = HubCertificate { hub: hub.clone(), credentials: self.credentials.clone() };
        let mut config = ServerConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&[&TLS13])
            .expect("aws-lc-rs speaks TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![HUB_ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Arc::new(config)
    }

    /// For an agent that has joined: shows the certificate of `own` and trusts the hub by the bundle. Dial the
    /// [`SpiffeId::server_name`] of [`SpiffeId::hub`]. Sessions are not resumed.
    ///
    /// # Errors
    /// When there is no certificate for `own`, or it has expired.
    pub fn hub_client_config(&self, own: &SpiffeId) -> Result<Arc<ClientConfig>, TlsError> {
        let (certificate, _) = self.own_certificate(own)?;
        let own = Arc::new(OwnCertificate(certificate.certified_key().clone()));
        Ok(Arc::new(client_config(self.verifier.clone(), own, Resumption::disabled(), HUB_ALPN)))
    }
}

/// For an agent that joins: shows no certificate and trusts whoever proves to be the hub of `trust_domain` under the
/// pinned root. Dial the [`SpiffeId::server_name`] of [`SpiffeId::hub`].
#[must_use]
pub fn pinned_hub_client_config(pin: RootPin, trust_domain: &TrustDomain) -> Arc<ClientConfig> {
    let verifier = Arc::new(PinnedVerifier { pin, trust_domain: trust_domain.clone() });
    let nobody = Arc::new(NoCertificate);
    Arc::new(client_config(verifier, nobody, Resumption::disabled(), HUB_ALPN))
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct HubCertificate {
    hub: SpiffeId,
    credentials: Reader<Credentials>,
}

impl ResolvesServerCert for HubCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let credentials = self.credentials.load();
        let own = credentials.identity(&self.hub)?.certified_key();
        let bundle = credentials.bundle(&self.hub.trust_domain());
        let roots = bundle.iter().flat_map(|bundle| bundle.roots()).map(|root| root.certificate().clone());
        let chain = own.cert.iter().cloned().chain(roots).collect();
        Some(Arc::new(CertifiedKey::new(chain, own.key.clone())))
    }
}

#[derive(Debug)]
struct PinnedVerifier {
    pin: RootPin,
    trust_domain: TrustDomain,
}

impl PinnedVerifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), PeerError> {
        let not_pinned = || PeerError::NotPinned { expected: self.pin.to_string() };
        let root = others.iter().find(|other| RootPin::of(other) == self.pin).ok_or_else(not_pinned)?;
        let bundle = Bundle::new(self.trust_domain.clone(), [root.clone().into_owned()]);
        let credentials = Credentials::default().with_bundle(bundle.map_err(|_| not_pinned())?);
        let (peer, _) = check(&credentials, leaf, others, Usage::Server, now)?;
        let hub = SpiffeId::hub(&self.trust_domain);
        if peer.identity != hub {
            let (presented, serial) = (peer.identity, peer.serial);
            return Err(PeerError::WrongIdentity { presented, serial, expected: hub.to_string() });
        }
        require_name(&peer, dialled)
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, intermediates, dialled, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        verify_schemes()
    }
}
