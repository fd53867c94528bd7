//! Who the callers of a name are: the identities that its instances bear. Pure.
//!
//! An identity counts by who named it. What the file's rules name is the operator's word. What an instance's own record
//! names is the word of whoever may register that service, and that may be anything: it lets callers in as far as the
//! registry may name them (`may_name`); in a denial it counts only where it is nobody else's, or whoever may register a
//! service that is denied something would have another service denied it instead.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::{
    identity::{SpiffeId, TrustDomain},
    name::DEFAULT_NAMESPACE,
    resource::{PrincipalMatch, Resource, Sayer},
};

use crate::told::Words;

/// How many identities of one service are told apart, of each kind.
const MAX_BEARERS: usize = 256;

/// The identities of all services.
#[derive(Clone, Debug, Default)]
pub struct Bearers {
    services: BTreeMap<String, Borne>,
    /// Of how many services each identity is by the file's rules.
    ruled: BTreeMap<SpiffeId, usize>,
    may_name: Option<Vec<PrincipalMatch>>,
}

/// The identities of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Borne {
    /// By the file's rules.
    ruled: BTreeSet<SpiffeId>,
    /// By the records of instances.
    recorded: BTreeSet<SpiffeId>,
    /// Whether there are more of the first than are told apart, and of the second.
    more: (bool, bool),
    /// Whether it has any instances.
    serves: bool,
    /// Whether the platform's own proxies and servers are all that it has, of which nothing is said at all.
    is_left_out: bool,
}

/// Who a service is as a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Whom a permission lets in.
    pub allowed: BTreeSet<SpiffeId>,
    /// Whom a denial is for; none when that cannot be said: it is for everybody then.
    pub denied: Option<BTreeSet<SpiffeId>>,
    /// What a person should know about it.
    pub told: Vec<String>,
}

impl Bearers {
    /// Of a registry that may name these identities; any where nobody says.
    #[must_use]
    pub fn new(may_name: Option<Vec<PrincipalMatch>>) -> Self {
        Self { may_name, ..Self::default() }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.services.clear();
        self.ruled.clear();
    }

    /// Takes what a service says, none when it is gone. Returns whether that is something else than before.
    pub fn note(&mut self, service: &str, words: Option<&Words>) -> bool {
        self.replace(service, words.map(Borne::read))
    }

    /// Takes what a part of a service says: who its instances were before, they may still be. Returns the same.
    pub fn note_part(&mut self, service: &str, words: &Words) -> bool {
        let mut now = Borne::read(words);
        if let Some(before) = self.services.get(service) {
            now.add(before);
        }
        self.replace(service, Some(now))
    }

    fn replace(&mut self, service: &str, now: Option<Borne>) -> bool {
        if now.is_some() && self.services.get(service) == now.as_ref() {
            return false;
        }
        let before = match now {
            Some(now) => {
                for identity in &now.ruled {
                    *self.ruled.entry(identity.clone()).or_default() += 1;
                }
                self.services.insert(service.to_owned(), now)
            }
            None => self.services.remove(service),
        };
        for identity in before.into_iter().flat_map(|before| before.ruled) {
            if let Some(count) = self.ruled.get_mut(&identity) {
                *count -= 1;
                if *count == 0 {
                    self.ruled.remove(&identity);
                }
            }
        }
        true
    }

    /// The services that there are.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().filter(|(_, borne)| !borne.is_left_out).map(|(name, _)| name.as_str())
    }

    /// Whether instances of a service are known.
    #[must_use]
    pub fn serves(&self, service: &str) -> bool {
        self.services.get(service).is_some_and(|borne| borne.serves)
    }

    /// Who a service is as a caller.
    #[must_use]
    pub fn caller(&self, service: &str, trust_domain: Option<&TrustDomain>) -> Caller {
        let none = Borne::default();
        let borne = self.services.get(service).unwrap_or(&none);
        let mut told = Vec::new();
        // A caller that serves nothing is in no catalog. It bears the name that all workloads of this name bear.
        let assumed = trust_domain.and_then(|it| SpiffeId::new(it, DEFAULT_NAMESPACE, service).ok());
        let mut allowed: BTreeSet<_> =
            borne.ruled.union(&borne.recorded).filter(|it| self.may_name(it)).cloned().collect();
        if borne.ruled.is_empty() && borne.recorded.is_empty() {
            allowed.extend(assumed.clone().filter(|it| self.may_name(it)));
            told.extend(assumed.iter().map(|it| format!("no instance says who it is: taken for {it}")));
        }
        let (others, own): (Vec<_>, Vec<_>) = borne
            .recorded
            .iter()
            .filter(|identity| self.may_name(identity))
            .partition(|identity| self.is_anothers(identity, service));
        told.extend(
            others.first().map(|it| {
                format!("its instances say that it is {it}, which is another's: not denied for it")
            }),
        );
        let mut denied: BTreeSet<_> = borne.ruled.iter().chain(own).cloned().collect();
        if borne.ruled.is_empty() {
            denied.extend(assumed);
        }
        if borne.more.1 {
            told.push(format!("its instances name more than {MAX_BEARERS} identities: only those count"));
        }
        if borne.more.0 {
            told.push(format!("rules name more than {MAX_BEARERS} identities: a denial is for everybody"));
        }
        let known = !denied.is_empty() && !borne.more.0;
        Caller { allowed, denied: known.then_some(denied), told }
    }

    fn may_name(&self, identity: &SpiffeId) -> bool {
        PrincipalMatch::admits(self.may_name.as_deref(), identity)
    }

    /// Whether an identity belongs to another service than this one: by a rule, or because it has that one's name.
    fn is_anothers(&self, identity: &SpiffeId, service: &str) -> bool {
        let own = self.services.get(service).is_some_and(|borne| borne.ruled.contains(identity));
        let account = identity.account();
        let by_rule = self.ruled.get(identity).is_some_and(|count| *count > usize::from(own));
        let by_name = identity.namespace() == DEFAULT_NAMESPACE
            && account != service
            && self.services.contains_key(account);
        by_rule || by_name
    }
}

impl Borne {
    fn add(&mut self, other: &Self) {
        self.ruled.extend(other.ruled.iter().cloned());
        self.recorded.extend(other.recorded.iter().cloned());
        self.more = (self.more.0 || other.more.0, self.more.1 || other.more.1);
        self.serves |= other.serves;
        self.is_left_out &= other.is_left_out;
    }

    fn read(words: &Words) -> Self {
        let is_left_out = words.resources.is_empty() && words.faults.is_empty();
        let mut borne = Self { is_left_out, ..Self::default() };
        for resource in &words.resources {
            let Resource::Endpoint(endpoint) = resource else { continue };
            borne.serves = true;
            let Some(identity) = &endpoint.identity else { continue };
            let (known, more) = match endpoint.said_by.identity {
                Sayer::Metadata => (&mut borne.recorded, &mut borne.more.1),
                _ => (&mut borne.ruled, &mut borne.more.0),
            };
            if known.len() < MAX_BEARERS {
                known.insert(identity.clone());
            } else {
                *more |= !known.contains(identity);
            }
        }
        borne
    }
}
