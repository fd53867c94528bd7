//! One series: the facts that make its labels, and its numbers.

use std::{
    borrow::Cow,
    fmt::Write as _,
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use foldhash::fast::RandomState;
use weft_core::{
    context::{Outcome, Reporter},
    identity::SpiffeId,
    name::{ServiceKey, ServiceName, WorkloadName},
};

use super::{
    super::access_log::shared_part,
    IDLE,
    histogram::{DURATIONS, Histogram, SIZES, add},
};

/// The facts that tell series apart.
#[derive(Debug)]
pub(super) struct SeriesKey {
    reporter: Reporter,
    mutual_tls: bool,
    protocol: &'static str,
    status: u16,
    grpc_status: Option<u16>,
    flags: &'static str,
    source: SpiffeId,
    source_workload: Option<WorkloadName>,
    service: Option<ServiceKey>,
    called: Option<Box<str>>,
    identity: Option<SpiffeId>,
}

/// What serves, by the best name there is: its workload where that is known, which is on the called side; on the caller's
/// the instance that was picked.
fn called<'a>(outcome: &Outcome<'a>) -> Option<&'a str> {
    let destination = outcome.destination?;
    destination.workload.map(AsRef::as_ref).or_else(|| destination.instance.map(AsRef::as_ref))
}

impl SeriesKey {
    pub(super) fn of(outcome: &Outcome<'_>) -> Self {
        let destination = outcome.destination;
        Self {
            reporter: outcome.reporter,
            mutual_tls: outcome.mutual_tls,
            protocol: outcome.protocol_label(),
            status: outcome.verdict.status,
            grpc_status: outcome.verdict.grpc_status,
            flags: outcome.verdict.flags,
            source: outcome.source.identity.clone(),
            source_workload: outcome.source.workload.clone(),
            service: destination.map(|d| d.service.clone()),
            called: called(outcome).map(Into::into),
            identity: destination.and_then(|d| d.identity.cloned()),
        }
    }

    /// Whether an outcome belongs to this series.
    pub(super) fn fits(&self, outcome: &Outcome<'_>) -> bool {
        let destination = outcome.destination;
        self.status == outcome.verdict.status
            && self.reporter == outcome.reporter
            && self.mutual_tls == outcome.mutual_tls
            && self.grpc_status == outcome.verdict.grpc_status
            && self.protocol == outcome.protocol_label()
            && self.flags == outcome.verdict.flags
            && self.source == outcome.source.identity
            && self.source_workload == outcome.source.workload
            && self.service.as_ref() == destination.map(|d| d.service)
            && self.called.as_deref() == called(outcome)
            && self.identity.as_ref() == destination.and_then(|d| d.identity)
    }

    /// The hash under which an outcome's series is found: of what differs most often between series.
    pub(super) fn hash(state: &RandomState, outcome: &Outcome<'_>) -> u64 {
        let mut hasher = state.build_hasher();
        let grpc = outcome.verdict.grpc_status.map_or(0, |status| u64::from(status) + 1);
        hasher.write_u64(
            grpc << 32 | u64::from(outcome.verdict.status) << 8 | outcome.verdict.flags.len() as u64,
        );
        hasher.write(outcome.source.identity.as_str().as_bytes());
        if let Some(destination) = outcome.destination {
            destination.service.service.hash(&mut hasher);
            if let Some(identity) = destination.identity {
                hasher.write(identity.as_str().as_bytes());
            }
        }
        hasher.write(called(outcome).unwrap_or_default().as_bytes());
        hasher.finish()
    }

    /// The instance of a service that the series is about; none where it is about a workload.
    pub(super) fn instance(&self) -> Option<(&ServiceKey, &str)> {
        let instance = self.called.as_deref().filter(|_| self.reporter == Reporter::Source)?;
        Some((self.service.as_ref()?, instance))
    }

    /// The labels as they stand between braces.
    fn labels(&self) -> String {
        let mut out = String::with_capacity(512);
        let security = if self.mutual_tls { "mutual_tls" } else { "none" };
        let service = self.service.as_ref().map(|key| &key.service);
        let (status, grpc) = (self.status.to_string(), self.grpc_status.map(|status| status.to_string()));
        let identity = self.identity.as_ref();
        let values = [
            Some(self.reporter.label()),
            self.source_workload.as_ref().map(AsRef::as_ref),
            Some(self.source.namespace()),
            Some(self.source.as_str()),
            service.map(ServiceName::as_str),
            service.map(ServiceName::label),
            service.map(ServiceName::namespace),
            self.called.as_deref(),
            identity.map(SpiffeId::namespace),
            identity.map(SpiffeId::as_str),
            Some(self.protocol),
            Some(status.as_str()),
            Some(if self.flags.is_empty() { "-" } else { self.flags }),
            Some(grpc.as_deref().unwrap_or_default()),
            Some(security),
        ];
        write_labels(&mut out, values);
        out
    }
}

/// Istio's label names, in the order in which they are written.
const LABELS: [&str; 15] = [
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "request_protocol",
    "response_code",
    "response_flags",
    "grpc_response_status",
    "connection_security_policy",
];

fn write_labels(out: &mut String, values: [Option<&str>; LABELS.len()]) {
    for (name, value) in LABELS.iter().zip(values) {
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(out, "{comma}{name}=\"");
        escape(out, value.unwrap_or("unknown"));
        out.push('"');
    }
}

/// A label's value in the text format of Prometheus.
pub(super) fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// The part of a log line that is the same for all requests of a series, made with the first of them.
#[derive(Debug, Default)]
pub(in super::super) struct SharedPart {
    /// False for the series that stands for all beyond the bound: its requests share nothing.
    is_one: bool,
    text: OnceLock<Box<[u8]>>,
}

impl SharedPart {
    /// The text, which belongs to the series of `outcome`.
    pub(in super::super) fn get(&self, outcome: &Outcome<'_>) -> Cow<'_, [u8]> {
        if self.is_one {
            return Cow::Borrowed(self.text.get_or_init(|| shared_part(outcome)));
        }
        Cow::Owned(shared_part(outcome).into())
    }
}

/// One series on one worker.
#[derive(Debug)]
pub(super) struct Series<C> {
    /// None for the series that stands for all beyond the bound.
    pub(super) key: Option<SeriesKey>,
    pub(super) hash: u64,
    pub(super) labels: String,
    pub(super) cells: C,
    pub(super) shared_part: SharedPart,
    used: AtomicU64,
}

impl<C: Default> Series<C> {
    pub(super) fn new(outcome: &Outcome<'_>, hash: u64) -> Self {
        let key = SeriesKey::of(outcome);
        let shared_part = SharedPart { is_one: true, ..SharedPart::default() };
        Self {
            labels: key.labels(),
            key: Some(key),
            hash,
            cells: C::default(),
            shared_part,
            used: AtomicU64::new(0),
        }
    }

    pub(super) fn other() -> Self {
        let mut labels = String::new();
        write_labels(&mut labels, [Some("other"); LABELS.len()]);
        let shared_part = SharedPart::default();
        Self { labels, key: None, hash: 0, cells: C::default(), shared_part, used: AtomicU64::new(0) }
    }
}

impl<C> Series<C> {
    pub(super) fn touch(&self, minute: u64) {
        self.used.store(minute, Relaxed);
    }

    /// Whether nobody has counted for long. What an open connection counts into is never idle: two references are the
    /// table's and the shelf's.
    pub(super) fn is_idle_beyond(self: &Arc<Self>, minute: u64, references: usize) -> bool {
        minute.saturating_sub(self.used.load(Relaxed)) > IDLE && Arc::strong_count(self) <= references
    }

    pub(super) fn is_idle(self: &Arc<Self>, minute: u64) -> bool {
        self.is_idle_beyond(minute, 2)
    }
}

/// The numbers of requests.
#[derive(Debug, Default)]
pub(super) struct RequestCells {
    pub(super) duration: Histogram<{ DURATIONS.len() + 1 }>,
    pub(super) received: Histogram<{ SIZES.len() + 1 }>,
    pub(super) sent: Histogram<{ SIZES.len() + 1 }>,
}

impl RequestCells {
    /// How many requests there were is the sum over the buckets.
    pub(super) fn record(&self, outcome: &Outcome<'_>) {
        let micros = u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX);
        self.duration.observe(&DURATIONS, micros);
        self.received.observe(&SIZES, outcome.received_bytes);
        self.sent.observe(&SIZES, outcome.sent_bytes);
    }
}

/// The numbers of opaque connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionCells {
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

impl ConnectionCells {
    pub(super) fn open(&self) {
        add(&self.opened, 1);
    }

    pub(super) fn close(&self) {
        add(&self.closed, 1);
    }
}

/// Where an open connection's bytes are counted. Only to be used on the worker that made it.
#[derive(Debug)]
pub struct ConnectionSeries {
    series: Arc<Series<ConnectionCells>>,
    /// Two threads must not add at once.
    not_send: std::marker::PhantomData<*const ()>,
}

impl ConnectionSeries {
    pub(super) fn new(series: Arc<Series<ConnectionCells>>) -> Self {
        Self { series, not_send: std::marker::PhantomData }
    }

    /// Counts the end of the connection, where its begin was counted.
    pub(super) fn close(&self, minute: u64) {
        self.series.cells.close();
        self.series.touch(minute);
    }

    /// Counts bytes from the caller and to the caller that are new since the last call.
    pub fn add(&self, received: u64, sent: u64) {
        add(&self.series.cells.received, received);
        add(&self.series.cells.sent, sent);
    }
}
