//! The configuration that a follower holds: what was heard of it, who bears the catalog's names, and what was told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use weft_core::{
    identity::TrustDomain,
    name::OriginName,
    registry::RegistryError,
    resource::{AppProtocol, PrincipalMatch},
};

use super::{
    bearers::Bearers,
    client::{Client, DefaultIntention},
    configuration::{self, Configuration, Part},
    hiding::Hiding,
    known::Known,
};
use crate::{
    names,
    told::{Listing, Words},
};

/// How many destinations are remembered that a policy for all of them was told for.
const MAX_DESTINATIONS: usize = 20_000;

/// What outlives a stream. An agent that knows policies keeps them whatever becomes of its rights and of the entries they
/// were made of; one that knows none yet must not be told that there are none. So that is told apart, by process.
#[derive(Clone, Debug, Default)]
pub(super) struct Understood(Arc<Mutex<Option<Kept>>>);

#[derive(Clone, Debug)]
struct Kept {
    heard: Configuration,
    default_intention: DefaultIntention,
    destinations: BTreeSet<String>,
    doubted: BTreeSet<OriginName>,
}

#[derive(Debug, Default)]
pub(super) struct Configured {
    heard: Configuration,
    bearers: Bearers,
    /// Whether who no intention mentions may call nothing, by the file's word: then services without any have a policy too.
    is_closed: bool,
    /// Services that have a policy though no intention is for them alone. One that is in no catalog any more may still run, and
    /// its port is open.
    destinations: BTreeSet<String>,
    /// What may be a policy, made no sense when this process first saw it, and has not done so since.
    doubted: BTreeSet<OriginName>,
    told: BTreeSet<OriginName>,
    /// What is being told.
    telling: BTreeSet<OriginName>,
    /// Whether something is other than it was told.
    changed: bool,
    default_deny: bool,
    default_intention: DefaultIntention,
    /// Whether it could not be read again: what was read last counts.
    is_unread: bool,
    understood: Understood,
}

impl Configured {
    /// Goes on from what was understood; of a registry that may name these identities.
    pub(super) fn new(understood: Understood, may_name: Option<Vec<PrincipalMatch>>) -> Self {
        let kept = understood.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (heard, destinations, doubted, default_intention) =
            kept.map(|it| (it.heard, it.destinations, it.doubted, it.default_intention)).unwrap_or_default();
        let bearers = Bearers::new(may_name);
        Self { heard, destinations, doubted, default_intention, understood, bearers, ..Self::default() }
    }

    /// Of a file that says whether services are closed which no intention is for.
    #[must_use]
    pub(super) fn closed(self, is_closed: bool) -> Self {
        Self { is_closed, ..self }
    }

    /// Whether all of it was heard once, by this process.
    pub(super) fn is_understood(&self) -> bool {
        self.understood.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Forgets who the instances of services are: all of them are about to be read.
    pub(super) fn begin(&mut self) {
        self.bearers.clear();
    }

    /// Takes a list. Services whose protocol it changes may have changed themselves.
    pub(super) fn hear(&mut self, part: Part, list: Vec<Value>, default_deny: bool, known: &mut Known) {
        let before = self.heard.clone();
        self.heard.take(part, list);
        let differs = before != self.heard;
        self.changed |= differs || self.default_deny != default_deny;
        self.default_deny = default_deny;
        if differs && matches!(part, Part::Defaults | Part::ProxyDefaults) {
            known.mark(|service| before.protocol(service) != self.heard.protocol(service));
        }
    }

    /// Finds out what decides where no intention does (`said` is the file's word), and that nothing is hidden that may be a
    /// policy: who was told of none yet would let everybody in. Who was told keeps what he knows.
    ///
    /// # Errors
    /// Names what is lacking to see all policies.
    pub(super) async fn check_policies(
        &mut self,
        client: &Client,
        hiding: &Hiding,
        said: Option<bool>,
    ) -> Result<(), RegistryError> {
        self.decide_by_default(match said {
            Some(allowed) => DefaultIntention::Said(allowed),
            None => client.default_intention().await?,
        });
        if self.is_understood() {
            return Ok(());
        }
        if let Some(first) = hiding.sight().lacking_for_configuration() {
            let message = format!("the token lacks {first}: without it, policies might be missing");
            return Err(RegistryError::Denied(message));
        }
        let hides = |part: &Part| hiding.is_filtered(part.path());
        match [Part::Intentions, Part::Pairs].iter().find(|part| hides(part)) {
            Some(part) => Err(RegistryError::Denied(format!(
                "Consul leaves something out of {} for want of rights: policies might be missing",
                part.path()
            ))),
            None => Ok(()),
        }
    }

    /// Takes what decides about callers that no intention mentions.
    pub(super) fn decide_by_default(&mut self, default: DefaultIntention) {
        self.is_unread = default == DefaultIntention::Unreadable;
        let keeps = self.is_unread && matches!(self.default_intention, DefaultIntention::Said(_));
        if !keeps {
            self.changed |= self.default_intention != default;
            self.default_intention = default;
        }
    }

    /// What a person should know of what decides about callers that no intention mentions: where it may let in whom Consul
    /// does not.
    pub(super) fn notice(&self) -> Option<String> {
        let lacks = "the token may not read the agent's default_intention_policy (agent read): who no intention mentions may call";
        match self.default_intention {
            DefaultIntention::Unreadable if !self.default_deny => {
                Some(format!("{lacks}, as access control's default says; `default_intention` decides it"))
            }
            DefaultIntention::Said(allowed) if self.is_unread => {
                let not = if allowed { "" } else { " not" };
                Some(format!("{lacks}{not}, as it said last; `default_intention` decides it"))
            }
            _ => self.notice_of_open(),
        }
    }

    /// How many services Consul lets nobody call and we do, because no intention is for them; none where none is.
    fn notice_of_open(&self) -> Option<String> {
        if self.is_closed || self.allows_by_default() {
            return None;
        }
        let mut open = self.bearers.services().filter(|name| !self.heard.selects(name));
        let example = open.next()?;
        let count = 1 + open.count();
        Some(format!(
            "no intention is for {count} services, such as {}: Consul's default is to deny, and here who may call them is not \
             limited; `default_intention = \"deny\"` limits it",
            names::quoted(example)
        ))
    }

    /// Whether who no intention mentions may call what intentions are for.
    fn allows_by_default(&self) -> bool {
        match self.default_intention {
            DefaultIntention::Said(allowed) => allowed,
            DefaultIntention::Unsaid | DefaultIntention::Unreadable => !self.default_deny,
        }
    }

    /// What Consul declares that a service speaks.
    pub(super) fn protocol(&self, service: &str) -> Option<AppProtocol> {
        self.heard.protocol(service)
    }

    /// Takes what a service says: who its instances are.
    pub(super) fn note(&mut self, service: &str, words: Option<&Words>) {
        self.changed |= self.bearers.note(service, words);
    }

    /// Takes what a part of a service says.
    pub(super) fn note_part(&mut self, service: &str, words: &Words) {
        self.changed |= self.bearers.note_part(service, words);
    }

    /// Whether something is other than it was told.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// All origins as they are now, and those that were told and are gone. They are told when [`Self::note_told`] says so.
    /// What may be a policy and made no sense from the beginning denies what it may be there to deny: with nothing to keep,
    /// that would be allowed. What loses its sense later, or comes without any, is kept as it was.
    pub(super) fn tell(&mut self, trust_domain: Option<&TrustDomain>) -> (Listing, Vec<OriginName>) {
        let selects_all = self.is_closed || self.heard.selects_all();
        if selects_all {
            let more = self.bearers.services().filter(|name| !self.destinations.contains(*name));
            let room = MAX_DESTINATIONS.saturating_sub(self.destinations.len());
            let more: Vec<String> = more.take(room).map(str::to_owned).collect();
            self.destinations.extend(more);
        } else {
            self.destinations.clear();
        }
        let destinations = self.destinations.iter().map(String::as_str).chain(self.bearers.services());
        let destinations = destinations.filter(|_| selects_all);
        let allowed = self.allows_by_default() && !self.is_closed;
        let is_first = !self.is_understood();
        let is_doubted = |origin: &OriginName| is_first || self.doubted.contains(origin);
        let listing = self.heard.listing(destinations, &self.bearers, trust_domain, allowed, is_doubted);
        self.doubted =
            configuration::unclear(&listing).filter(|origin| is_doubted(origin)).cloned().collect();
        if self.changed || is_first {
            let (heard, destinations) = (self.heard.clone(), self.destinations.clone());
            let (doubted, default_intention) = (self.doubted.clone(), self.default_intention);
            let kept = Kept { heard, destinations, doubted, default_intention };
            *self.understood.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        }
        self.telling = listing.keys().cloned().collect();
        let gone = self.told.difference(&self.telling).cloned().collect();
        (listing, gone)
    }

    /// Takes note that what [`Self::tell`] returned last is told.
    pub(super) fn note_told(&mut self) {
        self.told = std::mem::take(&mut self.telling);
        self.changed = false;
    }
}
