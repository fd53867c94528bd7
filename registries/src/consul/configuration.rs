//! What Consul holds beside its catalog: config entries and the keys below `weft/`. Pure.
//!
//! Each route, each destination of intentions and each key is an origin. The kinds of entries refer to each other and to
//! the services' identities, so all of it is made anew when any of it changes: there are few, and what says the same is
//! told once.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use serde_json::Value;
use weft_core::{
    config::SourceFile,
    identity::TrustDomain,
    name::{DEFAULT_NAMESPACE, OriginName},
    registry::OriginFault,
    resource::{AppProtocol, PolicyTarget, Resource},
};

use super::{
    bearers::Bearers,
    chain::Chains,
    entries::{Defaults, Intentions, Pair},
    intentions::{self, Callers},
};
use crate::{
    names, speaking,
    static_files::{origin_fault, read_resources},
    told::{Listing, Words, bounded},
    withheld,
};

/// Where configuration of ours lies in KV.
pub const PREFIX: &str = "weft/";
/// The folders of a mesh's records in a store that hubs share.
pub const HUB_FOLDERS: [&str; 8] =
    ["announced", "check", "nodes", "owners", "present", "reports", "serials", "tokens"];

/// What every entry has, and the protocol, which is read.
const OF_ENTRIES: [&str; 9] =
    ["Kind", "Name", "Protocol", "Namespace", "Partition", "Meta", "CreateIndex", "ModifyIndex", "Hash"];

/// A list of configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `service-defaults`.
    Defaults,
    /// `proxy-defaults`.
    ProxyDefaults,
    /// `service-resolver`.
    Resolvers,
    /// `service-splitter`.
    Splitters,
    /// `service-router`.
    Routers,
    /// `service-intentions`.
    Intentions,
    /// KV below [`PREFIX`].
    Pairs,
}

/// What was heard last of every list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    protocols: BTreeMap<String, String>,
    default_protocol: String,
    chains: Chains,
    intentions: BTreeMap<String, Intentions>,
    pairs: BTreeMap<String, Vec<u8>>,
    /// What else `service-defaults` say, by service.
    ignored: BTreeMap<String, Vec<String>>,
    /// Entries that cannot be read, by origin.
    unreadable: BTreeMap<(Part, String), String>,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Defaults,
        Self::ProxyDefaults,
        Self::Resolvers,
        Self::Splitters,
        Self::Routers,
        Self::Intentions,
        Self::Pairs,
    ];

    /// Where it is asked for.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Defaults => "/v1/config/service-defaults",
            Self::ProxyDefaults => "/v1/config/proxy-defaults",
            Self::Resolvers => "/v1/config/service-resolver",
            Self::Splitters => "/v1/config/service-splitter",
            Self::Routers => "/v1/config/service-router",
            Self::Intentions => "/v1/config/service-intentions",
            Self::Pairs => "/v1/kv/weft/?recurse=true",
        }
    }
}

impl Configuration {
    /// Takes a list. An entry that cannot be read is told and leaves the others alone; what it said before stays.
    pub fn take(&mut self, part: Part, list: Vec<Value>) {
        self.unreadable.retain(|(of, _), _| *of != part);
        match part {
            Part::Defaults => {
                self.ignored = list.iter().filter_map(ignored).collect();
                let read = self.read::<Defaults>(part, list);
                let spoken = read.into_iter().filter(|(_, it)| !it.protocol.is_empty());
                let mut now: BTreeMap<_, _> = spoken.map(|(name, it)| (name, it.protocol)).collect();
                self.keep(part, &self.protocols, &mut now);
                self.protocols = now;
            }
            Part::ProxyDefaults => {
                let read = self.read::<Defaults>(part, list);
                if self.unreadable.contains_key(&(part, "global".to_owned())) {
                    return;
                }
                let global = read.get("global").and_then(|it| it.config.get("protocol"));
                self.default_protocol = global.and_then(Value::as_str).unwrap_or_default().to_owned();
            }
            Part::Resolvers => self.reread(part, list, |it| &mut it.chains.resolvers),
            Part::Splitters => self.reread(part, list, |it| &mut it.chains.splitters),
            Part::Routers => self.reread(part, list, |it| &mut it.chains.routers),
            Part::Intentions => self.reread(part, list, |it| &mut it.intentions),
            Part::Pairs => {
                let mut now = self.read_pairs(list);
                self.keep(part, &self.pairs, &mut now);
                self.pairs = now;
            }
        }
    }

    /// Reads entries that are kept as they are.
    fn reread<T: Clone + serde::de::DeserializeOwned>(
        &mut self,
        part: Part,
        list: Vec<Value>,
        entries: impl Fn(&mut Self) -> &mut BTreeMap<String, T>,
    ) {
        let mut now = self.read(part, list);
        let before = std::mem::take(entries(self));
        self.keep(part, &before, &mut now);
        *entries(self) = now;
    }

    /// Takes over what entries said that cannot be read any more.
    fn keep<T: Clone>(&self, part: Part, before: &BTreeMap<String, T>, now: &mut BTreeMap<String, T>) {
        let unreadable = self.unreadable.keys().filter(|(of, _)| *of == part);
        let kept = unreadable.filter_map(|(_, name)| Some((name.clone(), before.get(name)?.clone())));
        now.extend(kept);
    }

    fn read<T: serde::de::DeserializeOwned>(&mut self, part: Part, list: Vec<Value>) -> BTreeMap<String, T> {
        let mut read = BTreeMap::new();
        for entry in list {
            let name = entry["Name"].as_str().unwrap_or_default().to_ascii_lowercase();
            match serde_json::from_value(entry) {
                Ok(entry) => drop(read.insert(name, entry)),
                Err(error) => drop(self.unreadable.insert((part, name), error.to_string())),
            }
        }
        read
    }

    fn read_pairs(&mut self, list: Vec<Value>) -> BTreeMap<String, Vec<u8>> {
        let mut pairs = BTreeMap::new();
        for entry in list {
            let Ok(Pair { key, value }) = serde_json::from_value(entry) else { continue };
            // A key that ends with a slash is a folder.
            let Some(name) = key.strip_prefix(PREFIX).filter(|name| !name.is_empty() && !name.ends_with('/'))
            else {
                continue;
            };
            match BASE64.decode(value.unwrap_or_default().as_bytes()) {
                Ok(bytes) => drop(pairs.insert(name.to_owned(), bytes)),
                Err(error) => drop(self.unreadable.insert((Part::Pairs, name.to_owned()), error.to_string())),
            }
        }
        pairs
    }

    /// Whether an intention is for all destinations, so that each of them has a policy.
    #[must_use]
    pub fn selects_all(&self) -> bool {
        self.intentions.contains_key("*")
    }

    /// Whether an intention is for this destination, or for all.
    #[must_use]
    pub fn selects(&self, destination: &str) -> bool {
        self.selects_all() || self.intentions.contains_key(destination)
    }

    /// Whether what is said of an entry that cannot be read is what it said before.
    fn is_kept(&self, part: Part, name: &str) -> bool {
        match part {
            // Neither is an origin of its own, whose last words would be lost.
            Part::Defaults | Part::ProxyDefaults => true,
            Part::Resolvers => self.chains.resolvers.contains_key(name),
            Part::Splitters => self.chains.splitters.contains_key(name),
            Part::Routers => self.chains.routers.contains_key(name),
            Part::Intentions => self.intentions.contains_key(name),
            Part::Pairs => self.pairs.contains_key(name),
        }
    }

    /// What Consul declares that a service speaks.
    #[must_use]
    pub fn protocol(&self, service: &str) -> Option<AppProtocol> {
        let declared = self.protocols.get(service).unwrap_or(&self.default_protocol);
        speaking::read_protocol(declared)
    }

    /// All origins. `destinations` are the services that each have a policy, though no intention is for them alone; `is_doubted` says which origins
    /// nobody has known to make sense, so that what they may have been there to deny is denied.
    #[must_use]
    pub fn listing<'a>(
        &'a self,
        destinations: impl Iterator<Item = &'a str>,
        bearers: &Bearers,
        trust_domain: Option<&TrustDomain>,
        allowed_by_default: bool,
        is_doubted: impl Fn(&OriginName) -> bool,
    ) -> Listing {
        let mut listing = Listing::new();
        for service in self.chains.services() {
            let (resources, faults) = self.chains.route(service, |name| bearers.serves(name));
            listing.insert(origin("route", service), Words::new(resources, faults));
        }
        let callers = Callers { bearers, trust_domain, allowed_by_default };
        let named = self.intentions.keys().map(String::as_str);
        let destinations: BTreeSet<&str> = named.chain(destinations).collect();
        for destination in destinations.into_iter().filter(|name| *name != "*") {
            // Where none is for it, the default alone decides.
            let sources = intentions::of(destination, &self.intentions).unwrap_or_default();
            let both = [self.intentions.get(destination), self.intentions.get("*")];
            let jwt = both.into_iter().flatten().any(|it| it.jwt.is_some());
            let (resources, faults) = intentions::policies(destination, &sources, jwt, callers);
            listing.insert(origin("intentions", destination), Words::new(resources, faults));
        }
        for (key, value) in self.pairs.iter().filter(|(key, value)| !is_hubs(key, value, trust_domain)) {
            let origin = origin("kv", key);
            let words = pair(&origin, key, value, is_doubted(&origin));
            listing.insert(origin, words);
        }
        for (name, fields) in &self.ignored {
            let told = format!("{} cannot be expressed here and do not count", fields.join(", "));
            let fault = names::fault(&format!("service-defaults {name}"), told);
            listing.insert(origin("defaults", name), Words::new(Vec::new(), vec![fault]));
        }
        for ((part, name), why) in &self.unreadable {
            self.tell_unreadable(*part, name, why, &is_doubted, &mut listing);
        }
        listing
    }

    fn tell_unreadable(
        &self,
        part: Part,
        name: &str,
        why: &str,
        is_doubted: &impl Fn(&OriginName) -> bool,
        listing: &mut Listing,
    ) {
        let fault = names::fault(&format!("{} {name}", part.path()), why);
        let word = match part {
            Part::Intentions => "intentions",
            Part::Pairs => "kv",
            Part::Defaults | Part::ProxyDefaults => "defaults",
            Part::Resolvers | Part::Splitters | Part::Routers => "route",
        };
        let origin = origin(word, name);
        if self.is_kept(part, name) {
            let words = listing.entry(origin).or_insert_with(|| Words::new(Vec::new(), Vec::new()));
            words.faults.push(fault);
        } else {
            let may_deny = matches!(part, Part::Intentions | Part::Pairs) && is_doubted(&origin);
            let targets = may_deny.then(|| vec![destination(part, name)]);
            // What others say of the same thing, such as an intention for all destinations, goes on to count. As what they
            // say now: with nothing denied, an origin that keeps its last words would not hear of their changes, and there
            // are none of its own to keep.
            let others = listing.remove(&origin).unwrap_or_else(|| Words::new(Vec::new(), Vec::new()));
            let hears_others = part == Part::Intentions && !may_deny;
            let fault = OriginFault { keeps_last_good: !hears_others, ..fault };
            let Words { mut resources, mut faults, .. } = withheld::denying(&origin, targets, vec![fault]);
            resources.extend(others.resources);
            faults.extend(others.faults);
            listing.insert(origin, Words::new(resources, faults));
        }
    }
}

/// What something that cannot be read at all may be there to deny.
fn destination(part: Part, name: &str) -> PolicyTarget {
    let service = match part {
        Part::Intentions => names::service_name(name, DEFAULT_NAMESPACE).ok(),
        _ => None,
    };
    service.map_or(PolicyTarget::Mesh, PolicyTarget::Service)
}

/// What an entry of `service-defaults` says beside the protocol, with its name; none where it says nothing else.
fn ignored(entry: &Value) -> Option<(String, Vec<String>)> {
    let fields =
        entry.as_object()?.iter().filter(|(field, value)| !OF_ENTRIES.contains(&&***field) && says(value));
    let fields: Vec<String> = fields.map(|(field, _)| names::quoted(field)).collect();
    (!fields.is_empty()).then(|| (entry["Name"].as_str().unwrap_or_default().to_ascii_lowercase(), fields))
}

/// Whether a value is other than Consul fills in where nothing is written.
fn says(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => fields.values().any(says),
    }
}

/// What in a listing might hold a policy and makes no sense.
pub fn unclear(listing: &Listing) -> impl Iterator<Item = &OriginName> {
    let decides =
        |origin: &OriginName| ["intentions/", "kv/"].iter().any(|it| origin.as_str().starts_with(it));
    let is_unclear = |words: &Words| words.faults.iter().any(|fault| fault.keeps_last_good);
    listing
        .iter()
        .filter(move |(origin, words)| decides(origin) && is_unclear(words))
        .map(|(origin, _)| origin)
}

/// Whether a key is of a store that hubs share: that of this mesh lies below its trust domain; that of another mesh, or one
/// with a prefix of its own, is known by a trust domain and a folder of records in the key, and a record in the value. No
/// record is a file of resources.
fn is_hubs(key: &str, value: &[u8], trust_domain: Option<&TrustDomain>) -> bool {
    let ours =
        trust_domain.is_some_and(|mesh| key.split('/').next() == Some(mesh.as_str()) && key.contains('/'));
    let parts: Vec<&str> = key.split('/').collect();
    let is_record = |parts: &[&str]| {
        let [mesh, folder, _] = parts else { return false };
        HUB_FOLDERS.contains(folder) && TrustDomain::new(mesh).is_ok()
    };
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(value).is_ok();
    ours || (parts.windows(3).any(is_record) && is_json())
}

fn origin(kind: &str, name: &str) -> OriginName {
    names::origin_name(&[kind, name])
}

/// A key is read as a file of resources is, of which only routes and policies are taken: instances are the catalog's to
/// tell, whose addresses are checked. What cannot be read leaves its last good words in force.
fn pair(origin: &OriginName, key: &str, value: &[u8], is_doubted: bool) -> Words {
    let place = format!("consul kv {PREFIX}{key}");
    let Ok(text) = std::str::from_utf8(value) else {
        let fault = OriginFault { message: "it is not UTF-8".into(), place, keeps_last_good: true };
        // It may be text in another encoding.
        return withheld::denying(origin, is_doubted.then(|| vec![PolicyTarget::Mesh]), vec![fault]);
    };
    let outcome = read_resources(&SourceFile::new(&place, text.to_owned()));
    let faults = |is_bad| outcome.faults.iter().map(move |fault| origin_fault(fault, is_bad)).collect();
    let Some(file) = outcome.value else {
        return withheld::words(origin, text, faults(true), is_doubted);
    };
    let mut faults: Vec<OriginFault> = faults(false);
    let mut resources = Vec::new();
    for found in file.resources {
        match &found.value {
            Resource::Route(_) | Resource::Policy(_) => resources.push(found.value),
            Resource::Service(_) | Resource::Endpoint(_) => faults.push(OriginFault {
                message: format!(
                    "{} is left out: KV holds routes and policies",
                    found.value.key().describe()
                ),
                place: found.place.to_string(),
                keeps_last_good: false,
            }),
        }
    }
    Words::new(resources, bounded(faults))
}
