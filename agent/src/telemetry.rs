//! What the process says about itself: one line per event on standard error, for people or for machines.
//!
//! Requests never come through here: the access log has its own writer, off the path of requests. But workers do, with
//! their warnings, and a journal that stands still must not hold up a worker. So a thread of its own writes the lines; what
//! it is too slow for is dropped and counted.

mod writer;

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use writer::Flush;

/// How the process logs.
#[derive(Clone, Debug, clap::Args)]
pub struct LogOptions {
    /// What to log: a level (error, warn, info, debug), or `module=level,…`
    #[arg(long, global = true, env = "WEFT_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Log one JSON object per line
    #[arg(long, global = true, env = "WEFT_LOG_JSON")]
    pub log_json: bool,
}

/// Starts logging to standard error, with colour only on a terminal. Does nothing when logging has started already. The
/// last lines are written when the result is dropped.
///
/// # Errors
/// When the filter is none, or the writer's thread cannot be started.
pub fn install(options: &LogOptions) -> anyhow::Result<Flush> {
    let filter = EnvFilter::try_new(&options.log)
        .map_err(|error| anyhow::anyhow!("--log {:?} is not a filter: {error}", options.log))?;
    let (lines, flush) = writer::start(std::io::stderr())?;
    let lines = fmt::layer().with_writer(lines).with_target(true);
    let registry = tracing_subscriber::registry().with(filter);
    // A second call in one process (tests) keeps the first subscriber: that is no fault.
    let _already_installed = if options.log_json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init()
    };
    Ok(flush)
}
