//! `weft check`: says all that is wrong with files before anything runs with them, and with the registries they name.

mod hub;
mod registries;
mod store;

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;
use weft_core::config::{Fault, Style, parse_duration, render};

use self::registries::Looked;
use super::output::{OutputOptions, print_json};
use crate::config::{CheckedFile, FileKind, survey};

/// Where configurations lie when none is named; those that exist are checked.
const DEFAULTS: [&str; 2] = ["/etc/weft/weft.toml", "/etc/weft/hub.toml"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files of agents, hubs or resources, or folders of them; the installed ones when none is named
    #[arg(value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    /// Take every file named for this kind instead of guessing it
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<FileKind>,
    /// Also look at the registries that the files name, and at the store that hubs share, or at the registry of this name:
    /// whether it is there, the token good, which rights are missing, what is seen and what is left out
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    registry: Option<String>,
    /// How long a registry may take to be listed
    #[arg(long, default_value = "15s", value_name = "DURATION", value_parser = parse_duration, requires = "registry")]
    within: Duration,
    #[command(flatten)]
    output: OutputOptions,
}

/// The result for programs.
#[derive(Serialize)]
struct Report<'f> {
    ok: bool,
    errors: usize,
    warnings: usize,
    files: &'f [CheckedFile],
    /// What was found at the registries, and at the store that hubs share; missing when nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    registries: Option<Vec<Looked>>,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let paths = if args.paths.is_empty() { installed()? } else { args.paths.clone() };
    let files = survey(&paths, args.kind);
    let faults = || files.iter().flat_map(|file| &file.faults);
    let errors = faults().filter(|fault| fault.is_error()).count();
    let looked = match &args.registry {
        // What the files say is wrong: there is nothing to look at yet.
        Some(_) if errors > 0 => Some(Vec::new()),
        Some(name) => Some(registries::look(&files, name, args.within).await?),
        None => None,
    };
    let well = looked.iter().flatten().all(Looked::is_well);
    let report = Report {
        ok: errors == 0 && well,
        errors,
        warnings: faults().count() - errors,
        files: &files,
        registries: looked,
    };
    if args.output.is_json() {
        print_json(&report)?
    } else {
        print(&report)?;
        if let Some(looked) = &report.registries {
            registries::print(looked)?;
        }
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn installed() -> anyhow::Result<Vec<PathBuf>> {
    let existing: Vec<PathBuf> =
        DEFAULTS.iter().filter(|path| Path::new(path).exists()).map(PathBuf::from).collect();
    anyhow::ensure!(!existing.is_empty(), "nothing to check: {} do not exist", DEFAULTS.join(" and "));
    Ok(existing)
}

fn print(report: &Report<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let plain = !out.is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = if plain { Style::Plain } else { Style::Coloured };
    let faults: Vec<&Fault> = report.files.iter().flat_map(|file| &file.faults).collect();
    for fault in faults {
        writeln!(out, "{}", render(fault, style))?;
    }
    let counted =
        |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let files = counted(report.files.len(), "file");
    match (report.errors, report.warnings) {
        (0, 0) => writeln!(out, "{files} checked, nothing wrong"),
        (errors, warnings) => {
            writeln!(out, "{files} checked: {}, {}", counted(errors, "error"), counted(warnings, "warning"))
        }
    }
}
