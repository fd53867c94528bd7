//! Making a connection to another agent: TCP, mutual TLS, hello, answer.
//!
//! No request byte is sent before the answer, so whatever fails here may be tried again elsewhere whatever the method.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::HandshakeKind};
use weft_core::{
    identity::SpiffeId,
    name::RuleName,
    publish::Reader,
    table::Upstream,
    tls::{Credentials, Peer, PeerError, TlsContext},
    wire::{Answer, Framing, Hello, OUR_VERSIONS, Retry, exchange},
    workload::Workload,
};

use crate::{
    connect::connect_fault,
    fault::Fault,
    quiet::{About, Quiet},
    resilience::Observation,
    standing::Standing,
};

/// What dialling needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    /// How TLS is spoken.
    pub(crate) tls: Arc<TlsContext>,
    /// Who we are and whom we trust.
    pub(crate) credentials: Reader<Credentials>,
    /// Which warnings were given lately.
    pub(crate) quiet: Arc<Quiet>,
}

/// The local workload in whose name connections are made. Its number is unique in the process.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Tells pools of workloads apart; never reused.
    pub(crate) number: u64,
    /// Who it is.
    pub(crate) workload: Arc<Workload>,
}

/// An accepted connection to another agent.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// What follows the answer.
    pub(crate) stream: TlsStream<TcpStream>,
    /// Who answered.
    pub(crate) peer: Peer,
    /// The certificates it showed.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// When they were checked.
    pub(crate) checked_at: UnixTime,
    /// The serial number of our certificate on it.
    pub(crate) own_serial: String,
}

/// On what grounds the other agent on an open stream is believed.
#[derive(Clone, Debug)]
pub(crate) struct Grounds {
    chain: Arc<[CertificateDer<'static>]>,
    expected: SpiffeId,
    checked_at: UnixTime,
    trust_generation: u64,
}

impl Dialled {
    /// The grounds on which it was accepted.
    pub(crate) fn grounds(&self) -> Grounds {
        let (chain, expected) = (self.chain.clone().into(), self.peer.identity.clone());
        let trust_generation = self.peer.trust_generation;
        Grounds { chain, expected, checked_at: self.checked_at, trust_generation }
    }
}

impl Grounds {
    /// Says, whenever it is asked, whether our bundles still bear it out; they are looked at when they have changed. Age
    /// ends nothing.
    pub(crate) fn watch(self, dialer: &Dialer) -> impl Fn() -> bool {
        let standing = Standing::new(self.trust_generation);
        move || {
            let generation = dialer.credentials.load().trust_generation();
            let check = || dialer.tls.check_server(&self.chain, &self.expected, self.checked_at).is_ok();
            standing.is_good(generation, check)
        }
    }
}

/// Connects to the agent of `upstream` in the name of `caller`. Has no deadline of its own.
///
/// # Errors
/// Why there is no connection; nothing was asked of the application.
pub(crate) async fn dial(
    dialer: &Dialer,
    caller: &Caller,
    upstream: &Upstream,
    framing: Framing,
    original: Option<SocketAddr>,
) -> Result<Dialled, Missed> {
    let outcome = match attempt(dialer, caller, upstream, framing, original).await {
        // The session may be what is not trusted any more: once more with a full handshake. When it was one already,
        // the next would end as this one did.
        Err(Missed { fault: Fault::PeerUntrusted | Fault::WrongIdentity, resumed: true, .. }) => {
            dialer.tls.forget_sessions(&caller.workload.identity);
            attempt(dialer, caller, upstream, framing, original).await
        }
        outcome => outcome,
    };
    outcome.map_err(|missed| Missed { ours: missed.ours || is_ours(dialer, caller, missed.fault), ..missed })
}

/// Whether the other agent had to refuse us, because our certificate has ended. In TLS 1.3 it says so only after our
/// side of the handshake is done, so that it is the hello that fails.
fn is_ours(dialer: &Dialer, caller: &Caller, fault: Fault) -> bool {
    let refused = matches!(fault, Fault::TlsFailed | Fault::PeerUntrusted | Fault::HelloFailed);
    let has_ended = || {
        let credentials = dialer.credentials.load();
        let own = credentials.identity(&caller.workload.identity);
        own.is_none_or(|own| own.leaf().validity.not_after < SystemTime::now())
    };
    refused && has_ended()
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(crate) struct Missed {
    /// What happened.
    pub(crate) fault: Fault,
    /// For how long the other agent asks to be given nothing.
    pub(crate) pause: Option<Duration>,
    /// The framing that the other agent wants instead.
    pub(crate) framing: Option<Framing>,
    /// The rule by which the other agent refused.
    pub(crate) rule: Option<RuleName>,
    /// Whether it was on a resumed session.
    resumed: bool,
    /// Whether it is the caller's own certificate that is missing or has ended: nothing that the endpoint could help.
    ours: bool,
}

impl Missed {
    /// What it says of the endpoint.
    pub(crate) fn observation(&self) -> Observation {
        if self.ours {
            return Observation::Nothing;
        }
        self.pause.map_or_else(|| Observation::of_fault(self.fault), Observation::Away)
    }
}

impl From<Fault> for Missed {
    fn from(fault: Fault) -> Self {
        Self { fault, pause: None, framing: None, rule: None, resumed: false, ours: false }
    }
}

async fn attempt(
    dialer: &Dialer,
    caller: &Caller,
    upstream: &Upstream,
    framing: Framing,
    original: Option<SocketAddr>,
) -> Result<Dialled, Missed> {
    let endpoint = &upstream.endpoint;
    let (Some(address), Some(expected), Some(name)) =
        (&endpoint.mesh_address, &endpoint.identity, upstream.server_name())
    else {
        return Err(Fault::NoIdentity.into());
    };
    let address = address.socket();
    let own = &caller.workload.identity;
    let (config, certificate) = dialer.tls.client_config_and_certificate(own, framing).map_err(|error| {
        if let Some(kept_back) = dialer.quiet.admit(About::Own(caller.workload.name.clone())) {
            tracing::warn!(%error, kept_back, "cannot dial");
        }
        Missed { ours: true, ..Fault::NotReady.into() }
    })?;
    let tcp = TcpStream::connect(address).await.map_err(|error| connect_fault(&error))?;
    tcp.set_nodelay(true).map_err(|error| connect_fault(&error))?;
    let mut stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| {
        match dialer.quiet.handshake_failed(About::Called(address), address, &error) {
            Some(PeerError::WrongIdentity { .. }) => Fault::WrongIdentity,
            _ => Fault::TlsFailed,
        }
    })?;
    let (_, session) = stream.get_ref();
    if Framing::negotiated(session.alpn_protocol()) != Some(framing) {
        return Err(Fault::TlsFailed.into());
    }
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let chain = session.peer_certificates().unwrap_or_default().to_vec();
    let checked_at = UnixTime::now();
    let peer = dialer.tls.check_server(&chain, expected, checked_at).map_err(|error| {
        dialer.quiet.certificate_refused(About::Called(address), address, &error);
        Missed { resumed, ..Fault::WrongIdentity.into() }
    })?;
    exchange::write_hello(&mut stream, &hello(caller, upstream, original))
        .await
        .map_err(|_| Fault::HelloFailed)?;
    let answer = exchange::read_answer(&mut stream).await.map_err(|_| Fault::HelloFailed)?;
    match refusal(&answer) {
        None => {
            let own_serial = certificate.leaf().serial.clone();
            Ok(Dialled { stream, peer, chain, checked_at, own_serial })
        }
        Some(missed) => {
            tracing::debug!(%address, ?answer, "another agent refused");
            Err(Missed { resumed, ..missed })
        }
    }
}

fn hello(caller: &Caller, upstream: &Upstream, original: Option<SocketAddr>) -> Hello {
    let endpoint = &upstream.endpoint;
    Hello {
        instance: Some(endpoint.instance.clone()),
        source_workload: Some(caller.workload.name.clone()),
        source_labels: caller.workload.labels.clone(),
        original_address: original,
        versions: OUR_VERSIONS,
        ..Hello::new(endpoint.service.clone(), endpoint.address.socket().port())
    }
}

/// What an answer comes to; none when it accepts.
fn refusal(answer: &Answer) -> Option<Missed> {
    let fault = match answer {
        Answer::Accepted { .. } => return None,
        Answer::NotHere => Fault::NotHere,
        Answer::Draining => Fault::PeerDraining,
        Answer::WrongFraming { .. } => Fault::WrongFraming,
        Answer::Denied { .. } => Fault::PeerDenied,
        Answer::Overloaded { .. } => Fault::PeerOverloaded,
        Answer::Untrusted => Fault::PeerUntrusted,
        Answer::Malformed { .. } | Answer::Version { .. } | Answer::Unknown { .. } => Fault::HelloFailed,
    };
    let mut missed = Missed::from(fault);
    match answer.retry() {
        Retry::ElsewhereAvoiding(pause) => missed.pause = Some(pause),
        Retry::Reframe(framing) => missed.framing = Some(framing),
        _ => {}
    }
    if let Answer::Denied { rule } = answer {
        missed.rule = RuleName::new(rule).ok();
    }
    Some(missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_to_stay_away() {
        let pause = Duration::from_secs(7);
        let overloaded = refusal(&Answer::Overloaded { retry_after: pause }).unwrap();
        assert_eq!(overloaded.observation(), Observation::Away(pause));
        let draining = refusal(&Answer::Draining).unwrap();
        assert!(matches!(draining.observation(), Observation::Away(_)));
        let not_here = refusal(&Answer::NotHere).unwrap();
        assert_eq!(not_here.observation(), Observation::Gone);
    }

    #[test]
    fn a_refusal_keeps_its_rule_and_its_framing() {
        let denied = refusal(&Answer::Denied { rule: "static/none/0".into() }).unwrap();
        assert_eq!(denied.rule.unwrap().as_str(), "static/none/0");
        assert!(refusal(&Answer::Denied { rule: String::new() }).unwrap().rule.is_none());
        let other = refusal(&Answer::WrongFraming { using: Framing::Tcp }).unwrap();
        assert_eq!((other.fault, other.framing), (Fault::WrongFraming, Some(Framing::Tcp)));
        assert!(refusal(&Answer::Accepted { version: 1 }).is_none());
    }
}
