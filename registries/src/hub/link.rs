//! The one stream between an agent and its hub.
//!
//! Four things share it: certificates and announcements (asked for and answered), trust bundles (pushed), discovery
//! (followed). None can
//! hold up another: answers and bundles are handed on as they come, discovery waits in a queue that the protocol's window
//! bounds, and discovery that cannot be read ends its subscription, not the stream. When the stream breaks, all that was asked fails with a reason and the link connects again by itself,
//! after a pause with jitter, so that ten thousand agents do not come back in the same second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use weft_core::{
    control::{NodeReport, RelayedState, ResumePoint, message::RefusalCode},
    identity::SpiffeId,
    name::RegistryName,
    registry::{Event, RegistryError},
    tls::{Bundle, TlsContext},
};

use super::{
    session::{self, Ended},
    sight::Sight,
};
use crate::narrow::Narrow;

/// The first pause before connecting again; it doubles up to [`LONGEST_PAUSE`]. Of each, a part from a half on is taken at
/// random.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause before connecting again: an agent is back within five seconds, and ten thousand of them come back over
/// two, of which none costs a hub that is away more than a refused connection.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// The longest pause while a certificate is about to end, as a part of the time that it has left. So a hub that comes
/// back finds an agent in time however short certificates live, and those of a day cost it a try in ten seconds.
const PAUSE_SHARE: u32 = 8;
/// How long an answer is waited for on a stream that stands.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a hub may be away before that is worth a warning. Who begins when it is away already has said by then that he
/// follows.
const BORNE: Duration = Duration::from_secs(3);
/// How many wishes may wait for the link.
const WISHES: usize = 64;

/// What a link needs.
#[derive(Clone)]
pub struct LinkConfig {
    /// Where the hubs are, `host:port` each, in the order in which they are tried; at least one.
    pub addresses: Arc<[String]>,
    /// The node's own identity, which is in the credentials of `tls`.
    pub node: SpiffeId,
    /// The node's name.
    pub node_name: String,
    /// Who is trusted, and the node's certificate, which may be renewed meanwhile.
    pub tls: Arc<TlsContext>,
    /// What the node holds: told to the hub after each welcome and when it changes. None for who only looks: to the hub the
    /// node is there no more than before.
    pub report: Option<watch::Receiver<NodeReport>>,
}

/// How the registries are that the hub follows, as it last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayedStates {
    /// When it told.
    pub told_at: SystemTime,
    /// One per registry.
    pub registries: Vec<RelayedState>,
}

/// How the link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Not yet connected for the first time.
    Connecting,
    /// A hub welcomed us.
    Connected {
        /// Which one, as configured.
        hub: Arc<str>,
        /// Since when.
        since: SystemTime,
        /// What the hub says this node may be, beside itself.
        granted: Arc<[SpiffeId]>,
        /// The registries that the hub relays, most authoritative first.
        registries: Arc<[RegistryName]>,
    },
    /// The hub does not answer, or refuses.
    Away {
        /// Since when; repeated failures keep the first time.
        since: SystemTime,
        /// The last reason.
        reason: String,
    },
}

/// Why the hub did not give or take what it was asked for: a certificate, an announcement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// The stream is not there or broke; ask again later.
    #[error("the hub is away: {0}")]
    Away(String),
    /// The hub says no.
    #[error("the hub refuses: {message}")]
    Refused {
        /// Why.
        code: RefusalCode,
        /// In words, naming what was refused.
        message: String,
    },
}

impl CertificateFault {
    /// Whether asking again soon may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        !matches!(
            self,
            Self::Refused {
                code: RefusalCode::NotGranted | RefusalCode::Malformed | RefusalCode::Version,
                ..
            }
        )
    }
}

/// What an agent has to say of its local services.
pub(super) enum Said {
    /// One is announced: an encoded event.
    Announce(Bytes),
    /// One is withdrawn, by its key.
    Withdraw(String),
}

/// What others want of the link.
pub(super) enum Wish {
    Certificate {
        identity: SpiffeId,
        signing_request: Bytes,
        answer: oneshot::Sender<Result<Vec<Bytes>, CertificateFault>>,
    },
    /// Answered when the hub has it on its disk.
    Say { said: Said, answer: oneshot::Sender<Result<(), CertificateFault>> },
    Follow {
        /// What is wanted, where that is not everything.
        narrow: Option<Narrow>,
        resume: Option<ResumePoint>,
        events: mpsc::Sender<Result<Event, RegistryError>>,
    },
}

/// A handle on the stream. Cheap to clone; the stream ends with [`HubLink::stop`] or when the runtime does.
#[derive(Clone)]
pub struct HubLink {
    wishes: mpsc::Sender<Wish>,
    state: watch::Receiver<LinkState>,
    bundles: watch::Receiver<Arc<[Bundle]>>,
    relayed: watch::Receiver<Option<Arc<RelayedStates>>>,
    /// Whether there is another hub to go to.
    has_others: bool,
    /// How many registries are followed over it.
    watched: Arc<AtomicUsize>,
    task: Arc<JoinHandle<()>>,
}

/// Held by a registry that is followed over the link, on a stream or between two: that its hub is lost is warned of by who
/// follows it.
pub(super) struct Watched(Arc<AtomicUsize>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a session puts what the hub says of itself.
pub(super) struct Outlets {
    pub(super) state: watch::Sender<LinkState>,
    pub(super) bundles: watch::Sender<Arc<[Bundle]>>,
    pub(super) relayed: watch::Sender<Option<Arc<RelayedStates>>>,
}

impl HubLink {
    /// Connects, and stays connected, on the runtime that this is called on.
    #[must_use]
    pub fn start(config: LinkConfig) -> Self {
        let (wishes, wanted) = mpsc::channel(WISHES);
        let (state, state_reader) = watch::channel(LinkState::Connecting);
        let (bundles, bundle_reader) = watch::channel(Arc::from([]));
        let (relayed, relayed_reader) = watch::channel(None);
        let has_others = config.addresses.len() > 1;
        let watched = Arc::<AtomicUsize>::default();
        let task = tokio::spawn(keep(config, wanted, Outlets { state, bundles, relayed }, watched.clone()));
        let task = Arc::new(task);
        Self {
            wishes,
            state: state_reader,
            bundles: bundle_reader,
            relayed: relayed_reader,
            has_others,
            watched,
            task,
        }
    }

    /// From here on until it is dropped somebody follows a registry.
    pub(super) fn watched(&self) -> Watched {
        self.watched.fetch_add(1, Ordering::Relaxed);
        Watched(self.watched.clone())
    }

    /// Whether several hubs are named, so that the loss of one need be none.
    pub(super) fn has_others(&self) -> bool {
        self.has_others
    }

    /// How the link is; may be waited on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// The trust bundles, all of them, as last pushed; none before the first push.
    #[must_use]
    pub fn bundles(&self) -> watch::Receiver<Arc<[Bundle]>> {
        self.bundles.clone()
    }

    /// How the hub's registries are, as last told; none before the first word, and while the hub is away.
    #[must_use]
    pub fn relayed(&self) -> watch::Receiver<Option<Arc<RelayedStates>>> {
        self.relayed.clone()
    }

    /// Asks for a certificate. Waits for the link where it is about to connect, not where the hub is away.
    ///
    /// # Errors
    /// When the hub is away or refuses.
    pub async fn certificate(
        &self,
        identity: SpiffeId,
        signing_request: Bytes,
    ) -> Result<Vec<Bytes>, CertificateFault> {
        let (answer, answered) = oneshot::channel();
        self.asked(Wish::Certificate { identity, signing_request, answer }, answered).await
    }

    /// Announces a local service, and waits until the hub has it on its disk.
    pub(super) async fn announce(&self, event: Bytes) -> Result<(), CertificateFault> {
        self.say(Said::Announce(event)).await
    }

    /// Withdraws what was announced under this key.
    pub(super) async fn withdraw(&self, key: String) -> Result<(), CertificateFault> {
        self.say(Said::Withdraw(key)).await
    }

    async fn say(&self, said: Said) -> Result<(), CertificateFault> {
        let (answer, answered) = oneshot::channel();
        self.asked(Wish::Say { said, answer }, answered).await
    }

    /// Asks, and waits for the answer.
    async fn asked<T>(
        &self,
        wish: Wish,
        answered: oneshot::Receiver<Result<T, CertificateFault>>,
    ) -> Result<T, CertificateFault> {
        let gone = || CertificateFault::Away("the link has ended".to_owned());
        self.wishes.send(wish).await.map_err(|_| gone())?;
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(gone())),
            Err(_elapsed) => {
                let reason = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
                Err(CertificateFault::Away(reason))
            }
        }
    }

    /// Follows discovery from `resume` on, of a part where one is named. The channel ends after its first error; a later call ends an earlier one.
    pub(super) async fn follow(
        &self,
        narrow: Option<Narrow>,
        resume: Option<ResumePoint>,
    ) -> mpsc::Receiver<Result<Event, RegistryError>> {
        let (events, followed) = mpsc::channel(64);
        // When the link has ended, the channel is closed, which says so.
        let _sent = self.wishes.send(Wish::Follow { narrow, resume, events }).await;
        followed
    }

    /// Ends the stream.
    pub fn stop(&self) {
        self.task.abort();
    }
}

/// What was tried in vain since a stream broke that had stood for [`BORNE`]. A hub that welcomes and breaks at once, again
/// and again, is no better than one that is away.
struct Outage {
    began: Instant,
    tried: usize,
    /// Whether it was warned of.
    is_told: bool,
}

impl Outage {
    fn begin() -> Self {
        Self { began: Instant::now(), tried: 0, is_told: false }
    }

    /// One outage is one warning, however often it is tried meanwhile; and it is none before all hubs were tried, nor where a
    /// registry is followed: its driver warns that it is lost, with the same reason.
    fn note(&mut self, hub: &str, reason: &str, hubs: usize, is_watched: bool) {
        self.tried += 1;
        let is_worth_it = self.tried >= hubs && self.began.elapsed() >= BORNE;
        if is_worth_it && !self.is_told && !is_watched {
            self.is_told = true;
            tracing::warn!(%reason, %hub, "no stream to the hub");
        } else if self.tried == 1 && (hubs == 1 || !is_watched) {
            tracing::info!(%reason, %hub, "no stream to the hub");
        } else {
            tracing::debug!(%reason, %hub, "no stream to the hub still");
        }
    }
}

/// Connects, serves the stream until it breaks, pauses, and begins again, each time at the next hub.
async fn keep(
    config: LinkConfig,
    mut wanted: mpsc::Receiver<Wish>,
    outlets: Outlets,
    watched: Arc<AtomicUsize>,
) {
    let mut pause = FIRST_PAUSE;
    let mut tried = 0;
    let mut sight = Sight::default();
    let mut outage = Outage::begin();
    // A hub is left when it fails, or sees nothing for long, not because another one is there again.
    for hub in config.addresses.iter().cycle() {
        let Ended { reason, stood } = session::run(&config, hub, &mut wanted, &outlets, &mut sight).await;
        if wanted.is_closed() && wanted.is_empty() {
            return;
        }
        if stood.is_some_and(|stood| stood >= BORNE) {
            outage = Outage::begin();
        }
        outage.note(hub, &reason, config.addresses.len(), watched.load(Ordering::Relaxed) > 0);
        outlets.relayed.send_replace(None);
        outlets.state.send_modify(|state| match state {
            LinkState::Away { reason: last, .. } => last.clone_from(&reason),
            state => *state = LinkState::Away { since: SystemTime::now(), reason: reason.clone() },
        });
        let longest = config
            .report
            .as_ref()
            .map_or(LONGEST_PAUSE, |report| longest_pause(&report.borrow(), SystemTime::now()));
        // A hub that welcomes and at once ends the stream must not be asked five times a second.
        let was_good = stood.is_some_and(|stood| stood > longest);
        pause = if was_good { FIRST_PAUSE } else { pause.min(longest) };
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        // The pause grows when all were tried: while one is left that may be well there is no reason to wait longer.
        tried = if was_good { 1 } else { tried + 1 };
        if tried >= config.addresses.len() {
            tried = 0;
            pause *= 2;
        }
        if !refuse_for(jittered, &mut wanted, &reason).await {
            return;
        }
    }
}

/// How long to pause at most, so that the certificate that ends first is renewed in time. Where it is too late, there is
/// no hurry.
fn longest_pause(report: &NodeReport, now: SystemTime) -> Duration {
    let ends = report.certificates.iter().map(|held| held.not_after).min();
    match ends.map(|ends| ends.duration_since(now)) {
        Some(Ok(left)) => (left / PAUSE_SHARE).clamp(FIRST_PAUSE, LONGEST_PAUSE),
        Some(Err(_)) | None => LONGEST_PAUSE,
    }
}

/// Answers every wish with the reason why the hub is away, for as long as the pause lasts; false when nobody is left
/// who could wish.
async fn refuse_for(pause: Duration, wanted: &mut mpsc::Receiver<Wish>, reason: &str) -> bool {
    let end = Instant::now() + pause;
    loop {
        match tokio::time::timeout_at(end, wanted.recv()).await {
            Err(_) => return true,
            Ok(None) => return false,
            Ok(Some(wish)) => wish.fail(reason),
        }
    }
}

impl Wish {
    /// Says that the hub is away. Whoever no longer waits does not hear it.
    pub(super) fn fail(self, reason: &str) {
        match self {
            Self::Certificate { answer, .. } => {
                let _heard = answer.send(Err(CertificateFault::Away(reason.to_owned())));
            }
            Self::Say { answer, .. } => {
                let _heard = answer.send(Err(CertificateFault::Away(reason.to_owned())));
            }
            Self::Follow { events, .. } => {
                let _heard = events.try_send(Err(RegistryError::Unreachable(reason.to_owned())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_core::control::HeldCertificate;

    use super::*;

    #[test]
    fn pauses_are_as_short_as_the_certificate_that_ends_first_asks_for() {
        let now = SystemTime::now();
        let seconds = Duration::from_secs;
        let held = |left: u64| HeldCertificate {
            identity: SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/web").unwrap(),
            serial: String::new(),
            not_after: now + seconds(left),
            root: None,
        };
        let longest = |left: &[u64]| {
            let certificates = left.iter().map(|left| held(*left)).collect();
            longest_pause(&NodeReport { roots: Vec::new(), certificates }, now)
        };
        assert_eq!(longest(&[86_400]), LONGEST_PAUSE);
        assert_eq!(longest(&[86_400, 16]), seconds(2));
        assert_eq!(longest(&[1]), FIRST_PAUSE);
        assert_eq!(longest(&[]), LONGEST_PAUSE);
        let over = NodeReport { roots: Vec::new(), certificates: vec![held(0)] };
        assert_eq!(longest_pause(&over, now + seconds(1)), LONGEST_PAUSE);
    }
}
