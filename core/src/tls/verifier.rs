//! Our rules as rustls asks for them.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    bundle::Usage,
    certificate::provider,
    checker::Checker,
    peer::{Peer, PeerError},
};

/// Checks peers against the credentials in force at the moment of the handshake.
#[derive(Debug)]
pub(super) struct MeshVerifier {
    checker: Arc<Checker>,
    client_certificate_mandatory: bool,
}

impl MeshVerifier {
    pub(super) fn new(checker: Arc<Checker>) -> Self {
        Self { checker, client_certificate_mandatory: true }
    }

    /// For the hub, to whom whoever joins has no certificate to show yet.
    pub(super) fn with_optional_client_certificate(checker: Arc<Checker>) -> Self {
        Self { checker, client_certificate_mandatory: false }
    }
}

/// Refuses a peer whose identity is not the one that the dialled name encodes.
pub(super) fn require_name(peer: &Peer, dialled: &ServerName<'_>) -> Result<(), PeerError> {
    if matches!(dialled, ServerName::DnsName(name) if name.as_ref() == peer.identity.server_name()) {
        return Ok(());
    }
    Err(PeerError::WrongIdentity {
        presented: peer.identity.clone(),
        serial: peer.serial.clone(),
        expected: dialled.to_str().into_owned(),
    })
}

impl ServerCertVerifier for MeshVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let peer = self.checker.check(leaf, intermediates, Usage::Server, now)?;
        require_name(&peer, dialled)?;
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

impl ClientCertVerifier for MeshVerifier {
    /// None: names of roots would tell strangers whom we trust, and every client here has one certificate anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.client_certificate_mandatory
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.checker.check(leaf, intermediates, Usage::Client, now)?;
        Ok(ClientCertVerified::assertion())
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

pub(super) fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

pub(super) fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
}

pub(super) fn verify_schemes() -> Vec<SignatureScheme> {
    provider().signature_verification_algorithms.supported_schemes()
}
