//! What certificate a mesh port presents, seen from outside: by anyone who connects, without a certificate of their own.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weft_core::identity::SpiffeId;

/// How long a look may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A presented certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// In hexadecimal.
    pub serial: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// Connects to a mesh port as if to call `identity` and looks at the certificate that comes.
///
/// # Errors
/// When nobody answers, or what is presented is no certificate.
pub async fn look(address: SocketAddr, identity: &SpiffeId) -> anyhow::Result<Presented> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let witness = Arc::new(Witness { provider: provider.clone(), seen: Mutex::default() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"weft-h2/1".to_vec()];
    let name = ServerName::try_from(identity.server_name())?;
    let handshake = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    // The mesh port refuses us in the end, rightly: by then we have seen what we came for.
    let _refused = tokio::time::timeout(TIMEOUT, handshake).await;
    let seen = witness.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    parse(&seen.context("no certificate was presented")?)
}

fn parse(certificate: &CertificateDer<'_>) -> anyhow::Result<Presented> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)?;
    let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    let seconds = u64::try_from(parsed.validity().not_after.timestamp())?;
    Ok(Presented { serial, not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) })
}

/// Keeps what it is shown and trusts nothing: no byte of ours follows.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.clone().into_owned());
        Err(rustls::Error::General("only looking".into()))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only looking".into()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
