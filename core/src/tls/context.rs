//! The TLS configurations of an agent: one for all that it accepts, one per local identity and framing for what it
//! dials.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    ClientConfig, ServerConfig, SignatureScheme,
    client::{ClientSessionMemoryCache, ResolvesClientCert, Resumption},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    bundle::Usage,
    certificate::{Certificate, provider},
    checker::Checker,
    credentials::Credentials,
    moment::rfc3339,
    peer::{Peer, PeerError},
    ticketer::MeshTicketer,
    verifier::MeshVerifier,
};
use crate::{identity::SpiffeId, publish::Reader, wire::Framing};

/// How many server names a local identity keeps sessions for.
const SESSIONS_PER_IDENTITY: usize = 1024;

/// Makes and keeps the TLS configurations. Shared by all workers; its lock is held for a lookup, once per dial.
pub struct TlsContext {
    pub(super) credentials: Reader<Credentials>,
    pub(super) checker: Arc<Checker>,
    pub(super) verifier: Arc<MeshVerifier>,
    server: Arc<ServerConfig>,
    clients: Mutex<HashMap<SpiffeId, Client>>,
}

/// Why no TLS configuration can be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The local workload has no certificate (yet).
    #[error("there is no certificate for {0} (yet): nothing can be dialled in its name")]
    NoCertificate(SpiffeId),
    /// The local workload's certificate is past its time; every peer would refuse it.
    #[error("our own certificate {serial} of {identity} expired on {}; renewal must have failed", rfc3339(*since))]
    Expired {
        /// Whose it is.
        identity: SpiffeId,
        /// Its serial number.
        serial: String,
        /// The last moment of its validity.
        since: SystemTime,
    },
}

/// All that one local identity dials with, until its certificate or the trust changes.
struct Client {
    certificate: Arc<Certificate>,
    trust_generation: u64,
    resumption: Resumption,
    resolver: Arc<OwnCertificate>,
    configs: HashMap<Framing, Arc<ClientConfig>>,
}

impl TlsContext {
    /// Follows these credentials. No configuration needs to be fetched again when they change, but for clients it pays
    /// to: [`Self::client_config`] is a lookup.
    #[must_use]
    pub fn new(credentials: Reader<Credentials>) -> Self {
        let checker = Arc::new(Checker::new(credentials.clone()));
        let verifier = Arc::new(MeshVerifier::new(checker.clone()));
        let server = Arc::new(server_config(&credentials, verifier.clone()));
        Self { credentials, checker, verifier, server, clients: Mutex::default() }
    }

    /// The credentials it follows.
    #[must_use]
    pub fn credentials(&self) -> &Reader<Credentials> {
        &self.credentials
    }

    /// For the mesh port: mutual TLS 1.3, our certificate by SNI, ALPN one of [`Framing::SERVED`], tickets. After each
    /// handshake call [`Self::check_client`]; a handshake without ALPN is not a mesh peer's
    /// ([`Framing::negotiated`] is none).
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For dialling as `own`. Fetch it for every dial: the configuration changes when the certificate is renewed or
    /// trust changes, and forgets its sessions with that. Dial the expected identity's [`SpiffeId::server_name`], and
    /// after the handshake call [`Self::check_server`].
    ///
    /// # Errors
    /// When there is no certificate for `own`, or it has expired.
    pub fn client_config(&self, own: &SpiffeId, framing: Framing) -> Result<Arc<ClientConfig>, TlsError> {
        self.client_config_and_certificate(own, framing).map(|(config, _)| config)
    }

    /// As [`Self::client_config`], with the certificate that it shows: read apart from it, that might be another one
    /// during a renewal.
    ///
    /// # Errors
    /// As [`Self::client_config`].
    pub fn client_config_and_certificate(
        &self,
        own: &SpiffeId,
        framing: Framing,
    ) -> Result<(Arc<ClientConfig>, Arc<Certificate>), TlsError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: who was slow must not put the former certificate back in place of its successor.
        let (certificate, trust_generation) = self.own_certificate(own)?;
        let current = |client: &Client| {
            Arc::ptr_eq(&client.certificate, &certificate) && client.trust_generation == trust_generation
        };
        if !clients.get(own).is_some_and(current) {
            let credentials = self.credentials.load();
            clients.retain(|identity, _| credentials.identity(identity).is_some());
            clients.insert(own.clone(), Client::new(certificate.clone(), trust_generation));
        }
        // The entry was there, or has just been put there under the same lock.
        let client = clients.entry(own.clone()).or_insert_with(|| Client::new(certificate, trust_generation));
        Ok((client.config(framing, &self.verifier), client.certificate.clone()))
    }

    /// Drops what `own` could resume, so that its next handshakes are full ones: the cure when a resumed connection
    /// fails [`Self::check_server`] or is answered `untrusted`.
    pub fn forget_sessions(&self, own: &SpiffeId) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(own);
    }

    /// The full check of who connected to us, from the handshake's `peer_certificates`. Due after every handshake,
    /// since a resumed one checks nothing, and again when [`Peer::trust_generation`] is no longer current.
    ///
    /// # Errors
    /// Why the peer is not to be trusted (any more).
    pub fn check_client(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Peer, PeerError> {
        self.check_chain(chain, Usage::Client, now)
    }

    /// The full check of whom we dialled, and that it is `expected` byte for byte. Due as [`Self::check_client`] is.
    ///
    /// # Errors
    /// Why the peer is not to be trusted (any more), or who answered instead.
    pub fn check_server(
        &self,
        chain: &[CertificateDer<'_>],
        expected: &SpiffeId,
        now: UnixTime,
    ) -> Result<Peer, PeerError> {
        let peer = self.check_chain(chain, Usage::Server, now)?;
        if peer.identity == *expected {
            return Ok(peer);
        }
        Err(PeerError::WrongIdentity {
            presented: peer.identity,
            serial: peer.serial,
            expected: expected.to_string(),
        })
    }

    fn check_chain(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<Peer, PeerError> {
        let (leaf, intermediates) = chain.split_first().ok_or(PeerError::NoCertificate)?;
        self.checker.check(leaf, intermediates, usage, now)
    }

    /// The certificate in force, usable now, and the trust it goes with.
    pub(super) fn own_certificate(&self, own: &SpiffeId) -> Result<(Arc<Certificate>, u64), TlsError> {
        let credentials = self.credentials.load();
        let certificate = credentials.identity(own).ok_or_else(|| TlsError::NoCertificate(own.clone()))?;
        let leaf = certificate.leaf();
        if leaf.validity.not_after < SystemTime::now() {
            return Err(TlsError::Expired {
                identity: own.clone(),
                serial: leaf.serial.clone(),
                since: leaf.validity.not_after,
            });
        }
        Ok((certificate.clone(), credentials.trust_generation()))
    }
}

impl fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsContext").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Client {
    fn new(certificate: Arc<Certificate>, trust_generation: u64) -> Self {
        let sessions = ClientSessionMemoryCache::new(SESSIONS_PER_IDENTITY);
        Self {
            resolver: Arc::new(OwnCertificate(certificate.certified_key().clone())),
            certificate,
            trust_generation,
            resumption: Resumption::store(Arc::new(sessions)),
            configs: HashMap::new(),
        }
    }

    /// The framings share sessions: a ticket says who is there, not what is spoken.
    fn config(&mut self, framing: Framing, verifier: &Arc<MeshVerifier>) -> Arc<ClientConfig> {
        let (resolver, resumption) = (&self.resolver, &self.resumption);
        let make = || {
            let alpn = framing.alpn().as_bytes();
            Arc::new(client_config(verifier.clone(), resolver.clone(), resumption.clone(), alpn))
        };
        self.configs.entry(framing).or_insert_with(make).clone()
    }
}

pub(super) fn client_config(
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
    own: Arc<dyn ResolvesClientCert>,
    resumption: Resumption,
    alpn: &[u8],
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .expect("aws-lc-rs speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(own);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = resumption;
    config.enable_early_data = false;
    config
}

fn server_config(credentials: &Reader<Credentials>, verifier: Arc<MeshVerifier>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .expect("aws-lc-rs speaks TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(ByServerName(credentials.clone())));
    config.alpn_protocols =
        Framing::SERVED.iter().map(|framing| framing.alpn().as_bytes().to_vec()).collect();
    config.ticketer = Arc::new(MeshTicketer::new(credentials.clone()));
    // Each ticket carries the whole client chain, and connections here are few and long: one is enough.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    config
}

/// Our certificate for the identity that the caller's SNI encodes; without SNI, or for a stranger's, there is none.
#[derive(Debug)]
struct ByServerName(Reader<Credentials>);

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let credentials = self.0.load();
        Some(credentials.by_server_name(hello.server_name()?)?.certified_key().clone())
    }
}

/// The certificate of the identity that dials.
#[derive(Debug)]
pub(super) struct OwnCertificate(pub(super) Arc<CertifiedKey>);

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
