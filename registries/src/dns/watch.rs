//! Asking what is due, and telling what is new of the answers. What fails is told once it is clear that it is the name that
//! fails: of a server that is lost, the end of the stream is all there is to say.

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_core::{Stream, future::BoxFuture};
use futures_util::{
    StreamExt, TryFutureExt,
    stream::{FuturesUnordered, try_unfold},
};
use tokio::time::{Instant, sleep_until};
use weft_core::{
    merge::BELIEVED_AFTER,
    name::OriginName,
    registry::{Completeness, Event, OriginFault, RegistryError, Scope},
    resource::Resource,
};

use super::{
    answers::{Answers, Kind, Known, Question, Said},
    convert::{Outcome, View, convert, origin},
    questions::Questions,
    resolver::Resolver,
    settings::{DnsSettings, Mode, Source},
};
use crate::{
    http_client::jittered,
    names,
    told::{Listing, Told, Words},
};

/// How often what is still true is confirmed.
const CONFIRM: Duration = Duration::from_secs(8);
/// How long answers that come together are gathered.
const GATHER: Duration = Duration::from_millis(10);
const NOTICES: &str = "dns";

/// What is remembered over all watches of a registry: an outage ends a stream, and takes nothing away. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<Remembered>>);

#[derive(Clone, Debug, Default)]
struct Remembered {
    answers: Answers,
    /// When the first list was told.
    told_at: Option<Instant>,
}

impl Memory {
    fn read(&self) -> Remembered {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether nothing was learnt since but that it is still so.
    fn says_the_same_as(&self, answers: &Answers) -> bool {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, now) = (&remembered.answers.known, &answers.known);
        let is_same = |((one, known), (other, was)): ((&Question, &Known), (&Question, &Known))| {
            one == other && known.stands == was.stands && known.failure == was.failure
        };
        now.len() == told.len() && now.iter().zip(told).all(is_same)
    }

    fn write(&self, remembered: Remembered) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = remembered;
    }
}

/// Follows names until its consumer has enough.
pub(super) fn follow(
    settings: DnsSettings,
    scope: Scope,
    memory: Memory,
) -> impl Stream<Item = Result<Event, RegistryError>> {
    // An error ends the stream; the driver watches again.
    let begun = Follow::begin(settings, scope, memory).map_ok(|follow| {
        try_unfold(Box::new(follow), |mut follow| async move { Ok(Some((follow.next().await?, follow))) })
    });
    begun.try_flatten_stream()
}

/// What was asked, when, what was said to it, and how long that holds.
type Asked = (Question, Instant, Said, Option<Duration>);

struct Follow {
    settings: DnsSettings,
    resolver: Resolver,
    told: Told,
    memory: Memory,
    answers: Answers,
    /// When the first list of the registry was told.
    told_at: Option<Instant>,
    questions: Questions,
    asked: FuturesUnordered<BoxFuture<'static, Asked>>,
    /// Addresses that logical endpoints have.
    used: BTreeSet<IpAddr>,
    confirm_at: Instant,
    queue: VecDeque<Event>,
}

impl Follow {
    /// Asks everything once and queues the full list.
    async fn begin(settings: DnsSettings, scope: Scope, memory: Memory) -> Result<Self, RegistryError> {
        let Remembered { answers, told_at } = memory.read();
        let mut follow = Self {
            resolver: Resolver::new(&settings.resolvers)?,
            told: Told::new(scope),
            memory,
            answers,
            told_at,
            questions: Questions::default(),
            asked: FuturesUnordered::new(),
            used: BTreeSet::new(),
            confirm_at: Instant::now() + jittered(CONFIRM),
            queue: VecDeque::new(),
            settings,
        };
        // Each question once: what is not answered now is asked again beside all others.
        let mut asked_once = BTreeSet::new();
        follow.want();
        loop {
            follow.ask_those_due(|question| asked_once.insert(question.clone()));
            let Some(asked) = follow.asked.next().await else { break };
            follow.take(asked);
            if follow.questions.began_in_silence() {
                return Err(follow.lost());
            }
        }
        if !follow.questions.has_answers() {
            return Err(follow.lost());
        }
        follow.tell();
        Ok(follow)
    }

    async fn next(&mut self) -> Result<Event, RegistryError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(event);
            }
            let due = self.ask_those_due(|_| true).unwrap_or(self.confirm_at);
            let until = due.min(self.confirm_at).min(self.questions.decided_at().unwrap_or(due));
            tokio::select! {
                Some(asked) = self.asked.next() => self.hear(asked).await,
                () = sleep_until(until) => {}
            }
            if self.questions.is_lost(Instant::now()) {
                return Err(self.lost());
            }
            if self.questions.in_doubt().is_none() && !self.memory.says_the_same_as(&self.answers) {
                self.tell();
            }
            if Instant::now() < self.confirm_at {
                continue;
            }
            if self.questions.in_doubt().is_none() {
                // In doubt, a list is told again until it is believed.
                self.tell();
            } else {
                // Nothing is confirmed that nobody answers for.
                self.confirm_at = Instant::now() + jittered(CONFIRM);
            }
        }
    }

    /// Takes an answer, and those that come with it.
    async fn hear(&mut self, asked: Asked) {
        self.take(asked);
        let until = Instant::now() + GATHER;
        loop {
            self.ask_those_due(|_| true);
            tokio::select! {
                Some(asked) = self.asked.next() => self.take(asked),
                () = sleep_until(until) => break,
            }
        }
    }

    fn take(&mut self, (question, asked_at, said, ttl): Asked) {
        if !self.questions.contains(&question) {
            return;
        }
        let now = Instant::now();
        let known = self.answers.known.entry(question.clone()).or_default();
        // Which hosts offer a service is all that more questions follow from.
        let offered = (question.1 == Kind::Srv).then(|| known.stands.clone());
        known.take(said, now.into_std());
        let offers_others = offered.is_some_and(|offered| offered != known.stands);
        if let Some(failure) = &known.failure {
            self.questions.failed(&question, failure.is_silence, now);
        } else {
            // A little later than its time: whoever keeps answers has a new one then.
            let ttl = ttl.unwrap_or(self.settings.min_ttl);
            let ttl = ttl.clamp(self.settings.min_ttl, self.settings.max_ttl);
            let holds = ttl + ttl.mul_f64(fastrand::f64() / 10.0);
            self.questions.answered(&question, asked_at, holds, now);
        }
        if offers_others {
            self.want();
        }
    }

    /// That nobody answers.
    fn lost(&self) -> RegistryError {
        let failure = |question| self.answers.known.get(question)?.failure.as_ref();
        let failing = || self.questions.failing().filter_map(failure);
        let first = self.questions.in_doubt().or_else(|| self.questions.failing().next());
        let such_as = first
            .and_then(|question| Some(format!(", such as for {}: {}", question.0, failure(question)?.why)));
        let message = format!("no question is answered{}", such_as.unwrap_or_default());
        if failing().all(|failure| failure.is_refusal) {
            RegistryError::Denied(message)
        } else {
            RegistryError::Unreachable(message)
        }
    }

    /// Begins and ends asking, by what is wanted now.
    fn want(&mut self) {
        let wanted = self.answers.wanted(&self.settings.followed);
        self.answers.known.retain(|question, _| wanted.contains(question));
        self.questions.want(wanted, Instant::now());
    }

    /// Asks what is due and may be asked. Returns when to come again, none when that is up to an answer.
    fn ask_those_due(&mut self, may_be_asked: impl FnMut(&Question) -> bool) -> Option<Instant> {
        let now = Instant::now();
        let (due, again) = self.questions.due(now, may_be_asked);
        for question in due {
            let resolver = self.resolver.clone();
            self.asked.push(Box::pin(async move {
                let (said, ttl) = resolver.ask(&question).await;
                (question, now, said, ttl)
            }));
        }
        again
    }

    /// Queues what is new, and a commit.
    fn tell(&mut self) {
        self.confirm_at = Instant::now() + jittered(CONFIRM);
        let mut listing = Listing::new();
        let mut gone: Vec<OriginFault> = Vec::new();
        let mut used = BTreeSet::new();
        let now = Instant::now();
        let told_at = *self.told_at.get_or_insert(now);
        self.memory.write(Remembered { answers: self.answers.clone(), told_at: self.told_at });
        let patient = now.duration_since(told_at) < BELIEVED_AFTER;
        let (answers, last_used, now) = (&self.answers, &self.used, now.into_std());
        // Of several services at one host, its name leads to the first that is written.
        let mut hosts = BTreeSet::new();
        for followed in &self.settings.followed {
            let has_its_host = match &followed.source {
                Source::Host(name, _) => hosts.insert(name),
                Source::Service(_) => false,
            };
            let view = View { answers, used: last_used, patient, has_its_host, now };
            let settings = &self.settings;
            let outcome = convert(followed, &view, &settings.rules, settings.trust_domain.as_ref());
            match outcome {
                Outcome::Says(words) => {
                    if followed.mode == Mode::Logical {
                        used.extend(addresses(&words));
                    }
                    listing.insert(origin(followed), words);
                }
                Outcome::Gone => {
                    gone.push(names::fault(followed.service.as_str(), "its name does not exist"));
                }
            }
        }
        self.used = used;
        listing.insert(notices(), Words::new(Vec::new(), gone));
        let events = self.told.tell(listing, Completeness::Full, now);
        let is_news = events.iter().any(|event| !matches!(event, Event::Commit { .. }));
        // That all is as it was is nobody's word while nothing that counts is answered.
        if is_news || self.settings.followed.iter().any(|followed| self.answers.confirm(followed)) {
            self.queue.extend(events);
        }
    }
}

/// The origin of what concerns names that are gone.
pub(super) fn notices() -> OriginName {
    names::origin_name(&[NOTICES])
}

fn addresses(words: &Words) -> impl Iterator<Item = IpAddr> {
    words.resources.iter().filter_map(|resource| match resource {
        Resource::Endpoint(endpoint) => Some(endpoint.address.socket().ip()),
        _ => None,
    })
}
