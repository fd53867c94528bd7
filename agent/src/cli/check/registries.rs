//! `weft check --registry`: a look at the registries that files name, and at the store that hubs share, as an agent or a hub
//! with that file would see them.

use std::{
    collections::HashMap,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use serde::Serialize;
use weft_core::{
    compile::Join,
    config::SourceFile,
    identity::{SpiffeId, TrustDomain},
    name::{RegistryName, ServiceName},
    registry::OriginFault,
};
use weft_registries::{
    Environment, Plan,
    probe::{Probe, probe},
};

use super::{hub, store};
use crate::{
    cli::{
        output::{counted, or_dash},
        table::Table,
    },
    config::{
        AgentConfig, CheckedFile, FileKind, HubConfig, Overrides, SharedStore, StoreConfig, read_agent,
        read_hub, strangers,
    },
};

/// How many things that were left out are shown; programs get them all.
const SHOWN: usize = 20;

/// What the store is called among the registries: none of them can have that name.
const STORE: &str = "[store]";

/// One registry of a file, or its store.
#[derive(Debug, Serialize)]
pub(super) struct Looked {
    file: PathBuf,
    name: String,
    kind: &'static str,
    /// Which of several hubs; missing where there is one at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    hub: Option<String>,
    /// The registries that the hub relays, most authoritative first; missing where it did not say, and of all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    relays: Option<Vec<RegistryName>>,
    /// Why it was not looked at; none when it was.
    passed_over: Option<String>,
    #[serde(flatten)]
    probe: Option<Probe>,
}

impl Looked {
    pub(super) fn is_well(&self) -> bool {
        self.probe.as_ref().is_none_or(Probe::is_well)
    }

    fn title(&self) -> String {
        match &self.hub {
            Some(hub) => format!("{} at {hub}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Looks at the registries and stores of files, all at once; at the one registry called `name` unless that is empty.
///
/// # Errors
/// When no file names any, or none of that name.
pub(super) async fn look(files: &[CheckedFile], name: &str, within: Duration) -> anyhow::Result<Vec<Looked>> {
    let subjects: Vec<Subject> = files.iter().flat_map(subjects_of).collect();
    let mut known: Vec<String> = subjects.iter().map(|subject| subject.what.name()).collect();
    known.dedup();
    let wanted = subjects.into_iter().filter(|subject| name.is_empty() || subject.what.name() == name);
    let looks: Vec<_> = wanted.map(|subject| one(subject, within)).collect();
    match (looks.is_empty(), known.is_empty()) {
        (true, true) => {
            anyhow::bail!("no file that was checked names a registry, nor a store that hubs share")
        }
        (true, false) => anyhow::bail!("no registry is called `{name}`: there are {}", known.join(", ")),
        _ => Ok(futures_util::future::join_all(looks).await),
    }
}

/// What a file names.
struct Subject {
    file: PathBuf,
    /// The trust domain that the file names.
    domain: Option<TrustDomain>,
    what: What,
}

enum What {
    Registry {
        plan: Box<Plan>,
        /// The services of which instances are announced there.
        announced: Vec<ServiceName>,
    },
    Hub(Box<AtHub>),
    Store {
        prefix: String,
        server: SharedStore,
    },
}

/// A registry that a hub relays.
struct AtHub {
    plan: Plan,
    state_dir: PathBuf,
    /// Of the hub that is looked at, `host:port`; none for the one that the host joined by.
    address: Option<String>,
    /// Whether it is one of several.
    is_one_of_several: bool,
    joins: Vec<Join>,
    /// The registries of the file.
    configured: Vec<RegistryName>,
    /// What is announced there.
    announced: hub::Announced,
}

impl What {
    fn name(&self) -> String {
        match self {
            Self::Registry { plan, .. } => plan.name.value.to_string(),
            Self::Hub(at) => at.plan.name.value.to_string(),
            Self::Store { .. } => STORE.to_owned(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Registry { plan, .. } => plan.kind,
            Self::Hub(at) => at.plan.kind,
            Self::Store { server, .. } => store::kind(server),
        }
    }
}

/// The registries of an agent's or a hub's file, and the store that the hub shares.
fn subjects_of(file: &CheckedFile) -> Vec<Subject> {
    let Ok(source) = SourceFile::read(&file.path) else { return Vec::new() };
    let overrides = Overrides::default();
    let (domain, all) = match file.kind {
        Some(FileKind::Agent) => match read_agent(&source, &overrides).value {
            Some(config) => (config.trust_domain.clone(), of_agent(&config)),
            None => return Vec::new(),
        },
        Some(FileKind::Hub) => match read_hub(&source, &overrides).value {
            Some(config) => (config.trust_domain.clone(), of_hub(config)),
            None => return Vec::new(),
        },
        Some(FileKind::Mesh) | None => return Vec::new(),
    };
    all.into_iter().map(|what| Subject { file: file.path.clone(), domain: domain.clone(), what }).collect()
}

fn of_hub(config: HubConfig) -> Vec<What> {
    let store = match config.store {
        StoreConfig::Embedded => None,
        StoreConfig::Shared { prefix, server } => Some(What::Store { prefix, server }),
    };
    let registry = |plan| What::Registry { plan: Box::new(plan), announced: Vec::new() };
    config.registries.into_iter().map(registry).chain(store).collect()
}

/// What a file has announced in a registry: each service, and as whom.
fn announced_in(config: &AgentConfig, registry: &RegistryName) -> Vec<(ServiceName, SpiffeId)> {
    let there = config.announcements.iter().filter(|it| it.terms.registries.contains(registry));
    let mut announced: Vec<_> =
        there.map(|it| (it.port.service.clone(), it.workload.identity.clone())).collect();
    announced.sort();
    announced.dedup();
    announced
}

/// Of several hubs each is looked at: one that is away is no loss until another one is, too.
fn of_agent(config: &AgentConfig) -> Vec<What> {
    let configured: Vec<RegistryName> =
        config.registries.iter().map(|plan| plan.name.value.clone()).collect();
    let at_hub = |plan: &Plan, address: Option<String>| {
        What::Hub(Box::new(AtHub {
            plan: plan.clone(),
            state_dir: config.state_dir.clone(),
            address,
            is_one_of_several: config.hubs.len() > 1,
            joins: config.joins.clone(),
            configured: configured.clone(),
            announced: hub::Announced {
                services: announced_in(config, &plan.name.value),
                instance: config.announce.instance.clone(),
            },
        }))
    };
    let subjects = config.registries.iter().flat_map(|plan| match (plan.kind, config.hubs.as_slice()) {
        ("hub", []) => vec![at_hub(plan, None)],
        ("hub", hubs) => hubs.iter().map(|hub| at_hub(plan, Some(hub.to_string()))).collect(),
        _ => {
            let mut announced: Vec<_> =
                announced_in(config, &plan.name.value).into_iter().map(|(service, _)| service).collect();
            announced.dedup();
            vec![What::Registry { plan: Box::new(plan.clone()), announced }]
        }
    });
    subjects.collect()
}

async fn one(Subject { file, domain, what }: Subject, within: Duration) -> Looked {
    // A hub's own domain is made when it first starts: what a look shows does not depend on which one it is.
    let domain = domain.or_else(|| TrustDomain::new("unnamed.mesh").ok());
    let (name, kind) = (what.name(), what.kind());
    let mut looked = Looked { file, name, kind, hub: None, relays: None, passed_over: None, probe: None };
    match (what, domain) {
        (What::Registry { plan, announced }, trust_domain) => {
            match plan.build(&Environment { trust_domain, ..Environment::default() }) {
                Ok(registry) => {
                    looked.probe = Some(probe(&*registry, &plan.limits, &announced, within).await);
                }
                Err(error) => looked.passed_over = Some(error.to_string()),
            }
        }
        (What::Hub(at), _) => at.look(&mut looked, within).await,
        (What::Store { prefix, server }, Some(mesh)) => {
            looked.probe = Some(store::look((&prefix, &server), &mesh, within).await);
        }
        (What::Store { .. }, None) => looked.passed_over = Some("the mesh has no name".into()),
    }
    looked
}

impl AtHub {
    async fn look(self, looked: &mut Looked, within: Duration) {
        let found =
            hub::look(&self.plan, &self.state_dir, self.address.as_deref(), &self.announced, within).await;
        looked.hub = self.address.filter(|_| self.is_one_of_several);
        let (mut probe, relays) = match found {
            Ok(found) => found,
            Err(error) => {
                looked.passed_over = Some(error.to_string());
                return;
            }
        };
        if let Some(relays) = &relays {
            let known: Vec<_> = self.configured.iter().chain(relays).cloned().collect();
            let strangers = strangers(&self.joins, &known).into_iter();
            let place = || "[[join]]".to_owned();
            let fault = |message| OriginFault { message, place: place(), keeps_last_good: false };
            probe.skipped.extend(strangers.map(fault));
        }
        (looked.probe, looked.relays) = (Some(probe), relays);
    }
}

/// Prints what was found, for people.
pub(super) fn print(looked: &[Looked]) -> io::Result<()> {
    if looked.is_empty() {
        return Ok(());
    }
    let mut table =
        Table::new(&["REGISTRY", "KIND", "STATE", "LIST", "SERVICES", "ENDPOINTS", "CALLABLE", "TOOK"]);
    for one in looked {
        table.row(cells(one));
    }
    println!();
    table.print("")?;
    let mut out = io::stdout().lock();
    for one in looked {
        details(&mut out, one)?;
    }
    Ok(())
}

fn cells(looked: &Looked) -> [String; 8] {
    let Some(probe) = &looked.probe else {
        let dash = || "-".to_owned();
        return [
            looked.title(),
            looked.kind.into(),
            "not asked".into(),
            dash(),
            dash(),
            dash(),
            dash(),
            dash(),
        ];
    };
    let state = match (probe.error_kind, probe.is_well()) {
        (Some(kind), _) => kind,
        (None, true) => "ok",
        (None, false) => "rights missing",
    };
    let list = probe.complete.map(|complete| match (complete, is_unread(probe)) {
        (true, _) => "whole",
        (false, false) => "filtered",
        (false, true) => "partial",
    });
    let count = |number: usize| if looked.name == STORE { "-".to_owned() } else { number.to_string() };
    [
        looked.title(),
        looked.kind.into(),
        state.into(),
        or_dash(list),
        count(probe.services),
        count(probe.endpoints),
        count(probe.usable),
        format!("{} ms", probe.took_ms),
    ]
}

fn details(out: &mut impl Write, looked: &Looked) -> io::Result<()> {
    let name = looked.title();
    if let Some(why) = &looked.passed_over {
        writeln!(out, "{name}: not asked: {why}")?;
    }
    let Some(probe) = &looked.probe else { return Ok(()) };
    if let Some(error) = &probe.error {
        writeln!(out, "{name}: {error}")?;
    }
    if let Some(relays) = &looked.relays {
        let names: Vec<_> = relays.iter().map(RegistryName::as_str).collect();
        let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
        writeln!(out, "{name}: the hub relays {names}")?;
    }
    for right in &probe.rights {
        match right.given {
            Some(true) => {}
            Some(false) if right.optional => {
                writeln!(
                    out,
                    "{name}: not given, and not needed unless for {}: {}",
                    right.needed_for, right.name
                )?;
            }
            Some(false) => {
                writeln!(out, "{name}: missing right: {}: needed for {}", right.name, right.needed_for)?
            }
            None => {
                writeln!(out, "{name}: the server does not tell whether this right is given: {}", right.name)?
            }
        }
    }
    match (probe.complete, is_unread(probe)) {
        (Some(false), true) => {
            writeln!(out, "{name}: a part could not be read, as is noted: what is missing may still exist")?;
        }
        (Some(false), false) => {
            writeln!(out, "{name}: the server hides a part, or may: what is missing may still exist")?;
        }
        _ => {}
    }
    let notes = folded(&probe.skipped);
    for (fault, times) in notes.iter().take(SHOWN) {
        let times = if *times > 1 { format!(" ({times} times)") } else { String::new() };
        writeln!(out, "{name}: noted: {}: {}{times}", fault.place, fault.message)?;
    }
    if notes.len() > SHOWN {
        let more = counted((notes.len() - SHOWN) as u64, "things");
        writeln!(out, "{name}: noted: {more} more (-o json lists all)")?;
    }
    Ok(())
}

/// Whether a part of the list was not answered or could not be read, so that an agent would keep what it knew of it.
fn is_unread(probe: &Probe) -> bool {
    probe.skipped.iter().any(|fault| fault.keeps_last_good)
}

/// Each note once, in the order of their first, and how often it is there.
fn folded(notes: &[OriginFault]) -> Vec<(&OriginFault, usize)> {
    let mut at = HashMap::new();
    let mut folded: Vec<(&OriginFault, usize)> = Vec::new();
    for note in notes {
        let place = *at.entry((&note.place, &note.message)).or_insert(folded.len());
        match folded.get_mut(place) {
            Some((_, times)) => *times += 1,
            None => folded.push((note, 1)),
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_again_and_again_is_shown_once() {
        let note = |place: &str| OriginFault {
            message: "another instance has its name".into(),
            place: place.into(),
            keeps_last_good: false,
        };
        let skipped = vec![note("x"), note("y"), note("x"), note("x")];
        let probe = Probe { skipped, ..Probe::default() };
        let looked = Looked {
            file: "weft.toml".into(),
            name: "consul".into(),
            kind: "consul",
            hub: None,
            relays: None,
            passed_over: None,
            probe: Some(probe),
        };
        let mut out = Vec::new();
        details(&mut out, &looked).unwrap();
        let lines = [
            "consul: noted: x: another instance has its name (3 times)",
            "consul: noted: y: another instance has its name",
        ];
        assert_eq!(String::from_utf8(out).unwrap().lines().collect::<Vec<_>>(), lines);
    }
}
