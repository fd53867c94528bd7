//! Istio's standard metrics, counted by the workers and summed when they are read.
//!
//! A worker finds the series of a request with one look-up by hash of the outcome's own texts: nothing is formatted and
//! nothing allocated. Only the worker writes its series, so a count is a load and a store; a reader on another thread
//! sees each number whole. A series nobody has added to for [`IDLE`] minutes goes, and there are at most [`MAX_SERIES`]
//! of a kind on a worker: what is beyond counts under labels that all say `other`.
//!
//! A caller's side knows the instances that it calls and not their workloads, so it names those. Of a service with very
//! many, or with new ones all the time, only so many have series of their own.

mod histogram;
mod instances;
mod render;
mod series;
mod table;

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use weft_core::context::Outcome;

pub use render::{Family, write_family};
pub use series::ConnectionSeries;

use crate::clock::milliseconds;
use series::{ConnectionCells, RequestCells, Series, SharedPart};
use table::SeriesTable;

/// The most series of a kind on one worker.
pub const MAX_SERIES: usize = 4096;
/// After so many minutes without a count a series goes.
const IDLE: u64 = 15;

/// Series of one kind on one worker, as readers see them. Locked when a series comes or goes, and when all are read.
type Shelf<C> = Arc<Mutex<Vec<Arc<Series<C>>>>>;

/// All workers' series.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    workers: Mutex<Vec<(Shelf<RequestCells>, Shelf<ConnectionCells>)>>,
}

impl Metrics {
    /// A worker's side.
    pub(super) fn worker(&self) -> WorkerMetrics {
        let (requests, connections) = (Shelf::default(), Shelf::default());
        lock(&self.workers).push((requests.clone(), connections.clone()));
        WorkerMetrics {
            requests: RefCell::new(SeriesTable::new(requests)),
            connections: RefCell::new(SeriesTable::new(connections)),
        }
    }

    pub(super) fn render(&self, prefix: &str, now: Instant) -> String {
        let minute = minute_of(now);
        let mut workers = lock(&self.workers);
        // A worker that has ended keeps its counts until they are idle.
        workers.retain(|(requests, connections)| {
            let ended = Arc::strong_count(requests) == 1 && Arc::strong_count(connections) == 1;
            !(ended && all_idle(requests, minute) && all_idle(connections, minute))
        });
        let requests = workers.iter().flat_map(|(shelf, _)| current(shelf, minute)).collect();
        let connections = workers.iter().flat_map(|(_, shelf)| current(shelf, minute)).collect();
        drop(workers);
        render::render(prefix, requests, connections)
    }
}

fn current<C>(shelf: &Shelf<C>, minute: u64) -> Vec<Arc<Series<C>>> {
    lock(shelf).iter().filter(|series| !series.is_idle(minute)).cloned().collect()
}

fn all_idle<C>(shelf: &Shelf<C>, minute: u64) -> bool {
    lock(shelf).iter().all(|series| series.is_idle(minute))
}

/// A lock held by a thread that panicked guards a list that is still whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn minute_of(instant: Instant) -> u64 {
    milliseconds(instant) / 60_000
}

/// A worker's series.
#[derive(Debug)]
pub(super) struct WorkerMetrics {
    requests: RefCell<SeriesTable<RequestCells>>,
    connections: RefCell<SeriesTable<ConnectionCells>>,
}

impl WorkerMetrics {
    /// Counts a request that ended, or an opaque connection that was never made, and shows what its log line shares with
    /// others.
    pub(super) fn record(&self, outcome: &Outcome<'_>, ended: Instant, then: impl FnOnce(&SharedPart)) {
        let minute = minute_of(ended);
        if outcome.request.is_some() {
            let mut requests = self.requests.borrow_mut();
            let series = requests.find(outcome, minute);
            series.cells.record(outcome);
            then(&series.shared_part);
        } else {
            let mut connections = self.connections.borrow_mut();
            let series = connections.find(outcome, minute);
            // Both, so that opened less closed is what is open.
            series.cells.open();
            series.cells.close();
            then(&series.shared_part);
        }
    }

    pub(super) fn open_connection(&self, outcome: &Outcome<'_>, now: Instant) -> ConnectionSeries {
        let mut connections = self.connections.borrow_mut();
        let series = connections.find(outcome, minute_of(now));
        series.cells.open();
        ConnectionSeries::new(series.clone())
    }

    /// Counts the end of a connection that was opened. How it ended is not in its labels, which are those of its begin:
    /// else opened less closed would be of no use by label.
    pub(super) fn close_connection(&self, series: &ConnectionSeries, ended: Instant) {
        series.close(minute_of(ended));
    }
}

#[cfg(test)]
mod tests;
