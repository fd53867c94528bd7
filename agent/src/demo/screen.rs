//! The live table: drawn in place on a terminal, as a line now and then elsewhere.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant, SystemTime},
};

use super::{
    Demo,
    children::Process,
    layout::{Layout, SHARES},
};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Over how long the rate is taken.
const RATE_OVER: Duration = Duration::from_secs(3);

const CLEAR_TO_END_OF_LINE: &str = "\x1b[K";
const HOME: &str = "\x1b[H";
const CLEAR_BELOW: &str = "\x1b[J";
const OTHER_SCREEN: &str = "\x1b[?1049h\x1b[?25l";
const FORMER_SCREEN: &str = "\x1b[?25h\x1b[?1049l";

pub(super) struct Screen {
    terminal: bool,
    began: Instant,
    drawn: bool,
    last_line: Option<Instant>,
    /// Which processes ran when the last line was printed: a change is told at once.
    running: Vec<Option<u32>>,
    /// When there were how many requests.
    history: VecDeque<(Instant, u64)>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            began: Instant::now(),
            drawn: false,
            last_line: None,
            running: Vec::new(),
            history: VecDeque::new(),
        }
    }

    pub(super) fn draw(&mut self, demo: &Demo) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.terminal {
            let running: Vec<_> = demo.children.processes.iter().map(Process::pid).collect();
            if running != self.running || self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                self.running = running;
                if self.last_line.is_none() {
                    writeln!(out, "{}", try_next(&demo.layout))?;
                }
                self.last_line = Some(Instant::now());
                writeln!(out, "{}", self.page(demo))?;
            }
            return out.flush();
        }
        if !self.drawn {
            self.drawn = true;
            write!(out, "{OTHER_SCREEN}")?;
        }
        write!(out, "{HOME}")?;
        for line in format!("{}\n{}", self.page(demo), try_next(&demo.layout)).lines() {
            write!(out, "{line}{CLEAR_TO_END_OF_LINE}\r\n")?;
        }
        write!(out, "{CLEAR_BELOW}")?;
        out.flush()
    }

    /// Gives the terminal back.
    pub(super) fn leave(&self) -> io::Result<()> {
        if self.drawn {
            let mut out = io::stdout().lock();
            write!(out, "{FORMER_SCREEN}")?;
            out.flush()?;
        }
        Ok(())
    }

    fn page(&mut self, demo: &Demo) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _written = self.fill(&mut page, demo);
        page
    }

    fn fill(&mut self, page: &mut String, demo: &Demo) -> std::fmt::Result {
        let tally = demo.load.tally();
        let rate = self.rate(tally.requests);
        let root = demo.layout.root().display();
        writeln!(
            page,
            "{}   {} s   files in {root}",
            self.strong("weft demo"),
            self.began.elapsed().as_secs()
        )?;
        writeln!(page)?;
        writeln!(page, "{}", self.strong(&format!("{:<14} {:>8}  {}", "PROCESS", "PID", "STATE")))?;
        for process in &demo.children.processes {
            writeln!(page, "{}", self.process(process))?;
        }
        writeln!(page)?;
        let heading = format!(
            "{:>9} {:>7} {:>6} {:>9} {:>9}  {}",
            "REQUESTS", "FAILED", "PER S", "P50", "P99", "ANSWERED BY REVIEWS"
        );
        writeln!(page, "{}", self.strong(&heading))?;
        let answered: u64 = tally.by_version.values().sum();
        let split: Vec<String> = SHARES
            .iter()
            .map(|(version, share)| {
                let count = tally.by_version.get(*version).copied().unwrap_or(0);
                let percent = 100.0 * count as f64 / answered.max(1) as f64;
                format!("{version} {count} ({percent:.1} %, began as {share})")
            })
            .collect();
        let milliseconds =
            |quantile| format!("{:.2} ms", tally.latency.value_at_quantile(quantile) as f64 / 1e3);
        let failed = format!("{:>7}", tally.failed);
        let failed = if tally.failed > 0 { self.alarm(&failed) } else { failed };
        writeln!(
            page,
            "{:>9} {failed} {rate:>6.0} {:>9} {:>9}  {}",
            tally.requests,
            milliseconds(0.5),
            milliseconds(0.99),
            split.join("  ")
        )?;
        if let Some(failure) = tally.failures.last() {
            writeln!(page, "  last failure: {failure}")?;
        }
        writeln!(page)?;
        writeln!(page, "{}", self.strong("WHO CALLED WHOM (as the called side's agent certified it)"))?;
        for (call, count) in demo.observations.calls() {
            let security = if call.mutual_tls { "mTLS" } else { "PLAIN" };
            writeln!(page, "{} -> {}  {security}  {count}", call.source, call.destination)?;
        }
        let denied = demo.observations.denied();
        if denied > 0 {
            writeln!(page, "  and {denied} were denied by policy")?;
        }
        writeln!(page)?;
        self.fill_certificates(page, demo)
    }

    fn fill_certificates(&self, page: &mut String, demo: &Demo) -> std::fmt::Result {
        let heading = format!(
            "{:<40} {:<18} {:>6} {:>8} {:>9}",
            "CERTIFICATE SEEN", "SERIAL", "AGE", "ENDS IN", "ROTATIONS"
        );
        writeln!(page, "{}", self.strong(&heading))?;
        let now = SystemTime::now();
        for (identity, seen) in demo.observations.rotations() {
            let serial: String = seen.serial.chars().take(16).collect();
            let age = now.duration_since(seen.since).unwrap_or_default().as_secs();
            let left = seen.not_after.duration_since(now).unwrap_or_default().as_secs();
            writeln!(page, "{identity:<40} {serial:<18} {age:>4} s {left:>6} s {:>9}", seen.changes)?;
        }
        Ok(())
    }

    fn process(&self, process: &Process) -> String {
        let pid = process.pid().map_or_else(|| "-".into(), |pid| pid.to_string());
        let state = match process.ended {
            Some((when, status)) => {
                let ago = when.elapsed().as_secs();
                self.alarm(&format!("GONE {ago} s ago ({status}), comes back as under systemd"))
            }
            None if process.restarts > 0 => format!("running, started again {} times", process.restarts),
            None => "running".into(),
        };
        format!("{:<14} {pid:>8}  {state}", process.name)
    }

    /// Requests per second of late.
    fn rate(&mut self, requests: u64) -> f64 {
        let now = Instant::now();
        self.history.push_back((now, requests));
        while self.history.len() > 2 && self.history.front().is_some_and(|(then, _)| now - *then > RATE_OVER)
        {
            self.history.pop_front();
        }
        let (then, before) = self.history.front().copied().unwrap_or((now, requests));
        let seconds = (now - then).as_secs_f64();
        if seconds > 0.0 { (requests - before) as f64 / seconds } else { 0.0 }
    }

    fn strong(&self, text: &str) -> String {
        if self.terminal { format!("\x1b[1m{text}\x1b[0m") } else { text.into() }
    }

    fn alarm(&self, text: &str) -> String {
        if self.terminal { format!("\x1b[1;31m{text}\x1b[0m") } else { text.into() }
    }
}

/// The commands to try next.
fn try_next(layout: &Layout) -> String {
    let weft = std::env::current_exe().map_or_else(|_| "weft".into(), |path| path.display().to_string());
    let [one, two] = &layout.agents;
    format!(
        "try next, in another terminal:\n  \
         change the split    edit the weights in {routes}\n  \
         look at every call  {weft} tap --socket {two}\n  \
         what an agent knows {weft} endpoints --socket {one}\n  \
         its certificates    {weft} certs --socket {one}\n  \
         kill reviews v2, or an agent: kill -9 with a PID from above, and watch\n  \
         be refused          curl -i -H 'Host: reviews.default.mesh' http://{loadgen}/   (only web may call reviews)\n\
         Ctrl-C ends everything and leaves nothing behind",
        routes = layout.routes_file().display(),
        one = one.socket().display(),
        two = two.socket().display(),
        loadgen = layout.loadgen_outbound,
    )
}
