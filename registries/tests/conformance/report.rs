//! What passed, what failed and what was not asked: a line for each backend and capability.

use std::{env, process::ExitCode, time::Duration};

/// How one check of one backend went.
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// All that was asked.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<(String, &'static str, Outcome, Duration)>,
}

impl Report {
    pub(crate) fn add(&mut self, kind: &str, capability: &'static str, outcome: Outcome, took: Duration) {
        let word = match &outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed(why) => format!("FAILED: {why}"),
            Outcome::Skipped(why) => format!("skipped: {why}"),
        };
        eprintln!("{kind:<12} {capability:<15} {word}");
        self.lines.push((kind.to_owned(), capability, outcome, took));
    }

    pub(crate) fn skip_all(&mut self, kind: &str, why: &str) {
        self.add(kind, "everything", Outcome::Skipped(why.to_owned()), Duration::ZERO);
    }

    pub(crate) fn print(&self) -> ExitCode {
        println!("\n{:<12} {:<15} {:>7}  RESULT", "BACKEND", "CAPABILITY", "TOOK");
        for (kind, capability, outcome, took) in &self.lines {
            let result = match outcome {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Failed(why) => format!("FAILED   {why}"),
                Outcome::Skipped(why) => format!("skipped  {why}"),
            };
            println!("{kind:<12} {capability:<15} {:>5.1} s  {result}", took.as_secs_f64());
        }
        let count =
            |is: fn(&Outcome) -> bool| self.lines.iter().filter(|(_, _, outcome, _)| is(outcome)).count();
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let absent = self.lines.iter().any(|(_, capability, ..)| *capability == "everything");
        let passed = count(|outcome| matches!(outcome, Outcome::Passed));
        println!("{passed} passed, {failed} failed, {} skipped", self.lines.len() - passed - failed);
        let must_not_skip = env::var_os("WEFT_TESTS_MUST_NOT_SKIP").is_some();
        if failed > 0 || (absent && must_not_skip) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
