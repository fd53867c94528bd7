//! `weft check`: says all that is wrong with files before anything runs with them.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;
use weft_core::config::{Fault, Style, render};

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
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let paths = if args.paths.is_empty() { installed()? } else { args.paths.clone() };
    let files = survey(&paths, args.kind);
    let faults = || files.iter().flat_map(|file| &file.faults);
    let errors = faults().filter(|fault| fault.is_error()).count();
    let report = Report { ok: errors == 0, errors, warnings: faults().count() - errors, files: &files };
    if args.output.is_json() {
        print_json(&report)?
    } else {
        print(&report)?
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
