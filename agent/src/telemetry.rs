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

/// What is not logged unless it is asked for by name: a library's warnings of packets, one line for each that anybody
/// sends.
const QUIET: &str = "hickory_net=error";

/// The filter of what is written; what is written of one module stands.
fn filter(written: &str) -> anyhow::Result<EnvFilter> {
    let built = match written.contains("hickory_net") {
        true => EnvFilter::try_new(written),
        false => EnvFilter::try_new(format!("{QUIET},{written}")),
    };
    built.map_err(|error| anyhow::anyhow!("--log {written:?} is not a filter: {error}"))
}

/// Starts logging to standard error, with colour only on a terminal. Does nothing when logging has started already. The
/// last lines are written when the result is dropped.
///
/// # Errors
/// When the filter is none, or the writer's thread cannot be started.
pub fn install(options: &LogOptions) -> anyhow::Result<Flush> {
    let filter = filter(&options.log)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_anybody_can_have_warned_of_is_quiet_unless_it_is_asked_for() {
        let said = |written: &str| {
            let filter = filter(written).unwrap();
            let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let to = lines.clone();
            let writer = move || Lines(to.clone());
            let subscriber =
                tracing_subscriber::registry().with(filter).with(fmt::layer().with_writer(writer));
            tracing::subscriber::with_default(subscriber, || {
                tracing::warn!(target: "hickory_net::udp", "forged");
                tracing::error!(target: "hickory_net::udp", "broken");
                tracing::info!(target: "weft_core", "ours");
            });
            let lines = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
            ["forged", "broken", "ours"].map(|word| lines.contains(word))
        };
        assert_eq!(said("info"), [false, true, true]);
        assert_eq!(said("warn,weft_core=debug"), [false, true, true]);
        assert_eq!(said("info,hickory_net=warn"), [true, true, true]);
        assert!(filter("weft_core=loud").is_err());
    }

    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
