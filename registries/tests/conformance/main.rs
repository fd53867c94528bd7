//! One suite over every registry, against its real server: `just conformance`.
//!
//! A backend joins with a [`Bed`]: how its catalog is written to, and how its server dies and comes back. What is asked
//! of it follows from the capabilities that it declares, and from nothing else. A name on the command line runs that
//! backend alone.

#![allow(clippy::unwrap_used)] // A test, though not of cargo's harness: what cannot be set up ends it.

mod bed;
mod beds;
mod follower;
mod report;
mod suite;

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    // What cargo hands to every test program: a filter, and flags of its own harness, of which it lists with one.
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|it| !it.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut report = report::Report::default();
    for (kind, open) in beds::BEDS.iter().filter(|(kind, _)| named.is_empty() || named.contains(kind)) {
        match open() {
            Some(mut bed) => runtime.block_on(suite::run(kind, &mut *bed, &mut report)),
            None => report.skip_all(kind, "its server is not installed: testbed/install says how"),
        }
    }
    report.print()
}
