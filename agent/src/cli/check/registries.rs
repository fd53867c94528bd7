//! `weft check --registry`: a look at the registries that files name, as an agent or a hub with that file would see them.

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

use crate::{
    cli::{
        output::{counted, or_dash},
        table::Table,
    },
    config::{CheckedFile, FileKind, Overrides, read_agent, read_hub},
};

/// How many things that were left out are shown; programs get them all.
const SHOWN: usize = 20;

/// One registry of a file.
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

/// Looks at the registries of files, all at once; at the one called `name` unless that is empty.
///
/// # Errors
/// When no file names a registry, or none of that name.
pub(super) async fn look(files: &[CheckedFile], name: &str, within: Duration) -> anyhow::Result<Vec<Looked>> {
    let plans: Vec<(PathBuf, Option<TrustDomain>, Plan)> = files.iter().flat_map(plans_of).collect();
    let known: Vec<String> = plans.iter().map(|(.., plan)| plan.name.value.to_string()).collect();
    let wanted = plans.into_iter().filter(|(.., plan)| name.is_empty() || plan.name.value.as_str() == name);
    let looks: Vec<_> = wanted.map(|(file, domain, plan)| one(file, domain, plan, within)).collect();
    match (looks.is_empty(), known.is_empty()) {
        (true, true) => anyhow::bail!("no file that was checked names a registry"),
        (true, false) => anyhow::bail!("no registry is called `{name}`: there are {}", known.join(", ")),
        _ => Ok(futures_util::future::join_all(looks).await),
    }
}

/// The registries of an agent's or a hub's file, with the trust domain that it names.
fn plans_of(file: &CheckedFile) -> Vec<(PathBuf, Option<TrustDomain>, Plan)> {
    let Ok(source) = SourceFile::read(&file.path) else { return Vec::new() };
    let overrides = Overrides::default();
    let (domain, plans) = match file.kind {
        Some(FileKind::Agent) => match read_agent(&source, &overrides).value {
            Some(config) => (config.trust_domain, config.registries),
            None => return Vec::new(),
        },
        Some(FileKind::Hub) => match read_hub(&source, &overrides).value {
            Some(config) => (config.trust_domain, config.registries),
            None => return Vec::new(),
        },
        Some(FileKind::Mesh) | None => return Vec::new(),
    };
    plans.into_iter().map(|plan| (file.path.clone(), domain.clone(), plan)).collect()
}

async fn one(file: PathBuf, domain: Option<TrustDomain>, plan: Plan, within: Duration) -> Looked {
    // A hub's own domain is made when it first starts: what a look shows does not depend on which one it is.
    let unnamed = || TrustDomain::new("unnamed.mesh").ok();
    let environment = Environment { trust_domain: domain.or_else(unnamed), ..Environment::default() };
    let (passed_over, probe) = match plan.build(&environment) {
        Ok(registry) => (None, Some(probe(&*registry, within).await)),
        Err(BuildError::NoHub(_)) => {
            (Some("a running agent follows it: `weft status` says how it is".into()), None)
        }
        Err(error) => (Some(error.to_string()), None),
    };
    Looked { file, name: plan.name.value.to_string(), kind: plan.kind, passed_over, probe }
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
    [
        looked.name.clone(),
        looked.kind.into(),
        state.into(),
        or_dash(list),
        probe.services.to_string(),
        probe.endpoints.to_string(),
        probe.usable.to_string(),
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
        writeln!(out, "{name}: left out: {}: {}", fault.place, fault.message)?;
    }
    if probe.skipped.len() > SHOWN {
        let more = counted((probe.skipped.len() - SHOWN) as u64, "things");
        writeln!(out, "{name}: left out: {more} more (-o json lists all)")?;
    }
    Ok(())
}
