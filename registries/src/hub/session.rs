//! One stream, from the hello to its end.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::stream;
use http::uri::PathAndQuery;
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tonic::{Request, Status, Streaming, client::Grpc};
use tonic_prost::ProstCodec;
use weft_core::{
    control::{
        ANNOUNCING, CONNECT_PATH, ControlError, NodeReport, RelayedState, ResumePoint, VERSIONS, WINDOW,
        discovery::{Relayed, read_event, read_scope},
        message::{
            Acknowledge, Announce, CertificateRequest, ClientMessage, ClientWord, Discovery, Hello, Refusal,
            RefusalCode, ServerMessage, ServerWord, Subscribe, Welcome, Withdraw,
        },
    },
    identity::{SpiffeId, TrustDomain},
    name::RegistryName,
    registry::{Event, RegistryError},
    tls::Bundle,
};

use crate::narrow::Narrow;

use super::{
    link::{CertificateFault, LinkConfig, LinkState, Outlets, RelayedStates, Said, Wish},
    sight::Sight,
    transport::{Channel, connect},
};

/// How long the hub may take from a connection that stands to its welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How many of our words may wait to be sent.
const OUTGOING: usize = 64;
/// How many answers may be waited for at a time.
const MAX_ASKED: usize = 1024;

/// How a stream ended.
pub(super) struct Ended {
    /// Why, for people.
    pub(super) reason: String,
    /// For how long it stood after the hub had welcomed us; none where it had not.
    pub(super) stood: Option<Duration>,
}

/// Serves one stream until it breaks.
pub(super) async fn run(
    config: &LinkConfig,
    hub: &str,
    wanted: &mut mpsc::Receiver<Wish>,
    outlets: &Outlets,
    sight: &mut Sight,
) -> Ended {
    sight.begin();
    let mut session = match begin(config, hub, &outlets.state).await {
        Ok(session) => session,
        Err(reason) => return Ended { reason, stood: None },
    };
    let welcomed = Instant::now();
    let reason = session.serve(wanted, outlets, sight, config.addresses.len() > 1).await;
    session.fail_all(&reason);
    Ended { reason, stood: Some(welcomed.elapsed()) }
}

/// Connects, says hello and is welcomed. A hub that answers pings and nothing else is no hub.
async fn begin(config: &LinkConfig, hub: &str, state: &watch::Sender<LinkState>) -> Result<Session, String> {
    let trust_domain = config.node.trust_domain();
    let tls = config.tls.hub_client_config(&config.node).map_err(|fault| fault.to_string())?;
    let client = connect(hub, tls, &trust_domain).await?;
    let welcomed = async {
        let mut session = open(config, client).await?;
        session.welcome(hub, state).await?;
        Ok(session)
    };
    let late = |_| Err(format!("{hub} did not welcome us within {} s", WELCOME_TIMEOUT.as_secs()));
    timeout(WELCOME_TIMEOUT, welcomed).await.unwrap_or_else(late)
}

/// Says hello.
async fn open(config: &LinkConfig, mut client: Grpc<Channel>) -> Result<Session, String> {
    client.ready().await.map_err(|fault| fault.to_string())?;
    let (outgoing, mut words) = mpsc::channel(OUTGOING);
    let hello = Hello {
        node: config.node_name.clone(),
        lowest_version: VERSIONS.0,
        highest_version: VERSIONS.1,
        software: concat!("weft ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let first = ClientMessage { word: Some(ClientWord::Hello(hello)) };
    outgoing.try_send(first).expect("the queue was just made and is empty");
    let words = stream::poll_fn(move |cx| words.poll_recv(cx));
    let codec = ProstCodec::<ClientMessage, ServerMessage>::default();
    let path = PathAndQuery::from_static(CONNECT_PATH);
    let answer = client.streaming(Request::new(words), path, codec).await;
    let incoming = answer.map_err(|status| status_fault(&status))?.into_inner();
    Ok(Session {
        incoming,
        outgoing,
        sequence: 0,
        report: config.report.clone(),
        next_request: 1,
        asked: HashMap::new(),
        following: None,
        next_subscription: 1,
        version: VERSIONS.0,
        epoch: Bytes::new(),
        life: Bytes::new(),
    })
}

struct Session {
    incoming: Streaming<ServerMessage>,
    outgoing: mpsc::Sender<ClientMessage>,
    /// The number of the last message.
    sequence: u64,
    /// What the node holds; none where it is not told.
    report: Option<watch::Receiver<NodeReport>>,
    next_request: u64,
    asked: HashMap<u64, Asker>,
    following: Option<Following>,
    next_subscription: u64,
    /// Of the words in use.
    version: u32,
    epoch: Bytes,
    life: Bytes,
}

/// Who waits for an answer.
enum Asker {
    Certificate(oneshot::Sender<Result<Vec<Bytes>, CertificateFault>>),
    Said(oneshot::Sender<Result<(), CertificateFault>>),
}

impl Asker {
    /// Says no. Whoever no longer waits does not hear it.
    fn fail(self, fault: CertificateFault) {
        match self {
            Self::Certificate(answer) => drop(answer.send(Err(fault))),
            Self::Said(answer) => drop(answer.send(Err(fault))),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Certificate(answer) => answer.is_closed(),
            Self::Said(answer) => answer.is_closed(),
        }
    }
}

/// A subscription with what waits to be taken over.
struct Following {
    subscription: u64,
    /// How far the events handed on have come.
    point: ResumePoint,
    events: mpsc::Sender<Result<Event, RegistryError>>,
    /// Batches by number with what is left of each; bounded by the protocol's window.
    waiting: VecDeque<(u64, VecDeque<Event>)>,
}

impl Session {
    /// Waits for the welcome.
    async fn welcome(&mut self, hub: &str, state: &watch::Sender<LinkState>) -> Result<(), String> {
        let first = self.incoming.message().await.map_err(|status| status_fault(&status))?;
        let message = first.ok_or("the hub ended the stream before its welcome")?;
        self.count(&message)?;
        match message.word {
            Some(ServerWord::Welcome(Welcome { version, epoch, granted, registries, life })) => {
                if !(VERSIONS.0..=VERSIONS.1).contains(&version) {
                    return Err(format!("the hub chose version {version}, which this agent does not speak"));
                }
                let granted = granted.iter().map(|uri| SpiffeId::parse(uri)).collect::<Result<Arc<[_]>, _>>();
                let granted = granted.map_err(|fault| format!("a grant of the hub: {fault}"))?;
                let registries = registries.iter().map(|name| RegistryName::new(name));
                let registries = registries.collect::<Result<Arc<[_]>, _>>();
                let registries = registries.map_err(|fault| format!("a registry of the hub: {fault}"))?;
                (self.version, self.epoch, self.life) = (version, epoch, life);
                let (hub, since) = (hub.into(), SystemTime::now());
                state.send_replace(LinkState::Connected { hub, since, granted, registries });
                Ok(())
            }
            Some(ServerWord::Refusal(refusal)) => Err(refusal.message),
            _ => Err("the hub's first word is no welcome".to_owned()),
        }
    }

    /// Serves the stream; gives the reason of its end.
    async fn serve(
        &mut self,
        wanted: &mut mpsc::Receiver<Wish>,
        outlets: &Outlets,
        sight: &mut Sight,
        has_others: bool,
    ) -> String {
        self.report.iter_mut().for_each(watch::Receiver::mark_changed);
        loop {
            let step = tokio::select! {
                message = self.incoming.message() => match message {
                    Ok(Some(message)) => self.hear(message, outlets, sight).await,
                    Ok(None) => Err("the hub ended the stream".to_owned()),
                    Err(status) => Err(status_fault(&status)),
                },
                wish = wanted.recv() => match wish {
                    Some(wish) => self.grant(wish).await,
                    None => Err("nobody uses the link any more".to_owned()),
                },
                Some(report) = changed(&mut self.report) => self.say(ClientWord::Report(report.to_message())).await,
                sequence = hand_on(&mut self.following) => match sequence {
                    Some(sequence) => self.acknowledge(sequence).await,
                    None => self.leave().await,
                },
                () = out_of_patience(sight.leave_at().filter(|_| has_others)) => {
                    sight.leave();
                    Err("the hub hears of none of its registries; another one may".to_owned())
                }
            };
            if let Err(reason) = step {
                return reason;
            }
        }
    }

    async fn say(&self, word: ClientWord) -> Result<(), String> {
        let message = ClientMessage { word: Some(word) };
        self.outgoing.send(message).await.map_err(|_| "the stream is closed".to_owned())
    }

    /// Takes note of who waits for an answer, and gives the number of the request; none where too many wait.
    fn ask(&mut self, asker: Asker) -> Option<u64> {
        self.asked.retain(|_, asker| !asker.is_closed());
        if self.asked.len() >= MAX_ASKED {
            asker.fail(CertificateFault::Away("too many requests wait".to_owned()));
            return None;
        }
        let request = self.next_request;
        self.next_request += 1;
        self.asked.insert(request, asker);
        Some(request)
    }

    async fn grant(&mut self, wish: Wish) -> Result<(), String> {
        match wish {
            Wish::Certificate { identity, signing_request, answer } => {
                let Some(request) = self.ask(Asker::Certificate(answer)) else { return Ok(()) };
                let identity = identity.to_string();
                let asked = CertificateRequest { request, identity, signing_request };
                self.say(ClientWord::CertificateRequest(asked)).await
            }
            Wish::Say { answer, .. } if self.version < ANNOUNCING => {
                let message = format!("it speaks version {}, which knows no announcements", self.version);
                let fault = CertificateFault::Refused { code: RefusalCode::Version, message };
                Asker::Said(answer).fail(fault);
                Ok(())
            }
            Wish::Say { said, answer } => {
                let Some(request) = self.ask(Asker::Said(answer)) else { return Ok(()) };
                let word = match said {
                    Said::Announce(event) => ClientWord::Announce(Announce { request, event }),
                    Said::Withdraw(origin) => ClientWord::Withdraw(Withdraw { request, origin }),
                };
                self.say(word).await
            }
            Wish::Follow { narrow, resume, events } => {
                // Positions of another hub's store mean nothing here.
                if resume.as_ref().is_some_and(|point| point.epoch != self.epoch) {
                    let gap = RegistryError::Gap("this hub has another store".to_owned());
                    let _heard = events.try_send(Err(gap));
                    return Ok(());
                }
                // Nor does having come so far through another part.
                let part = narrow.as_ref().map_or(0, Narrow::digest);
                if resume.as_ref().is_some_and(|point| point.part != part) {
                    let gap =
                        RegistryError::Gap("another part of the hub's services was followed".to_owned());
                    let _heard = events.try_send(Err(gap));
                    return Ok(());
                }
                let subscription = self.next_subscription;
                self.next_subscription += 1;
                let mut point = resume.clone().unwrap_or_default();
                (point.epoch, point.life, point.part) = (self.epoch.clone(), self.life.clone(), part);
                self.leave().await?;
                self.following = Some(Following { subscription, point, events, waiting: VecDeque::new() });
                let resume = resume.map(|point| point.to_message());
                let (namespaces, services) = narrow.map(|narrow| narrow.named()).unwrap_or_default();
                let registries = Vec::new();
                let asked = Subscribe { subscription, registries, resume, namespaces, services };
                self.say(ClientWord::Subscribe(asked)).await
            }
        }
    }

    async fn hear(
        &mut self,
        message: ServerMessage,
        outlets: &Outlets,
        sight: &mut Sight,
    ) -> Result<(), String> {
        self.count(&message)?;
        match message.word.ok_or("the hub said a word that this agent does not know")? {
            ServerWord::Welcome(_) => return Err("the hub welcomed us twice".to_owned()),
            ServerWord::Bundles(pushed) => {
                let read = pushed.bundles.into_iter().map(read_bundle).collect::<Result<Arc<[_]>, _>>()?;
                outlets.bundles.send_replace(read);
            }
            ServerWord::RegistryStates(told) => {
                let read = told.registries.into_iter().map(RelayedState::from_message);
                let registries: Vec<_> = read.collect::<Result<_, _>>().map_err(|fault| fault.to_string())?;
                let is_away = |state: &RelayedState| state.down_for.is_some();
                sight.note(registries.is_empty() || !registries.iter().all(is_away));
                let states = RelayedStates { told_at: SystemTime::now(), registries };
                outlets.relayed.send_replace(Some(Arc::new(states)));
            }
            ServerWord::Certificate(certificate) => {
                if let Some(Asker::Certificate(answer)) = self.asked.remove(&certificate.request) {
                    let _heard = answer.send(Ok(certificate.chain));
                }
            }
            ServerWord::Announced(announced) => {
                if let Some(Asker::Said(answer)) = self.asked.remove(&announced.request) {
                    let _heard = answer.send(Ok(()));
                }
            }
            ServerWord::Refusal(refusal) => return self.refused(refusal).await,
            ServerWord::Discovery(batch) => return self.take(message.sequence, batch).await,
        }
        Ok(())
    }

    async fn refused(&mut self, refusal: Refusal) -> Result<(), String> {
        let code = refusal.code();
        if let Some(asker) = self.asked.remove(&refusal.request) {
            asker.fail(CertificateFault::Refused { code, message: refusal.message.clone() });
            // Only a new handshake shows the certificate that was renewed meanwhile.
            return if code == RefusalCode::StaleCertificate { Err(refusal.message) } else { Ok(()) };
        }
        if code == RefusalCode::ResumeUnknown {
            if let Some(following) = &self.following {
                let _heard = following.events.try_send(Err(RegistryError::Gap(refusal.message)));
            }
            return self.leave().await;
        }
        if refusal.request == 0 { Err(refusal.message) } else { Ok(()) }
    }

    /// Takes a batch of discovery in; one of an earlier subscription is only acknowledged.
    async fn take(&mut self, sequence: u64, batch: Discovery) -> Result<(), String> {
        let ours = self.following.as_mut().filter(|ours| ours.subscription == batch.subscription);
        let Some(following) = ours else { return self.acknowledge(sequence).await };
        match read_batch(&mut following.point, &batch) {
            Ok(events) => following.waiting.push_back((sequence, events)),
            Err(fault) => {
                // Certificates do not wait for words that make sense: the registry alone is tried again.
                let fault = RegistryError::Malformed(fault.to_string());
                let _heard = following.events.try_send(Err(fault));
                self.following = None;
                return self.acknowledge(sequence).await;
            }
        }
        let window = usize::try_from(WINDOW).unwrap_or(usize::MAX);
        if following.waiting.len() > window { Err("the hub overran the window".to_owned()) } else { Ok(()) }
    }

    /// Follows no more. What still waits is passed over, and the hub must not wait for it: its window would stay full.
    async fn leave(&mut self) -> Result<(), String> {
        let following = self.following.take();
        match following.and_then(|following| following.waiting.back().map(|(sequence, _)| *sequence)) {
            Some(sequence) => self.acknowledge(sequence).await,
            None => Ok(()),
        }
    }

    /// Everything up to this message was taken over, or is of no use any more.
    async fn acknowledge(&self, sequence: u64) -> Result<(), String> {
        self.say(ClientWord::Acknowledge(Acknowledge { sequence })).await
    }

    /// Messages count without gaps.
    fn count(&mut self, message: &ServerMessage) -> Result<(), String> {
        self.sequence += 1;
        if message.sequence == self.sequence {
            Ok(())
        } else {
            Err(format!("message {} came where {} was due", message.sequence, self.sequence))
        }
    }

    fn fail_all(&mut self, reason: &str) {
        for (_, asker) in self.asked.drain() {
            asker.fail(CertificateFault::Away(reason.to_owned()));
        }
        if let Some(following) = self.following.take() {
            let _heard = following.events.try_send(Err(RegistryError::Unreachable(reason.to_owned())));
        }
    }
}

/// What the node holds, when that is another thing than before; none when it will not change any more. Never ends where
/// nothing is told.
async fn changed(report: &mut Option<watch::Receiver<NodeReport>>) -> Option<NodeReport> {
    match report {
        Some(report) => report.changed().await.ok().map(|()| report.borrow_and_update().clone()),
        None => std::future::pending().await,
    }
}

/// Ends then; never where there is no such time.
async fn out_of_patience(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Hands the next event on as soon as it is wanted; gives the number of a batch that is through, or none when nobody
/// follows any more. Never ends while there is nothing to hand on. May be dropped at any time.
async fn hand_on(following: &mut Option<Following>) -> Option<u64> {
    let Some(following) = following else { return std::future::pending().await };
    loop {
        match following.waiting.front_mut() {
            None => {
                following.events.closed().await;
                return None;
            }
            Some((sequence, events)) if events.is_empty() => {
                let sequence = *sequence;
                following.waiting.pop_front();
                return Some(sequence);
            }
            Some((_, events)) => {
                let place = following.events.reserve().await.ok()?;
                if let Some(event) = events.pop_front() {
                    place.send(Ok(event));
                }
            }
        }
    }
}

/// The events of a batch, with the resume point that each commit stands for.
fn read_batch(point: &mut ResumePoint, batch: &Discovery) -> Result<VecDeque<Event>, ControlError> {
    let scope = read_scope(batch)?;
    let read = |encoded: &Bytes| {
        Ok(match read_event(&scope, encoded)? {
            Relayed::Event(event) => event,
            Relayed::Commit { position, age } => {
                point.advance(&scope, position);
                Event::Commit { scope: scope.clone(), resume: Some(point.to_resume()), age }
            }
        })
    };
    batch.events.iter().map(read).collect()
}

fn read_bundle(bundle: weft_core::control::message::Bundle) -> Result<Bundle, String> {
    let domain = TrustDomain::new(&bundle.trust_domain).map_err(|fault| fault.to_string())?;
    let roots = bundle.roots.into_iter().map(|root| CertificateDer::from(root.to_vec()));
    Bundle::new(domain, roots).map_err(|fault| format!("a bundle of the hub: {fault}"))
}

fn status_fault(status: &Status) -> String {
    if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() }
}
