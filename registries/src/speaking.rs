//! Which endpoints of another platform's catalog speak mesh, on which port and as whom.
//!
//! One set of rules for every platform. An instance says so itself, in its record, under the [`keys`]; or the file that
//! names the registry says so, for one service ([`Rule`] of `[[registry.service]]`) or for all of them. Who must answer
//! is decided in this order:
//!
//! 1. the platform, where it gives each workload an account that others cannot take (a pod's service account);
//! 2. the file's rule for the service: the operator's word;
//! 3. the instance's record;
//! 4. the file's rule for the registry.
//!
//! What is found so is further limited by `may_name`. Invariants: the record of an instance never allows plaintext, the
//! file alone does (`tls`); a record that says half of it, or something unreadable, leaves the endpoint out of use with
//! a fault, and never in plaintext. What an instance speaks is asked of the same record: where that cannot be read, nobody
//! knows how to call it, and it is out of use too.

pub mod keys;
mod rule;

use std::borrow::Cow;

use weft_core::{
    config::Section,
    identity::{SpiffeId, TrustDomain},
    name::{ServiceName, ServicePattern},
    resource::{Address, AppProtocol, SaidBy, Sayer, TlsMode},
};

pub use rule::{Template, TlsRule};

use rule::Rule;

/// What a registry's section says about its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// For all services.
    registry: Rule,
    /// For some; the first whose pattern fits a service is asked.
    services: Vec<(ServicePattern, Rule)>,
    /// Whether endpoints may be this very host.
    pub allow_loopback: bool,
}

/// What is known of one instance.
#[derive(Clone, Copy)]
pub struct Instance<'a> {
    /// The service it belongs to.
    pub service: &'a ServiceName,
    /// Its application's address, which its agent shares.
    pub address: &'a Address,
    /// Who it is by the platform's own word, where the platform has such a word.
    pub platform: Option<&'a SpiffeId>,
    /// Its record: the value of a key.
    pub record: &'a dyn Fn(&str) -> Option<&'a str>,
    /// What could not be read that may name its mesh port, as the middle of a sentence; none when all was read.
    pub unread: Option<&'a str>,
    /// What is wrong with the keys of its record ([`keys::strays`]): each may have been its mesh port.
    pub strays: &'a [String],
    /// What a rule's template may name, such as `job`, `node` or `account`; `service` and `namespace` are always known.
    pub words: &'a [(&'a str, &'a str)],
}

impl<'a> Instance<'a> {
    /// One that its record alone speaks for: its platform has no word of its own, and all of the record was read. `strays` is
    /// what is wrong with the record's keys.
    #[must_use]
    pub fn recorded(
        service: &'a ServiceName,
        address: &'a Address,
        record: &'a dyn Fn(&str) -> Option<&'a str>,
        strays: &'a [String],
    ) -> Self {
        Self { service, address, platform: None, record, unread: None, strays, words: &[] }
    }
}

/// How an endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaks {
    /// Where its agent takes mesh traffic.
    pub mesh_address: Option<Address>,
    /// Who must answer there.
    pub identity: Option<SpiffeId>,
    /// Who said so.
    pub said_by: SaidBy,
    /// Whether plaintext is allowed.
    pub tls: TlsMode,
    /// What is wrong with the record.
    pub faults: Vec<String>,
}

impl Rules {
    /// Reads `tls`, `identity`, `mesh_port`, `protocol`, `allow_loopback` and `[[registry.service]]` of a registry's
    /// section. `words` are those that a template may name beside `service` and `namespace`.
    #[must_use]
    pub fn read(section: &Section<'_>, words: &[&'static str]) -> Option<Self> {
        let registry = Rule::read(section, words);
        let services: Vec<Option<_>> = section
            .sections("service")
            .iter()
            .map(|service| {
                let expected = "the services it is for, such as name = \"web.default\" or \"*.default\"";
                let pattern: Option<ServicePattern> = service.require("name", expected);
                let rule = Rule::read(service, words);
                Some((pattern?, rule?))
            })
            .collect();
        let allow_loopback = section.read_or("allow_loopback", false);
        Some(Self {
            registry: registry?,
            services: services.into_iter().collect::<Option<_>>()?,
            allow_loopback,
        })
    }

    /// What a service's ports speak where the platform says nothing: HTTP unless the file says otherwise.
    #[must_use]
    pub fn protocol(&self, service: &ServiceName) -> AppProtocol {
        self.rule(service).and_then(|rule| rule.protocol).or(self.registry.protocol).unwrap_or_default()
    }

    /// Whether the file has a rule for just this service.
    #[must_use]
    pub fn names(&self, service: &ServiceName) -> bool {
        self.services.iter().any(|(pattern, _)| pattern.is_exactly(service))
    }

    /// What the file says that a service's ports speak, if it does.
    #[must_use]
    pub fn declared_protocol(&self, service: &ServiceName) -> Option<AppProtocol> {
        self.rule(service).and_then(|rule| rule.protocol)
    }

    /// How an instance is reached. `trust_domain` completes templates that name none.
    #[must_use]
    pub fn speaks(&self, instance: Instance<'_>, trust_domain: Option<&TrustDomain>) -> Speaks {
        let mut faults = instance.strays.to_vec();
        let rule = self.rule(instance.service);
        let (tls, tls_from) =
            self.ruled(rule, |rule| rule.tls).unwrap_or((TlsRule::default(), Sayer::Default));
        let unreached = |tls, faults| Speaks {
            mesh_address: None,
            identity: None,
            said_by: SaidBy { tls: tls_from, ..SaidBy::default() },
            tls,
            faults,
        };
        let spoken =
            (instance.record)(keys::PROTOCOL).filter(|_| rule.is_none_or(|it| it.protocol.is_none()));
        if spoken.is_some_and(|text| read_protocol(text).is_none()) {
            faults.push(format!("it is out of use: {} does not say how it is called", keys::PROTOCOL));
            let spoken = unreached(TlsMode::Required, faults);
            return Speaks { said_by: SaidBy::all(Sayer::Metadata), ..spoken };
        }
        if tls == TlsRule::Off {
            return unreached(TlsMode::Off, faults);
        }
        let (port, port_from) = self.mesh_port(rule, &instance, &mut faults);
        let (identity, identity_from) = self.identity(rule, &instance, trust_domain, &mut faults);
        let mesh_address = port.map(|port| (instance.address.socket().ip(), port).into());
        // Half a record is one that lost a tag: in the mesh, and out of use until it is whole.
        let halved = match (mesh_address.is_some(), identity.is_some()) {
            (true, false) => (port_from == Sayer::Metadata)
                .then_some("it names a mesh port and nobody who must answer there"),
            (false, true) if identity_from == Sayer::Metadata => {
                Some("it names an identity and no mesh port")
            }
            _ => None,
        };
        faults.extend(halved.map(str::to_owned));
        if tls == TlsRule::Preferred && faults.is_empty() && mesh_address.is_none() && identity.is_some() {
            faults.extend(
                instance.unread.map(|what| {
                    format!("{what}, which may name the mesh port: it is not called in plaintext")
                }),
            );
        }
        let meshed = mesh_address.is_some() && identity.is_some();
        if tls == TlsRule::Preferred && !meshed && faults.is_empty() {
            return unreached(TlsMode::Off, faults);
        }
        let said_by = SaidBy { identity: identity_from, mesh_address: port_from, tls: tls_from };
        Speaks { mesh_address, identity, said_by, tls: TlsMode::Required, faults }
    }

    fn rule(&self, service: &ServiceName) -> Option<&Rule> {
        self.services.iter().find(|(pattern, _)| pattern.fits(service)).map(|(_, rule)| rule)
    }

    /// What the file says of something, and by which of its rules: the one for the service, else the one for the registry.
    fn ruled<T>(&self, rule: Option<&Rule>, what: impl Fn(&Rule) -> Option<T>) -> Option<(T, Sayer)> {
        let by_service = rule.and_then(&what).map(|said| (said, Sayer::ServiceRule));
        by_service.or_else(|| what(&self.registry).map(|said| (said, Sayer::RegistryRule)))
    }

    /// The mesh port, and who names it.
    fn mesh_port(
        &self,
        rule: Option<&Rule>,
        instance: &Instance<'_>,
        faults: &mut Vec<String>,
    ) -> (Option<u16>, Sayer) {
        match (instance.record)(keys::MESH_PORT).map(|text| (text, text.parse::<u16>())) {
            None => self
                .ruled(rule, |rule| rule.mesh_port)
                .map_or((None, Sayer::Default), |(port, by)| (Some(port), by)),
            Some((_, Ok(port))) if port != 0 => (Some(port), Sayer::Metadata),
            Some((text, _)) => {
                faults.push(format!(
                    "{} is {}, which is no port",
                    keys::MESH_PORT,
                    crate::names::quoted(text)
                ));
                (None, Sayer::Metadata)
            }
        }
    }

    fn identity(
        &self,
        rule: Option<&Rule>,
        instance: &Instance<'_>,
        trust_domain: Option<&TrustDomain>,
        faults: &mut Vec<String>,
    ) -> (Option<SpiffeId>, Sayer) {
        let mut told = |found: Result<SpiffeId, String>| found.map_err(|fault| faults.push(fault)).ok();
        let recorded = (instance.record)(keys::IDENTITY).map(|text| {
            SpiffeId::parse(text)
                .map_err(|error| format!("{}: {}", keys::IDENTITY, shortened(&error.to_string())))
        });
        // What a record says beside one who knows better does not count, and is told.
        let beside = |known: &SpiffeId, whose: &str| match &recorded {
            Some(Ok(recorded)) if recorded != known => {
                Some(format!("{} is {recorded}; {whose} says {known}, which stands", keys::IDENTITY))
            }
            Some(Err(fault)) => Some(fault.clone()),
            _ => None,
        };
        if let Some(platform) = instance.platform {
            if let Some(fault) = beside(platform, "the platform") {
                drop(told(Err(fault)));
            }
            return (Some(platform.clone()), Sayer::Platform);
        }
        let made = |template: &Template| template.fill(instance, trust_domain);
        if let Some(template) = rule.and_then(|rule| rule.identity.as_ref()) {
            let ruled = told(made(template));
            if let Some(fault) = ruled.as_ref().and_then(|ruled| beside(ruled, "the rule")) {
                drop(told(Err(fault)));
            }
            return (ruled, Sayer::ServiceRule);
        }
        if let Some(recorded) = recorded {
            return (told(recorded), Sayer::Metadata);
        }
        let ruled = self.registry.identity.as_ref().and_then(|template| told(made(template)));
        (ruled, Sayer::RegistryRule)
    }
}

/// What a record says of an instance beside how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// What the application speaks.
    pub protocol: Option<AppProtocol>,
    /// Its relative share of requests.
    pub weight: Option<u16>,
    /// Where it runs.
    pub locality: Option<weft_core::locality::Locality>,
    /// What is wrong with it: the faulty values were left out.
    pub faults: Vec<String>,
}

impl Recorded {
    /// Reads the record's other keys.
    #[must_use]
    pub fn read<'a>(record: &dyn Fn(&str) -> Option<&'a str>) -> Self {
        let mut faults = Vec::new();
        let mut wrong = |key: &str, text: &str, what: &str| {
            faults.push(format!("{key} is {}, which is {what}", crate::names::quoted(text)));
        };
        let protocol = record(keys::PROTOCOL).and_then(|text| {
            let known = read_protocol(text);
            if known.is_none() {
                wrong(keys::PROTOCOL, text, "none of http, http2, grpc and tcp");
            }
            known
        });
        let weight = record(keys::WEIGHT).and_then(|text| {
            text.parse().map_err(|_| wrong(keys::WEIGHT, text, "no number from 0 to 65535")).ok()
        });
        let locality = record(keys::LOCALITY).and_then(|text| {
            let read = weft_core::locality::Locality::new(text);
            read.map_err(|error| wrong(keys::LOCALITY, text, &format!("no locality: {}", error.reason))).ok()
        });
        Self { protocol, weight, locality, faults }
    }
}

/// Reads a protocol's word as platforms write it.
#[must_use]
pub fn read_protocol(text: &str) -> Option<AppProtocol> {
    match text.to_ascii_lowercase().as_str() {
        "http" | "http1" | "http/1.1" => Some(AppProtocol::Http),
        "http2" | "h2c" | "kubernetes.io/h2c" => Some(AppProtocol::Http2),
        "grpc" => Some(AppProtocol::Grpc),
        "tcp" => Some(AppProtocol::Tcp),
        _ => None,
    }
}

/// A protocol's word under [`keys::PROTOCOL`].
#[must_use]
pub fn protocol_word(protocol: AppProtocol) -> &'static str {
    match protocol {
        AppProtocol::Http => "http",
        AppProtocol::Http2 => "http2",
        AppProtocol::Grpc => "grpc",
        AppProtocol::Tcp => "tcp",
    }
}

fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests;
