//! One agent's place in the relay: a position per scope, and what is being told. Pure: no clock, no socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use weft_core::{
    control::{
        BATCH, COMMIT_INTERVAL, ControlError, MOST_NAMES, ResumePoint,
        discovery::{encode_commit, encode_ready, encode_reset},
        message::{Discovery, Subscribe},
    },
    name::{Namespace, RegistryName, ServiceName},
    registry::Scope,
};

use weft_registries::narrow::Narrow;

use super::{Piece, RelayState, RelayedScope};
use crate::hub::journal::Past;

/// How far one agent has come.
#[derive(Debug)]
pub struct Follower {
    subscription: u64,
    /// Which registries it wants; none for all.
    wanted: BTreeSet<RegistryName>,
    /// Which services it wants, where that is not all.
    narrow: Option<Narrow>,
    places: BTreeMap<Scope, Place>,
    /// Full lists that were begun. All of them are, before the first one is told: until the last is committed an agent
    /// that starts knows that something is still missing, and keeps its inbound port closed.
    begun: BTreeSet<Scope>,
    telling: Option<Telling>,
}

/// How far it has come in one scope.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    position: u64,
    /// The confirmation that was passed on with the last commit; none when none was.
    confirmed_at: Option<SystemTime>,
}

/// A walk through one scope as it was when the walk began, so that its end is a state that once was.
#[derive(Debug)]
struct Telling {
    scope: Scope,
    relayed: Arc<RelayedScope>,
    /// What lies behind this was told.
    position: u64,
    full: bool,
    /// Whether nothing of it was told so far, nor has to be.
    silent: bool,
}

/// One step of a walk.
struct Walked {
    events: Vec<Bytes>,
    /// Whether it was the last.
    ended: bool,
}

/// Why an agent cannot go on where it ended.
#[derive(Debug, thiserror::Error)]
pub enum ResumeFault {
    /// The point is of another store.
    #[error("the resume point is of another hub's store")]
    Epoch,
    /// What was said since then is no longer known in full.
    #[error("too much has gone from {0} since the resume point")]
    TooOld(Scope),
    /// A registry of the point is relayed no more, which only a full list tells.
    #[error("{0} is relayed no more")]
    Gone(Scope),
    /// The store was set back.
    #[error("the resume point of {0} lies ahead of this hub's store")]
    Ahead(Scope),
    /// The store was set back, and what it has told since then has other positions.
    #[error("the resume point of {0} is of a past that this hub's store was set back from")]
    Lost(Scope),
    /// The subscription cannot be read.
    #[error(transparent)]
    Malformed(#[from] ControlError),
}

impl ResumeFault {
    /// Whether a full list is the cure.
    #[must_use]
    pub fn needs_full_list(&self) -> bool {
        !matches!(self, Self::Malformed(_))
    }
}

impl Follower {
    /// Begins where the subscription says.
    ///
    /// # Errors
    /// When that is not possible without a gap.
    pub fn new(subscribe: Subscribe, past: &Past, state: &RelayState) -> Result<Self, ResumeFault> {
        let named = [&subscribe.registries, &subscribe.namespaces, &subscribe.services];
        let count = named.into_iter().map(Vec::len).sum();
        if count > MOST_NAMES {
            return Err(ControlError::TooMany { field: "names", count }.into());
        }
        let wanted = subscribe.registries.iter().map(|name| RegistryName::new(name));
        let wanted = wanted
            .collect::<Result<_, _>>()
            .map_err(|fault| ControlError::Name { field: "registries", fault })?;
        let namespaces = subscribe.namespaces.iter().map(|name| Namespace::new(name));
        let namespaces = namespaces
            .collect::<Result<Vec<_>, _>>()
            .map_err(|fault| ControlError::Name { field: "namespaces", fault })?;
        let services = subscribe.services.iter().map(|name| ServiceName::new(name));
        let services = services
            .collect::<Result<Vec<_>, _>>()
            .map_err(|fault| ControlError::Name { field: "services", fault })?;
        let mut places = BTreeMap::new();
        if let Some(resume) = subscribe.resume {
            let point = ResumePoint::from_message(resume)?;
            if point.epoch != past.epoch()[..] {
                return Err(ResumeFault::Epoch);
            }
            for (scope, position) in point.positions {
                check_position(state, &scope, position)?;
                if !past.holds(&point.life, position) {
                    return Err(ResumeFault::Lost(scope));
                }
                places.insert(scope, Place { position, confirmed_at: None });
            }
        }
        Ok(Self {
            subscription: subscribe.subscription,
            wanted,
            narrow: Narrow::new(&namespaces, &services),
            places,
            begun: BTreeSet::new(),
            telling: None,
        })
    }

    /// The next batch that this agent should be told, if there is any. `now` is what ages are counted to.
    ///
    /// # Errors
    /// When it fell so far behind that it must take the full list.
    pub fn next_batch(
        &mut self,
        state: &RelayState,
        now: SystemTime,
    ) -> Result<Option<Discovery>, ResumeFault> {
        loop {
            if self.telling.is_none() {
                if let Some(scope) = self.not_begun(state) {
                    let batch = self.batch(&scope, vec![encode_reset()]);
                    self.begun.insert(scope);
                    return Ok(Some(batch));
                }
                self.telling = self.begin(state)?;
            }
            let Some(mut telling) = self.telling.take() else { return Ok(None) };
            let walked = telling.walk(self.narrow.as_ref());
            if !walked.ended {
                let batch = self.batch(&telling.scope, walked.events);
                self.telling = Some(telling);
                return Ok(Some(batch));
            }
            let Telling { scope, relayed, full, silent, .. } = telling;
            let place = self.places.entry(scope.clone()).or_default();
            place.position = relayed.head;
            // What changed may all be of no interest here; then there is nothing to say until a commit is due anyway.
            if silent && walked.events.is_empty() && place.is_fresh(&relayed) {
                continue;
            }
            place.confirmed_at = Some(relayed.confirmed_at);
            let mut events = walked.events;
            if full {
                events.push(encode_ready(relayed.completeness));
            }
            let age = now.duration_since(relayed.confirmed_at).unwrap_or_default();
            events.push(encode_commit(relayed.head, age));
            return Ok(Some(self.batch(&scope, events)));
        }
    }

    fn batch(&self, scope: &Scope, events: Vec<Bytes>) -> Discovery {
        Discovery {
            subscription: self.subscription,
            registry: scope.registry.to_string(),
            part: scope.part.to_string(),
            events,
        }
    }

    fn wanted<'a>(
        &self,
        state: &'a RelayState,
    ) -> impl Iterator<Item = (&'a Scope, &'a Arc<RelayedScope>)> + use<'a, '_> {
        state.scopes.iter().filter(|(scope, _)| self.is_wanted(scope))
    }

    fn is_wanted(&self, scope: &Scope) -> bool {
        self.wanted.is_empty() || self.wanted.contains(&scope.registry)
    }

    /// A scope whose full list is owed and was not begun; it may be long before one that is awaited ends.
    fn not_begun(&self, state: &RelayState) -> Option<Scope> {
        let awaited = state.awaited.iter().filter(|scope| self.is_wanted(scope));
        let mut scopes = awaited.chain(self.wanted(state).map(|(scope, _)| scope));
        scopes.find(|scope| !self.places.contains_key(*scope) && !self.begun.contains(*scope)).cloned()
    }

    /// Chooses a scope that has something to say.
    fn begin(&self, state: &RelayState) -> Result<Option<Telling>, ResumeFault> {
        for (scope, relayed) in self.wanted(state) {
            let (position, full) = match self.places.get(scope) {
                None => (0, true),
                Some(place) if place.is_current(relayed) => continue,
                Some(place) => {
                    check_position(state, scope, place.position)?;
                    (place.position, false)
                }
            };
            let (scope, relayed) = (scope.clone(), relayed.clone());
            return Ok(Some(Telling { scope, relayed, position, full, silent: !full }));
        }
        Ok(None)
    }
}

impl Place {
    /// Nothing changed, and the last commit is still fresh.
    fn is_current(&self, relayed: &RelayedScope) -> bool {
        self.position == relayed.head && self.is_fresh(relayed)
    }

    fn is_fresh(&self, relayed: &RelayedScope) -> bool {
        let fresh = |told: SystemTime| {
            relayed.confirmed_at.duration_since(told).is_ok_and(|since| since < COMMIT_INTERVAL)
                || relayed.confirmed_at <= told
        };
        self.confirmed_at.is_some_and(fresh)
    }
}

impl Telling {
    /// Goes on until a batch is full, or to the end.
    fn walk(&mut self, narrow: Option<&Narrow>) -> Walked {
        let mut events = Vec::new();
        let mut size = 0;
        for (position, piece) in self.relayed.log.range((Bound::Excluded(self.position), Bound::Unbounded)) {
            if size >= BATCH {
                self.silent = false;
                return Walked { events, ended: false };
            }
            self.position = *position;
            if is_told(piece, narrow) && !(self.full && piece.gone) {
                size += piece.event.len();
                events.push(piece.event.clone());
            }
        }
        Walked { events, ended: true }
    }
}

/// Whether somebody is told of a piece who asked for that part.
fn is_told(piece: &Piece, narrow: Option<&Narrow>) -> bool {
    let wanted = |narrow: &Narrow| piece.service.as_ref().is_none_or(|name| narrow.includes_service(name));
    narrow.is_none_or(wanted)
}

fn check_position(state: &RelayState, scope: &Scope, position: u64) -> Result<(), ResumeFault> {
    match state.scopes.get(scope) {
        Some(relayed) if position < relayed.complete_after => Err(ResumeFault::TooOld(scope.clone())),
        Some(relayed) if position > relayed.head => Err(ResumeFault::Ahead(scope.clone())),
        // One that was not confirmed since the hub began will be.
        _ if state.registries.contains(&scope.registry) => Ok(()),
        _ => Err(ResumeFault::Gone(scope.clone())),
    }
}
