//! One agent's stream: its words in, certificates, bundles and discovery out.
//!
//! Everything that an agent is owed but its certificates is state, not a queue: bundles are sent as they are when there
//! is room, discovery as far as the agent's window allows. So a slow agent costs a few batches of memory, and what
//! changes meanwhile coalesces.

mod errands;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_util::{StreamExt, stream::FuturesUnordered};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tonic::{Status, Streaming};
use weft_core::{
    control::{
        ANNOUNCING, NodeReport, VERSIONS, WINDOW, common_version,
        message::{
            Announce, Announced, Bundle, Bundles, Certificate, CertificateRequest, ClientMessage, ClientWord,
            Discovery, Hello, Refusal, RefusalCode, Report, ServerMessage, ServerWord, Subscribe, Welcome,
            Withdraw,
        },
    },
    identity::SpiffeId,
    publish::Reader,
    tls::{Peer, PeerError, TlsContext},
};

use errands::{Errand, ErrandAnswer, Errands};

use super::{
    announced::{Announcements, Desk},
    authority::{Authority, Issued},
    journal::Past,
    office::{CertificateRefusal, Office},
    records::LastReport,
    relay::{Follower, RelayState},
    roster::{Presence, Roster},
    states::{RegistryView, states_of},
};

/// How long an agent may take for its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a stream looks whether a commit is due.
const TICK: Duration = Duration::from_secs(2);
/// The longest name of a node's software that is kept, in bytes.
const LONGEST_SOFTWARE: usize = 64;
/// How many certificates one agent may have signed at a time before its next words wait.
const MAX_SIGNING: usize = 64;
/// How many messages may wait for the network.
pub(super) const OUTGOING: usize = 4;

/// What all streams share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) office: Arc<Office>,
    /// Which numbering the relay's positions are of.
    pub(super) past: Past,
    pub(super) relay: Reader<RelayState>,
    /// The registries that are relayed, most authoritative first.
    pub(super) registries: Arc<[String]>,
    /// The bundles in force.
    pub(super) bundles: watch::Receiver<Bundles>,
    /// Who is trusted.
    pub(super) tls: Arc<TlsContext>,
    pub(super) roster: Arc<Roster>,
    /// What nodes announce; none where they may not.
    pub(super) announcements: Option<Arc<Announcements>>,
    /// How the registries are.
    pub(super) states: watch::Receiver<Arc<[RegistryView]>>,
}

/// The node at the other end, as its certificate says.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) peer: Peer,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) from: SocketAddr,
}

/// What became of a request for a certificate, by its number.
type Signed = (u64, Result<Issued, CertificateRefusal>);

/// The agent is gone, or the stream must end with this status.
struct End(Option<Status>);

/// The stream as its task sees it.
struct Stream {
    shared: Shared,
    node: Node,
    outgoing: mpsc::Sender<Result<ServerMessage, Status>>,
    presence: Presence,
    /// Of the words in use.
    version: u32,
    /// Where it announces its services; none where it may not, and before it has said a word of its own.
    desk: Option<Arc<Desk>>,
    software: String,
    sequence: u64,
    follower: Option<Follower>,
    /// What it was granted when the stream began.
    granted: Arc<[SpiffeId]>,
    /// Words that wait for the store. Nothing else waits for them.
    errands: Errands,
    /// Certificates that are being signed. They may wait for the store too.
    signing: FuturesUnordered<BoxFuture<'static, Signed>>,
    /// Numbers of batches that were sent and not yet acknowledged, at most [`WINDOW`].
    unacknowledged: Vec<u64>,
}

/// Serves one stream until either side ends it.
pub(super) async fn serve(
    shared: Shared,
    node: Node,
    mut incoming: Streaming<ClientMessage>,
    outgoing: mpsc::Sender<Result<ServerMessage, Status>>,
) {
    let name = node.name.clone();
    // Before the grant is looked up: a node that is removed meanwhile is found here, or not known there.
    let presence = shared.roster.enter(&name, node.from);
    let mut stream = Stream {
        shared,
        node,
        outgoing,
        presence,
        version: VERSIONS.0,
        desk: None,
        software: String::new(),
        sequence: 0,
        follower: None,
        granted: Arc::default(),
        errands: Errands::default(),
        signing: FuturesUnordered::new(),
        unacknowledged: Vec::new(),
    };
    tracing::debug!(node = %name, "a stream begins");
    let ended = match stream.open(&mut incoming).await {
        Ok(()) => stream.run(&mut incoming).await,
        Err(end) => end,
    };
    if let End(Some(status)) = ended {
        tracing::warn!(node = %name, fault = %status.message(), "stream refused");
        let _heard = stream.outgoing.send(Err(status)).await;
    } else if stream.presence.is_agents() {
        tracing::info!(node = %name, "disconnected");
    }
}

impl Stream {
    /// Waits for the hello and answers it.
    async fn open(&mut self, incoming: &mut Streaming<ClientMessage>) -> Result<(), End> {
        let late = |_| End(Some(Status::deadline_exceeded("no hello within 5 s")));
        let first = timeout(HELLO_TIMEOUT, incoming.message()).await.map_err(late)?;
        let word = first.map_err(|status| End(Some(status)))?.and_then(|message| message.word);
        let Some(ClientWord::Hello(hello)) = word else {
            return Err(End(Some(Status::invalid_argument("the first word must be a hello"))));
        };
        let version = self.check_hello(&hello)?;
        self.version = version;
        self.software = hello.software;
        self.software.truncate(self.software.floor_char_boundary(LONGEST_SOFTWARE));
        let name = self.node.name.clone();
        let granted = self.shared.office.granted(&name).await;
        let granted = granted.map_err(|fault| End(Some(Status::unavailable(fault.to_string()))))?;
        let Some(granted) = granted else {
            let message = format!("node {} has not joined here", self.node.name);
            return Err(End(Some(Status::permission_denied(message))));
        };
        self.granted = granted.iter().cloned().collect();
        let welcome = Welcome {
            version,
            epoch: Bytes::copy_from_slice(&self.shared.past.epoch()),
            life: Bytes::copy_from_slice(&self.shared.past.life()),
            granted: granted.iter().map(ToString::to_string).collect(),
            registries: self.shared.registries.to_vec(),
        };
        self.say(ServerWord::Welcome(welcome)).await
    }

    fn check_hello(&self, hello: &Hello) -> Result<u32, End> {
        if hello.node != self.node.name {
            let message = format!("the certificate is node {}'s, not node {}'s", self.node.name, hello.node);
            return Err(End(Some(Status::permission_denied(message))));
        }
        let theirs = (hello.lowest_version, hello.highest_version);
        common_version(VERSIONS, theirs).ok_or_else(|| {
            let message = format!("this hub speaks versions {VERSIONS:?}, the agent {theirs:?}");
            End(Some(Status::failed_precondition(message)))
        })
    }

    async fn run(&mut self, incoming: &mut Streaming<ClientMessage>) -> End {
        let mut bundles = self.shared.bundles.clone();
        let mut relay = self.shared.relay.clone();
        let mut states = self.shared.states.clone();
        bundles.mark_changed();
        states.mark_changed();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                message = incoming.message(), if self.signing.len() < MAX_SIGNING => match message {
                    Ok(Some(message)) => self.hear(message).await,
                    Ok(None) => return End(None),
                    Err(status) => return End(Some(status).filter(is_their_fault)),
                },
                changed = bundles.changed() => match changed {
                    Ok(()) => {
                        let now = bundles.borrow_and_update().clone();
                        self.tell_bundles(now).await
                    }
                    Err(_) => Err(End(Some(Status::unavailable("the hub ends")))),
                },
                alive = relay.changed() => {
                    if alive { Ok(()) } else { Err(End(Some(Status::unavailable("the hub ends")))) }
                }
                Ok(()) = states.changed() => {
                    let now = states_of(&states.borrow_and_update(), SystemTime::now());
                    self.say(ServerWord::RegistryStates(now)).await
                }
                Some((request, signed)) = self.signing.next(), if !self.signing.is_empty() => {
                    self.answer(request, signed).await
                }
                answer = self.errands.next() => self.answer_errand(answer).await,
                () = self.presence.removed() => {
                    let message = format!("node {} was removed from this mesh", self.node.name);
                    Err(End(Some(Status::permission_denied(message))))
                }
                _ = ticks.tick() => Ok(()),
            };
            let step = match step {
                Ok(()) => self.tell().await,
                Err(end) => Err(end),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn say(&mut self, word: ServerWord) -> Result<(), End> {
        self.sequence += 1;
        let message = ServerMessage { sequence: self.sequence, word: Some(word) };
        self.outgoing.send(Ok(message)).await.map_err(|_| End(None))
    }

    async fn refuse(&mut self, request: u64, code: RefusalCode, message: String) -> Result<(), End> {
        tracing::warn!(node = %self.node.name, %message, "refused");
        self.say(ServerWord::Refusal(Refusal { request, code: code.into(), message })).await
    }

    async fn hear(&mut self, message: ClientMessage) -> Result<(), End> {
        let unknown = || End(Some(Status::invalid_argument("a word that this hub does not know")));
        match message.word.ok_or_else(unknown)? {
            ClientWord::Hello(_) => Err(End(Some(Status::invalid_argument("a second hello")))),
            ClientWord::Subscribe(subscribe) => self.subscribe(subscribe).await,
            ClientWord::CertificateRequest(request) => self.certify(request).await,
            ClientWord::Acknowledge(acknowledge) => {
                self.unacknowledged.retain(|sent| *sent > acknowledge.sequence);
                Ok(())
            }
            ClientWord::Report(report) => {
                self.enter();
                self.note(report)
            }
            ClientWord::Announce(_) | ClientWord::Withdraw(_) if self.version < ANNOUNCING => {
                Err(End(Some(Status::invalid_argument("a word of a later version than the one in use"))))
            }
            ClientWord::Announce(announce) => self.announce(announce).await,
            ClientWord::Withdraw(withdraw) => self.withdraw(withdraw).await,
        }
    }

    /// The node is there with all that it announces: every agent's first word after the welcome is a report. Who says nothing
    /// of the node only looks, and what it does not announce is none the less announced.
    fn enter(&mut self) -> Option<Arc<Desk>> {
        if self.presence.appear() {
            tracing::info!(node = %self.node.name, "connected");
        }
        if self.desk.is_none() {
            let announcements = self.shared.announcements.as_ref()?;
            self.desk = Some(Arc::new(announcements.enter(&self.node.name, Instant::now())));
        }
        self.desk.clone()
    }

    async fn announce(&mut self, Announce { request, event }: Announce) -> Result<(), End> {
        let Some(desk) = self.enter() else { return self.takes_none(request).await };
        let (office, node, before) =
            (self.shared.office.clone(), self.node.name.clone(), self.granted.clone());
        let (word, size) = (desk.hear(), event.len());
        let announcing = async move {
            let _word = word;
            if desk.repeat(&before, &event) {
                return ErrandAnswer::Done(request);
            }
            let granted = office.granted(&node).await;
            let outcome = match granted {
                Ok(granted) => desk.announce(&granted.unwrap_or_default(), &event, SystemTime::now()).await,
                Err(fault) => {
                    desk.postpone(&event);
                    Err(fault.into())
                }
            };
            ErrandAnswer::of(request, outcome.map_err(|fault| (fault.code(), fault.to_string())))
        };
        self.send_on_errand(request, size, Box::pin(announcing)).await
    }

    async fn withdraw(&mut self, Withdraw { request, origin }: Withdraw) -> Result<(), End> {
        let Some(desk) = self.enter() else { return self.takes_none(request).await };
        let (word, size) = (desk.hear(), origin.len());
        let withdrawing = async move {
            let _word = word;
            let outcome = desk.withdraw(&origin).await;
            ErrandAnswer::of(request, outcome.map_err(|fault| (RefusalCode::Unavailable, fault.to_string())))
        };
        self.send_on_errand(request, size, Box::pin(withdrawing)).await
    }

    async fn send_on_errand(&mut self, request: u64, size: usize, errand: Errand) -> Result<(), End> {
        if self.errands.add(size, errand) {
            return Ok(());
        }
        let message = "too much is waiting for the hub's store already";
        self.refuse(request, RefusalCode::Unavailable, message.to_owned()).await
    }

    async fn answer_errand(&mut self, answer: ErrandAnswer) -> Result<(), End> {
        match answer {
            ErrandAnswer::Nothing => Ok(()),
            ErrandAnswer::Done(request) => self.say(ServerWord::Announced(Announced { request })).await,
            ErrandAnswer::Refused(request, code, message) => self.refuse(request, code, message).await,
        }
    }

    async fn takes_none(&mut self, request: u64) -> Result<(), End> {
        let message = "this hub takes no announcements: its file has no [announcements]";
        self.refuse(request, RefusalCode::Malformed, message.to_owned()).await
    }

    /// Tells the bundles in force. A node whose own certificate they do not bear out any more must come again.
    async fn tell_bundles(&mut self, bundles: Bundles) -> Result<(), End> {
        self.say(ServerWord::Bundles(bundles)).await?;
        match self.shared.tls.check_client(&self.node.chain, UnixTime::now()) {
            Err(fault @ (PeerError::NotSigned { .. } | PeerError::UnknownTrustDomain { .. })) => {
                Err(End(Some(Status::unauthenticated(fault.to_string()))))
            }
            // Age ends no stream.
            _ => Ok(()),
        }
    }

    fn note(&mut self, report: Report) -> Result<(), End> {
        let report = NodeReport::from_message(report)
            .map_err(|fault| End(Some(Status::invalid_argument(fault.to_string()))))?;
        let last = LastReport { at: SystemTime::now(), software: self.software.clone(), report };
        let (office, node) = (self.shared.office.clone(), self.node.name.clone());
        self.errands.report(Box::pin(async move {
            if let Err(fault) = office.records().note_report(&node, &last).await {
                tracing::warn!(%node, %fault, "the report was not noted");
            }
            ErrandAnswer::Nothing
        }));
        Ok(())
    }

    async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        // What was sent for a former subscription is passed over, and not all of it may be acknowledged.
        self.unacknowledged.clear();
        let follower = Follower::new(subscribe, &self.shared.past, &self.shared.relay.load());
        match follower {
            Ok(follower) => self.follower = Some(follower),
            Err(fault) if fault.needs_full_list() => {
                self.follower = None;
                return self.refuse(0, RefusalCode::ResumeUnknown, fault.to_string()).await;
            }
            Err(fault) => return Err(End(Some(Status::invalid_argument(fault.to_string())))),
        }
        Ok(())
    }

    async fn certify(&mut self, wanted: CertificateRequest) -> Result<(), End> {
        let now = SystemTime::now();
        if now > self.node.peer.not_after {
            let message = format!("the certificate of node {} has expired", self.node.name);
            return self.refuse(wanted.request, RefusalCode::StaleCertificate, message).await;
        }
        let CertificateRequest { request, identity, signing_request } = wanted;
        let (office, name) = (self.shared.office.clone(), self.node.name.clone());
        self.signing.push(Box::pin(async move {
            (request, office.issue(&name, &identity, &signing_request, now).await)
        }));
        Ok(())
    }

    async fn answer(&mut self, request: u64, signed: Result<Issued, CertificateRefusal>) -> Result<(), End> {
        match signed {
            Ok(issued) => {
                let chain = issued.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
                self.say(ServerWord::Certificate(Certificate { request, chain })).await
            }
            Err(fault) => self.refuse(request, fault.code(), fault.to_string()).await,
        }
    }

    /// Tells as much of the relay as the agent's window allows.
    async fn tell(&mut self) -> Result<(), End> {
        let window = usize::try_from(WINDOW).unwrap_or(usize::MAX);
        while self.unacknowledged.len() < window {
            match self.next_batch() {
                Ok(Some(batch)) => {
                    self.say(ServerWord::Discovery(batch)).await?;
                    self.unacknowledged.push(self.sequence);
                }
                Ok(None) => break,
                Err(message) => {
                    self.follower = None;
                    self.refuse(0, RefusalCode::ResumeUnknown, message).await?;
                }
            }
        }
        Ok(())
    }

    fn next_batch(&mut self) -> Result<Option<Discovery>, String> {
        let Some(follower) = &mut self.follower else { return Ok(None) };
        follower.next_batch(&self.shared.relay.load(), SystemTime::now()).map_err(|fault| fault.to_string())
    }
}

/// A connection that went away is no fault; a message that cannot be read is.
fn is_their_fault(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::Internal | tonic::Code::OutOfRange | tonic::Code::InvalidArgument)
        && std::error::Error::source(status).is_none()
}

/// An authority's roots, as they are told.
pub(super) fn bundles_of(authority: &Authority) -> Bundles {
    let roots = authority.roots().iter().map(|root| Bytes::copy_from_slice(root)).collect();
    Bundles { bundles: vec![Bundle { trust_domain: authority.trust_domain().to_string(), roots }] }
}
