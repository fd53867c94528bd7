//! Two agents meet: handshake, check, and then one message each way. What arrived is counted.

use std::sync::Arc;

use rustls::{ClientConfig, CommonState, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_core::{
    identity::SpiffeId,
    publish::Publisher,
    tls::{Credentials, Peer, PeerError, TlsContext, explain_handshake},
    wire::Framing,
};

pub(crate) const REQUEST: &[u8] = b"a request";
pub(crate) const RESPONSE: &[u8] = b"a response";

/// An agent: its credentials and what it makes of them.
pub(crate) struct Agent {
    pub(crate) publisher: Publisher<Credentials>,
    pub(crate) context: TlsContext,
}

impl Agent {
    pub(crate) fn new(credentials: Credentials) -> Self {
        let publisher = Publisher::new(credentials);
        let context = TlsContext::new(publisher.reader());
        Self { publisher, context }
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(Credentials) -> Credentials) {
        let next = change(self.publisher.current().as_ref().clone());
        self.publisher.publish(next);
    }
}

/// How one side fared.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) kind: Option<HandshakeKind>,
    pub(crate) group: Option<NamedGroup>,
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) framing: Option<Framing>,
    pub(crate) peer: Option<Peer>,
    pub(crate) error: Option<String>,
    pub(crate) received: Vec<u8>,
}

impl Outcome {
    pub(crate) fn met(state: &CommonState) -> Self {
        Self {
            kind: state.handshake_kind(),
            group: state.negotiated_key_exchange_group().map(|group| group.name()),
            version: state.protocol_version(),
            framing: Framing::negotiated(state.alpn_protocol()),
            ..Self::default()
        }
    }

    pub(crate) fn failed(error: impl ToString) -> Self {
        Self { error: Some(error.to_string()), ..Self::default() }
    }

    fn check(&mut self, checked: Result<Peer, PeerError>) -> bool {
        match checked {
            Ok(peer) => self.peer = Some(peer),
            Err(error) => self.error = Some(error.to_string()),
        }
        self.peer.is_some()
    }

    pub(crate) fn resumed(&self) -> bool {
        self.kind == Some(HandshakeKind::Resumed)
    }
}

#[derive(Debug)]
pub(crate) struct Meeting {
    pub(crate) client: Outcome,
    pub(crate) server: Outcome,
}

impl Meeting {
    /// Both got what the other sent.
    #[track_caller]
    pub(crate) fn assert_spoke(&self) {
        assert_eq!((&self.client.error, &self.server.error), (&None, &None));
        assert_eq!(self.server.received, REQUEST);
        assert_eq!(self.client.received, RESPONSE);
    }

    /// No byte of an application arrived on either side, and the named side says why.
    #[track_caller]
    pub(crate) fn assert_silent(&self) {
        assert!(self.client.received.is_empty() && self.server.received.is_empty(), "{self:?}");
        assert!(self.client.error.is_some() || self.server.error.is_some(), "{self:?}");
    }
}

/// `own` of the client's agent dials `expected` at the server's agent; each side checks as of its own clock.
pub(crate) async fn meet_at(
    client: &Agent,
    own: &SpiffeId,
    expected: &SpiffeId,
    server: &Agent,
    [client_clock, server_clock]: [UnixTime; 2],
) -> Meeting {
    let config = client.context.client_config(own, Framing::Http2).unwrap();
    let (near, far) = duplex(64 * 1024);
    let (client, server) = tokio::join!(
        dial(config, expected.server_name(), near, |chain| client.context.check_server(
            chain,
            expected,
            client_clock
        )),
        accept(server.context.server_config(), far, |chain| server.context.check_client(chain, server_clock)),
    );
    Meeting { client, server }
}

pub(crate) async fn meet(client: &Agent, own: &SpiffeId, expected: &SpiffeId, server: &Agent) -> Meeting {
    meet_at(client, own, expected, server, [UnixTime::now(), UnixTime::now()]).await
}

pub(crate) async fn dial(
    config: Arc<ClientConfig>,
    name: String,
    stream: DuplexStream,
    check: impl FnOnce(&[CertificateDer<'_>]) -> Result<Peer, PeerError>,
) -> Outcome {
    let name = ServerName::try_from(name).unwrap();
    let mut tls = match TlsConnector::from(config).connect(name, stream).await {
        Ok(tls) => tls,
        Err(error) => return Outcome::failed(explain_handshake(&error)),
    };
    let mut outcome = Outcome::met(tls.get_ref().1);
    if outcome.check(check(tls.get_ref().1.peer_certificates().unwrap_or_default())) {
        if let Err(error) = tls.write_all(REQUEST).await.and(tls.flush().await) {
            outcome.error = Some(explain_handshake(&error));
        }
        read_all(&mut tls, &mut outcome).await;
    }
    outcome
}

pub(crate) async fn accept(
    config: Arc<ServerConfig>,
    stream: DuplexStream,
    check: impl FnOnce(&[CertificateDer<'_>]) -> Result<Peer, PeerError>,
) -> Outcome {
    let mut tls = match TlsAcceptor::from(config).accept(stream).await {
        Ok(tls) => tls,
        Err(error) => return Outcome::failed(explain_handshake(&error)),
    };
    let mut outcome = Outcome::met(tls.get_ref().1);
    if outcome.check(check(tls.get_ref().1.peer_certificates().unwrap_or_default())) {
        let mut request = vec![0; REQUEST.len()];
        match tls.read_exact(&mut request).await {
            Ok(_) => outcome.received = request,
            Err(error) => outcome.error = Some(explain_handshake(&error)),
        }
        let _ = tls.write_all(RESPONSE).await;
        let _ = tls.shutdown().await;
    }
    outcome
}

/// Reads what comes until the end, whether the stream ends well or not.
pub(crate) async fn read_all(stream: &mut (impl AsyncReadExt + Unpin), outcome: &mut Outcome) {
    if let Err(error) = stream.read_to_end(&mut outcome.received).await {
        outcome.error.get_or_insert_with(|| explain_handshake(&error));
    }
}
