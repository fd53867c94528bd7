//! The last step of every request: counted, logged, shown to whoever listens.
//!
//! [`Records`] is the shared side, one per proxy: metrics summed when read, the log's writer thread, the tap.
//! [`Recorder`] is a worker's side; it is not `Send`, and none of what it does waits for anybody. What is recorded is an
//! [`Outcome`], borrowed from the request's future; a copy is made only when a tap listens.

mod access_log;
mod json;
mod metrics;
mod tap;

use std::{
    io,
    time::{Duration, Instant, SystemTime},
};

use weft_core::context::Outcome;

pub use access_log::AccessLogTarget;
pub use metrics::{ConnectionSeries, Family, MAX_SERIES, write_family};
pub use tap::{TapReceiver, Tapped};

use access_log::{AccessLog, LogBuffer};
use metrics::{Metrics, WorkerMetrics};
use tap::Tap;

/// With what the names of metrics of the proxy itself begin.
const OWN_PREFIX: &str = "weft";
/// How long a line waits for others before it goes to the writer.
const FLUSH: Duration = Duration::from_millis(100);

/// What all workers record, seen from outside them.
#[derive(Debug)]
pub struct Records {
    metrics: Metrics,
    log: AccessLog,
    tap: Tap,
}

impl Records {
    /// Opens the access log and starts its writer.
    ///
    /// # Errors
    /// When the log's file cannot be opened, or its thread not be started.
    pub fn new(target: &AccessLogTarget) -> io::Result<Self> {
        Ok(Self { metrics: Metrics::default(), log: AccessLog::open(target)?, tap: Tap::default() })
    }

    /// The side of one more worker. Make it on the worker's thread.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        Recorder { metrics: self.metrics.worker(), log: self.log.buffer(), tap: self.tap.clone() }
    }

    /// All metrics in the text format of Prometheus (version 0.0.4). Names of those of requests begin with `prefix` and
    /// `_`, names of those of the proxy itself always with `weft_`. Takes time
    /// in proportion to the number of series; not for a worker's thread.
    #[must_use]
    pub fn render(&self, prefix: &str) -> String {
        let mut text = self.metrics.render(prefix, Instant::now());
        let counters = [
            (
                "access_log_dropped_lines_total",
                "Lines of the access log that its writer was too slow for",
                self.log.dropped(),
            ),
            (
                "access_log_failed_writes_total",
                "Writes of the access log that failed",
                self.log.failed_writes(),
            ),
        ];
        for (name, help, value) in counters {
            // About the proxy itself, as Istio has no such thing: not under its name.
            let family = Family { prefix: OWN_PREFIX, name, kind: "counter", help };
            write_family(&mut text, &family, [("", value)]);
        }
        text
    }

    /// Shows every request from now on, until dropped. Zero cost while nobody listens.
    #[must_use]
    pub fn tap(&self) -> TapReceiver {
        self.tap.listen()
    }

    /// Opens the log's file anew, after it was moved away. Happens by itself too, within a second.
    pub fn reopen_log(&self) {
        self.log.reopen();
    }

    /// Waits until everything that workers handed over is written, at most for `longest`. False when it took longer.
    #[must_use]
    pub fn flush_log(&self, longest: Duration) -> bool {
        self.log.flush(longest)
    }
}

/// A worker's side of [`Records`].
#[derive(Debug)]
pub struct Recorder {
    metrics: WorkerMetrics,
    log: Option<LogBuffer>,
    tap: Tap,
}

impl Recorder {
    /// Records a request that ended at `ended`, or an opaque connection that was never made.
    pub fn record(&self, outcome: &Outcome<'_>, ended: Instant) {
        self.metrics.record(outcome, ended, |shared_part| {
            if let Some(log) = &self.log {
                log.line(outcome, &shared_part.get(outcome), ended);
            }
        });
        self.show(outcome);
    }

    /// Records the end of an opaque connection. Its bytes count when they are reported to `series`, not here.
    pub fn close_connection(&self, series: &ConnectionSeries, outcome: &Outcome<'_>, ended: Instant) {
        self.metrics.close_connection(series, ended);
        if let Some(log) = &self.log {
            log.line(outcome, &access_log::shared_part(outcome), ended);
        }
        self.show(outcome);
    }

    fn show(&self, outcome: &Outcome<'_>) {
        if self.tap.is_listened_to() {
            self.tap.show(outcome.to_context(milliseconds_since_1970()));
        }
    }

    /// Counts an opaque connection that opens, and returns where its bytes are counted.
    #[must_use]
    pub fn open_connection(&self, outcome: &Outcome<'_>, now: Instant) -> ConnectionSeries {
        self.metrics.open_connection(outcome, now)
    }

    /// Hands lines over to the log's writer, a tenth of a second after the first of them. Run it as a task of the worker.
    pub async fn keep_flushing(&self) {
        let Some(log) = &self.log else { return };
        loop {
            log.filled().await;
            tokio::time::sleep(FLUSH).await;
            log.flush();
        }
    }
}

fn milliseconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
