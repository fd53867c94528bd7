//! The configuration that a follower holds: what was heard of it, who bears the catalog's names, and what was told.

use std::collections::BTreeSet;

use serde_json::Value;
use weft_core::{
    identity::{SpiffeId, TrustDomain},
    name::OriginName,
    resource::{AppProtocol, Resource},
};

use super::{
    configuration::{Configuration, Part},
    intentions::Bearers,
    known::Known,
};
use crate::told::{Listing, Words};

/// How many identities of one service are told apart.
const MAX_BEARERS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Configured {
    heard: Configuration,
    bearers: Bearers,
    told: BTreeSet<OriginName>,
    /// Whether something is other than it was told.
    changed: bool,
    default_deny: bool,
}

impl Configured {
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

    /// What Consul declares that a service speaks.
    pub(super) fn protocol(&self, service: &str) -> Option<AppProtocol> {
        self.heard.protocol(service)
    }

    /// Takes what a service says: who its instances are.
    pub(super) fn note(&mut self, service: &str, words: Option<&Words>) {
        let identities =
            words.into_iter().flat_map(|words| &words.resources).filter_map(|resource| match resource {
                Resource::Endpoint(endpoint) => endpoint.identity.clone(),
                _ => None,
            });
        let now: BTreeSet<SpiffeId> = identities.take(MAX_BEARERS).collect();
        let before = match words {
            Some(_) => self.bearers.insert(service.to_owned(), now.clone()),
            None => self.bearers.remove(service),
        };
        self.changed |= before.is_none_or(|before| before != now) || words.is_none();
    }

    /// Whether something is other than it was told.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// All origins as they are now, and those that were told and are gone; taken for told.
    pub(super) fn tell(&mut self, trust_domain: Option<&TrustDomain>) -> (Listing, Vec<OriginName>) {
        self.changed = false;
        let services = self.bearers.keys().map(String::as_str);
        let listing = self.heard.listing(services, &self.bearers, trust_domain, !self.default_deny);
        let now: BTreeSet<OriginName> = listing.keys().cloned().collect();
        let gone = self.told.difference(&now).cloned().collect();
        self.told = now;
        (listing, gone)
    }
}
