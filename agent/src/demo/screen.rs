//! The live table: drawn in place on a terminal, as a line now and then elsewhere.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use super::{
    children::{Children, Process},
    load::Load,
    observe::Observations,
    scene::{Running, Scene},
    site::Site,
};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Over how long the rate is taken.
const RATE_OVER: Duration = Duration::from_secs(3);

/// How many lines a terminal has that does not say.
const ROWS: usize = 24;

const CLEAR_TO_END_OF_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// Without the cursor, and with lines cut at the edge: one that went on in the next would be counted as one all the same.
const DRAWING: &str = "\x1b[?25l\x1b[?7l";
const DRAWN: &str = "\x1b[?7h\x1b[?25h";

/// What is drawn.
pub(super) struct View<'a> {
    site: &'a Site,
    children: &'a Children,
    load: &'a Load,
    observations: &'a Observations,
    /// A heading and a text: who answered the load.
    pub(super) answers: (&'static str, String),
    /// Tables of the demonstration's own, a heading and lines each; the lines that begin with `!` alarm.
    pub(super) tables: Vec<(String, Vec<String>)>,
    /// What to try next, and the command for it.
    pub(super) try_next: Vec<(&'static str, String)>,
}

impl<'a> View<'a> {
    pub(super) fn of<S: Scene>(
        demo: &'a Running<S>,
        answers: (&'static str, String),
        try_next: Vec<(&'static str, String)>,
    ) -> Self {
        Self {
            site: demo.scene.site(),
            children: &demo.children,
            load: &demo.load,
            observations: &demo.observations,
            answers,
            tables: Vec::new(),
            try_next,
        }
    }
}

/// The live table. On a terminal it is drawn over itself, below what to try next, and stays when the demonstration ends.
pub(super) struct Screen {
    terminal: bool,
    began: Instant,
    /// How many lines the last table had on the terminal.
    drawn: usize,
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
            drawn: 0,
            last_line: None,
            running: Vec::new(),
            history: VecDeque::new(),
        }
    }

    pub(super) fn draw(&mut self, demo: &View<'_>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let running: Vec<_> = demo.children.processes.iter().map(Process::pid).collect();
        let due = running != self.running || self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if !self.terminal && !due {
            return Ok(());
        }
        if self.last_line.is_none() {
            writeln!(out, "{}\n", try_next(&demo.try_next))?;
        }
        self.running = running;
        self.last_line = Some(Instant::now());
        let page = self.page(demo);
        if self.terminal {
            self.redraw(&mut out, &page)?
        } else {
            writeln!(out, "{page}")?
        }
        out.flush()
    }

    /// Draws over the last table as much of this one as the terminal has lines for.
    fn redraw(&mut self, out: &mut impl Write, page: &str) -> io::Result<()> {
        let rows = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_row));
        let room = if rows == 0 { ROWS } else { rows } - 1;
        write!(out, "{DRAWING}")?;
        if self.drawn > 0 {
            write!(out, "\x1b[{}A\r", self.drawn)?;
        }
        self.drawn = 0;
        for line in page.lines().take(room) {
            write!(out, "{line}{CLEAR_TO_END_OF_LINE}\r\n")?;
            self.drawn += 1;
        }
        write!(out, "{CLEAR_BELOW}{DRAWN}")
    }

    fn page(&mut self, demo: &View<'_>) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _written = self.fill(&mut page, demo);
        page
    }

    fn fill(&mut self, page: &mut String, demo: &View<'_>) -> std::fmt::Result {
        let tally = demo.load.tally();
        let rate = self.rate(tally.requests);
        let root = demo.site.root().display();
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
            "REQUESTS", "FAILED", "PER S", "P50", "P99", demo.answers.0
        );
        writeln!(page, "{}", self.strong(&heading))?;
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
            demo.answers.1
        )?;
        if let Some(failure) = tally.failures.last() {
            writeln!(page, "  last failure: {failure}")?;
        }
        writeln!(page)?;
        for (heading, lines) in &demo.tables {
            writeln!(page, "{}", self.strong(heading))?;
            for line in lines {
                match line.strip_prefix('!') {
                    Some(line) => writeln!(page, "{}", self.alarm(line))?,
                    None => writeln!(page, "{line}")?,
                }
            }
            writeln!(page)?;
        }
        writeln!(page, "{}", self.strong("WHO CALLED WHOM (as the agents of both sides saw it)"))?;
        for (call, sides) in demo.observations.calls() {
            let security = if call.mutual_tls { "mTLS".into() } else { self.alarm("PLAINTEXT") };
            writeln!(page, "{} -> {}  {security}  {}", call.source, call.destination, sides.count())?;
        }
        let denied = demo.observations.denied();
        if denied > 0 {
            writeln!(page, "  and {denied} were denied by policy")?;
        }
        writeln!(page)?;
        self.fill_certificates(page, demo)
    }

    fn fill_certificates(&self, page: &mut String, demo: &View<'_>) -> std::fmt::Result {
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
            None if process.restarts == 1 => "running, started again once".into(),
            None if process.restarts > 1 => format!("running, started again {} times", process.restarts),
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

/// The commands to try next: each line can be copied as it is.
fn try_next(commands: &[(&'static str, String)]) -> String {
    let mut text = "try next, in another terminal:\n".to_owned();
    for (what, command) in commands {
        text.push_str(&format!("  {what:<20}{command}\n"));
    }
    text.push_str("Ctrl-C ends everything and leaves nothing behind");
    text
}

/// The running binary, as a shell takes it.
pub(super) fn weft() -> String {
    std::env::current_exe().map_or_else(|_| "weft".into(), |path| quoted(&path))
}

/// A path as a shell takes it for one word.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_where_a_shell_would_split_them() {
        let cases = [("/a/b-1.sock", "/a/b-1.sock"), ("/a b/c", "'/a b/c'"), ("/it's", "'/it'\\''s'")];
        for (path, expected) in cases {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }
}
