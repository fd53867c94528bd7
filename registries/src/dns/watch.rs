//! When to ask what: each question again when its answer's time has passed, at once when somebody has fallen silent.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
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
    answers::{Answers, Failure, Kind, Known, Question, Said},
    convert::{Outcome, View, convert, origin},
    resolver::Resolver,
    settings::{DnsSettings, Mode},
};
use crate::{
    http_client::{growing_pause, jittered},
    names,
    told::{Listing, Told, Words},
};

/// How many questions are asked at once.
const AT_ONCE: usize = 16;
/// How many of them may be such as brought nothing the last time.
const FAILING_AT_ONCE: usize = 8;
/// How soon a question is asked again that brought nothing, the first time and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long silence lasts, after its first sign, before it is taken for the server's.
const SILENT: Duration = Duration::from_secs(2);
/// How many questions that were answered are asked again when one meets silence.
const WITNESSES: usize = 3;
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

type Asked = (Question, Said, Option<Duration>);

struct Follow {
    settings: DnsSettings,
    resolver: Resolver,
    told: Told,
    memory: Memory,
    answers: Answers,
    /// When the first list of the registry was told.
    told_at: Option<Instant>,
    /// When each question is asked next; none while it is asked.
    next: BTreeMap<Question, Option<Instant>>,
    /// How often each question brought nothing, one time after the other.
    failed: BTreeMap<Question, u32>,
    asked: FuturesUnordered<BoxFuture<'static, Asked>>,
    /// Since when there was silence and not one answer.
    silent_since: Option<Instant>,
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
            next: BTreeMap::new(),
            failed: BTreeMap::new(),
            asked: FuturesUnordered::new(),
            silent_since: None,
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
            if follow.silent_since.is_some() {
                follow.is_outage()?;
            }
        }
        follow.is_outage()?;
        follow.tell();
        Ok(follow)
    }

    async fn next(&mut self) -> Result<Event, RegistryError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(event);
            }
            let due = self.ask_those_due(|_| true).unwrap_or(self.confirm_at);
            tokio::select! {
                Some(asked) = self.asked.next() => self.hear(asked).await?,
                () = sleep_until(due.min(self.confirm_at)) => {}
            }
            if Instant::now() < self.confirm_at {
                continue;
            }
            if self.silent_since.is_none() {
                // In doubt, a list is told again until it is believed.
                self.tell();
            } else {
                // Nothing is confirmed that nobody answers for.
                self.confirm_at = Instant::now() + jittered(CONFIRM);
            }
        }
    }

    /// Takes an answer, and those that come with it.
    async fn hear(&mut self, asked: Asked) -> Result<(), RegistryError> {
        let before = self.answers.known.clone();
        self.take(asked);
        let until = Instant::now() + GATHER;
        loop {
            self.ask_those_due(|_| true);
            tokio::select! {
                Some(asked) = self.asked.next() => self.take(asked),
                () = sleep_until(until) => break,
            }
        }
        self.is_outage()?;
        if !self.says_the_same_as(&before) {
            self.tell();
        }
        Ok(())
    }

    /// Whether nothing was learnt but that it is still so.
    fn says_the_same_as(&self, before: &BTreeMap<Question, Known>) -> bool {
        let is_same = |((one, known), (other, was)): ((&Question, &Known), (&Question, &Known))| {
            one == other && known.stands == was.stands && known.failure == was.failure
        };
        let now = &self.answers.known;
        now.len() == before.len() && now.iter().zip(before).all(is_same)
    }

    fn take(&mut self, (question, said, ttl): Asked) {
        let is_silence = matches!(&said, Said::Failed(Failure { is_silence: true, .. }));
        let Some(next) = self.next.get_mut(&question) else { return };
        let known = self.answers.known.entry(question.clone()).or_default();
        // Which hosts offer a service is all that more questions follow from.
        let offered = (question.1 == Kind::Srv).then(|| known.stands.clone());
        known.take(said, Instant::now().into_std());
        let offers_others = offered.is_some_and(|offered| offered != known.stands);
        let wait = if known.failure.is_some() {
            let times = self.failed.entry(question.clone()).or_default();
            *times = times.saturating_add(1);
            growing_pause(AGAIN, *times - 1)
        } else {
            self.failed.remove(&question);
            // A little later than its time: whoever keeps answers has a new one then.
            let ttl = ttl.unwrap_or(self.settings.min_ttl);
            let ttl = ttl.clamp(self.settings.min_ttl, self.settings.max_ttl);
            ttl + ttl.mul_f64(fastrand::f64() / 10.0)
        };
        let now = Instant::now();
        *next = Some(now + wait);
        if !is_silence {
            self.silent_since = None;
        } else if self.silent_since.is_none() {
            self.silent_since = Some(now);
            // Has the server fallen silent, or is it this name's? Others know, and a few of them are enough.
            let failed = &self.failed;
            let answered = self.next.iter_mut().filter(|(question, _)| !failed.contains_key(*question));
            for next in answered.filter_map(|(_, next)| next.as_mut()).take(WITNESSES) {
                *next = (*next).min(now);
            }
        }
        if offers_others {
            self.want();
        }
    }

    /// Whether nothing that was asked is answered any more, be it that much was not asked lately.
    fn is_outage(&self) -> Result<(), RegistryError> {
        if let Some(since) = self.silent_since.filter(|since| since.elapsed() >= SILENT) {
            let message = format!("no question was answered for {:.0} s", since.elapsed().as_secs_f64());
            return Err(RegistryError::Unreachable(message));
        }
        let mut failures = Vec::new();
        for question in self.next.keys() {
            match self.answers.known.get(question).and_then(|known| known.failure.as_ref()) {
                Some(failure) => failures.push((question, failure)),
                None => return Ok(()),
            }
        }
        let Some(((name, _), failure)) = failures.first() else { return Ok(()) };
        let message = format!("no question is answered, such as for {name}: {}", failure.why);
        Err(match failures.iter().all(|(_, failure)| failure.is_refusal) {
            true => RegistryError::Denied(message),
            false => RegistryError::Unreachable(message),
        })
    }

    /// Begins and ends asking, by what is wanted now.
    fn want(&mut self) {
        let wanted = self.answers.wanted(&self.settings.followed);
        self.next.retain(|question, _| wanted.contains(question));
        self.failed.retain(|question, _| wanted.contains(question));
        self.answers.known.retain(|question, _| wanted.contains(question));
        for question in wanted {
            self.next.entry(question).or_insert_with(|| Some(Instant::now()));
        }
    }

    /// Asks what is due and may be asked, what waited longest first. Those that are never answered do not hold up others.
    /// Returns when to come again, none when that is up to an answer.
    fn ask_those_due(&mut self, mut may_be_asked: impl FnMut(&Question) -> bool) -> Option<Instant> {
        if self.asked.len() >= AT_ONCE {
            return None;
        }
        let now = Instant::now();
        let is_asked = |(question, next): &(&Question, &Option<Instant>)| {
            next.is_none() && self.failed.contains_key(*question)
        };
        let mut failing = self.next.iter().filter(is_asked).count();
        let mut due: Vec<_> =
            self.next.iter_mut().filter(|(_, next)| next.is_some_and(|next| next <= now)).collect();
        // Names of one zone stand side by side, and a zone falls silent as a whole.
        fastrand::shuffle(&mut due);
        due.sort_by_key(|(_, next)| **next);
        for (question, next) in due {
            if self.asked.len() >= AT_ONCE {
                break;
            }
            let has_failed = self.failed.contains_key(question);
            if (has_failed && failing >= FAILING_AT_ONCE) || !may_be_asked(question) {
                continue;
            }
            failing += usize::from(has_failed);
            *next = None;
            let (resolver, question) = (self.resolver.clone(), question.clone());
            self.asked.push(Box::pin(async move {
                let (said, ttl) = resolver.ask(&question).await;
                (question, said, ttl)
            }));
        }
        if self.asked.len() >= AT_ONCE {
            return None;
        }
        let all_failing = failing >= FAILING_AT_ONCE;
        let others =
            self.next.iter().filter(|(question, _)| !(all_failing && self.failed.contains_key(*question)));
        others.filter_map(|(_, next)| *next).min()
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
        let view = View { answers: &self.answers, used: &self.used, patient, now: now.into_std() };
        for followed in &self.settings.followed {
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
        self.queue.extend(self.told.tell(listing, Completeness::Full, std::time::Instant::now()));
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
