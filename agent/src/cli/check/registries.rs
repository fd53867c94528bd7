//! `weft check --registry`: a look at the registries that files name, and at the store that hubs share, as an agent or a hub
//! with that file would see them.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use serde::Serialize;
use weft_core::{config::SourceFile, identity::TrustDomain};
use weft_registries::{
    BuildError, Environment, Plan,
    probe::{Probe, probe},
};

use super::store;
use crate::{
    cli::{
        output::{counted, or_dash},
        table::Table,
    },
    config::{CheckedFile, FileKind, Overrides, SharedStore, StoreConfig, read_agent, read_hub},
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
    /// Why it was not looked at; none when it was.
    passed_over: Option<String>,
    #[serde(flatten)]
    probe: Option<Probe>,
}

impl Looked {
    pub(super) fn is_well(&self) -> bool {
        self.probe.as_ref().is_none_or(Probe::is_well)
    }
}

/// Looks at the registries and stores of files, all at once; at the one registry called `name` unless that is empty.
///
/// # Errors
/// When no file names any, or none of that name.
pub(super) async fn look(files: &[CheckedFile], name: &str, within: Duration) -> anyhow::Result<Vec<Looked>> {
    let subjects: Vec<Subject> = files.iter().flat_map(subjects_of).collect();
    let known: Vec<String> = subjects.iter().map(|subject| subject.what.name()).collect();
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
    Registry(Box<Plan>),
    Store { prefix: String, server: SharedStore },
}

impl What {
    fn name(&self) -> String {
        match self {
            Self::Registry(plan) => plan.name.value.to_string(),
            Self::Store { .. } => STORE.to_owned(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Registry(plan) => plan.kind,
            Self::Store { server, .. } => store::kind(server),
        }
    }
}

/// The registries of an agent's or a hub's file, and the store that the hub shares.
fn subjects_of(file: &CheckedFile) -> Vec<Subject> {
    let Ok(source) = SourceFile::read(&file.path) else { return Vec::new() };
    let overrides = Overrides::default();
    let read = match file.kind {
        Some(FileKind::Agent) => {
            let read = read_agent(&source, &overrides).value;
            read.map(|config| (config.trust_domain, config.registries, StoreConfig::Embedded))
        }
        Some(FileKind::Hub) => {
            let read = read_hub(&source, &overrides).value;
            read.map(|config| (config.trust_domain, config.registries, config.store))
        }
        Some(FileKind::Mesh) | None => None,
    };
    let Some((domain, plans, store)) = read else { return Vec::new() };
    let store = match store {
        StoreConfig::Embedded => None,
        StoreConfig::Shared { prefix, server } => Some(What::Store { prefix, server }),
    };
    let all = plans.into_iter().map(|plan| What::Registry(Box::new(plan))).chain(store);
    all.map(|what| Subject { file: file.path.clone(), domain: domain.clone(), what }).collect()
}

async fn one(Subject { file, domain, what }: Subject, within: Duration) -> Looked {
    // A hub's own domain is made when it first starts: what a look shows does not depend on which one it is.
    let domain = domain.or_else(|| TrustDomain::new("unnamed.mesh").ok());
    let (name, kind) = (what.name(), what.kind());
    let (passed_over, probe) = match (what, domain) {
        (What::Registry(plan), trust_domain) => {
            match plan.build(&Environment { trust_domain, ..Environment::default() }) {
                Ok(registry) => (None, Some(probe(&*registry, &plan.limits, within).await)),
                Err(BuildError::NoHub(_)) => {
                    (Some("a running agent follows it: `weft status` says how it is".into()), None)
                }
                Err(error) => (Some(error.to_string()), None),
            }
        }
        (What::Store { prefix, server }, Some(mesh)) => {
            (None, Some(store::look((&prefix, &server), &mesh, within).await))
        }
        (What::Store { .. }, None) => (Some("the mesh has no name".into()), None),
    };
    Looked { file, name, kind, passed_over, probe }
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
            looked.name.clone(),
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
    let list = probe.complete.map(|complete| if complete { "whole" } else { "filtered" });
    let count = |number: usize| if looked.name == STORE { "-".to_owned() } else { number.to_string() };
    [
        looked.name.clone(),
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
    let name = &looked.name;
    if let Some(why) = &looked.passed_over {
        writeln!(out, "{name}: not asked: {why}")?;
    }
    let Some(probe) = &looked.probe else { return Ok(()) };
    if let Some(error) = &probe.error {
        writeln!(out, "{name}: {error}")?;
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
                writeln!(out, "{name}: missing right: {}: without it, {}", right.name, right.needed_for)?
            }
            None => {
                writeln!(out, "{name}: the server does not tell whether this right is given: {}", right.name)?
            }
        }
    }
    if probe.complete == Some(false) {
        writeln!(out, "{name}: the server hides a part, or may: what is missing may still exist")?;
    }
    for fault in probe.skipped.iter().take(SHOWN) {
        writeln!(out, "{name}: noted: {}: {}", fault.place, fault.message)?;
    }
    if probe.skipped.len() > SHOWN {
        let more = counted((probe.skipped.len() - SHOWN) as u64, "things");
        writeln!(out, "{name}: noted: {more} more (-o json lists all)")?;
    }
    Ok(())
}
