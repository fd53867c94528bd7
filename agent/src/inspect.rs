//! What the admin sockets answer about a running agent.

mod announced;
mod joins;
mod metrics;
mod readonly;
mod relayed;

use std::{
    process,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};
use weft_core::{flow, merge::Snapshot, publish::Reader, table::Table, tls::Credentials, workload::Workload};
use weft_proxy::{Inspector, Tapped};
use weft_registries::{
    checked::Findings,
    hub::{LinkState, RelayedStates},
};

pub use readonly::ReadOnly;

use crate::{
    admin::{Answer, Handler, endpoints, pages, word},
    announcer::Board,
    identity::IdentityStatus,
    lifecycle::Lifecycle,
    readiness::Readiness,
    reload::Record,
    view,
};

/// How many lines a slow follower of a tap may be behind before it misses some.
const TAP_BACKLOG: usize = 256;

/// Everything that can be looked at, and the little that can be asked for.
pub struct Inspect {
    /// When the process began.
    pub began: Instant,
    /// The phase.
    pub lifecycle: Lifecycle,
    /// What is missing.
    pub readiness: Readiness,
    /// What became of configurations.
    pub record: Record,
    /// The text of the configuration in force.
    pub config_text: Mutex<String>,
    /// What the agent listens on.
    pub listeners: Mutex<Vec<view::Listener>>,
    /// The local workloads.
    pub workloads: watch::Receiver<Arc<[Arc<Workload>]>>,
    /// What the registries say, compiled.
    pub tables: Reader<Table>,
    /// What the registries say, as they say it.
    pub snapshots: Reader<Snapshot>,
    /// How the registries are.
    pub statuses: Reader<flow::Status>,
    /// Certificates and trust.
    pub credentials: Reader<Credentials>,
    /// How the certificates are, where a hub signs them.
    pub identity: Option<watch::Receiver<Arc<IdentityStatus>>>,
    /// How the registries are that the hub relays; none without a hub.
    pub relayed: Option<watch::Receiver<Option<Arc<RelayedStates>>>>,
    /// For the operator's word on what the registries say.
    pub flow: flow::FlowHandle,
    /// The data path.
    pub proxy: Inspector,
    /// What is announced.
    pub announcements: Board,
    /// What checks of endpoints find.
    pub findings: Findings,
    /// Rings when the operator asks for a drain.
    pub drain: Notify,
}

/// The full API, on the Unix socket.
pub struct Full(pub Arc<Inspect>);

impl Handler for Full {
    fn answer(&self, method: &Method, path: &str, query: &str) -> Answer {
        let inspect = &self.0;
        let table = || inspect.tables.load_full();
        match (method.as_str(), path) {
            ("GET", "/status") => Answer::json(&inspect.status()),
            ("GET", "/services") => {
                let (table, snapshot) = (table(), inspect.snapshots.load_full());
                Answer::json(&pages::services(&table, &snapshot, SystemTime::now()))
            }
            ("GET", "/endpoints") => Answer::json(&inspect.endpoints()),
            ("GET", "/left-out") => {
                Answer::json(&endpoints::left_out_by_origin(&inspect.snapshots.load_full()))
            }
            ("GET", "/routes") => Answer::json(&pages::routes(&table())),
            ("GET", "/certs") => Answer::json(&inspect.certificates()),
            ("GET", "/connections") => {
                let proxy = inspect.proxy.clone();
                Answer::later(async move { Answer::json(&proxy.connections().await) })
            }
            ("GET", "/tap") => inspect.tap(),
            ("GET", "/config") => {
                let text = inspect.config_text.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Answer::json(&json!({ "path": inspect.record.view().path, "text": text }))
            }
            ("POST", "/drain") => {
                inspect.drain.notify_one();
                Answer::json(&json!({ "draining": true }))
            }
            (_, "/drain") => Answer::error(StatusCode::METHOD_NOT_ALLOWED, "POST it"),
            _ => word::answer(&inspect.flow, method, path, query)
                .unwrap_or_else(|| inspect.read_only(method, path)),
        }
    }
}

impl Inspect {
    fn status(&self) -> view::Status {
        let status = self.statuses.load_full();
        view::Status {
            version: view::Version::current().version,
            pid: process::id(),
            phase: self.lifecycle.phase(),
            uptime_s: self.began.elapsed().as_secs(),
            missing: self.missing(),
            config: self.record.view(),
            listeners: self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            registries: self.registry_rows(&status),
            workloads: self.workload_rows(),
            hub: self.identity.as_ref().map(|status| hub_row(&status.borrow())),
            announcements: self.announcement_rows(&status),
            diagnostics: self.diagnostics(&status),
        }
    }

    fn endpoints(&self) -> Vec<view::Endpoint> {
        let (snapshot, table) = (self.snapshots.load_full(), self.tables.load_full());
        let clock = weft_proxy::clock::milliseconds(Instant::now());
        let (status, credentials) = (self.statuses.load_full(), self.credentials.load_full());
        let told = endpoints::Told {
            snapshot: &snapshot,
            table: &table,
            status: &status,
            credentials: &credentials,
            findings: &self.findings,
        };
        endpoints::endpoints(told, clock, SystemTime::now())
    }

    /// What stands between requests and an answer: what has not come yet, and certificates that have ended.
    fn missing(&self) -> Vec<String> {
        let (credentials, now) = (self.credentials.load_full(), SystemTime::now());
        let mut missing = self.readiness.missing();
        for workload in self.workloads.borrow().iter() {
            let certificate = credentials.identity(&workload.identity);
            if certificate.is_some_and(|certificate| certificate.leaf().validity.not_after < now) {
                missing.push(format!("certificate of {}: it has ended", workload.name));
            }
        }
        missing
    }

    /// The registries, with what the hub says of those that it relays.
    fn registry_rows(&self, status: &flow::Status) -> Vec<view::Registry> {
        let rows = pages::registries(status, &pages::counts(&self.snapshots.load_full()));
        // An agent may have a hub for its certificates alone.
        let follows = status.registries.iter().any(|registry| registry.is_relay);
        match self.relayed.as_ref().filter(|_| follows).and_then(|relayed| relayed.borrow().clone()) {
            Some(states) => relayed::told(rows, &states, SystemTime::now()),
            None => rows,
        }
    }

    /// What is announced, with why it is not in force where the hub has it.
    fn announcement_rows(&self, status: &flow::Status) -> Vec<view::Announcement> {
        let mut rows = self.announcements.rows();
        let (snapshot, table) = (self.snapshots.load_full(), self.tables.load_full());
        let now = pages::seconds(SystemTime::now());
        for row in &mut rows {
            let relay = status.registries.iter().find(|it| it.is_relay && it.name.as_str() == row.registry);
            if let Some(relay) = relay {
                announced::judge(row, relay, &snapshot, &table, now);
            }
        }
        rows
    }

    /// What the compiler decided, and what of the configuration only the hub's word shows to be wrong.
    fn diagnostics(&self, status: &flow::Status) -> Vec<String> {
        let mut all: Vec<_> = status.diagnostics.iter().map(ToString::to_string).collect();
        if let Some(identity) = &self.identity {
            all.extend(joins::strange(status, &identity.borrow().link).iter().map(ToString::to_string));
        }
        all
    }

    fn certificates(&self) -> Vec<view::Certificate> {
        pages::certificates(&self.credentials.load_full(), SystemTime::now())
    }

    fn workload_rows(&self) -> Vec<view::Workload> {
        let (credentials, now) = (self.credentials.load_full(), SystemTime::now());
        let workloads = self.workloads.borrow().clone();
        let rows = workloads.iter().map(|workload| view::Workload {
            name: workload.name.to_string(),
            identity: workload.identity.to_string(),
            certificate_ends_in_s: credentials
                .identity(&workload.identity)
                .map(|certificate| pages::seconds_until(certificate.leaf().validity.not_after, now)),
        });
        rows.collect()
    }

    /// Requests as they end, a line of JSON each. Who reads too slowly misses some, and is told how many.
    fn tap(&self) -> Answer {
        let mut tap = self.proxy.tap();
        let (lines, followed) = mpsc::channel(TAP_BACKLOG);
        tokio::spawn(async move {
            while let Some(tapped) = tap.next().await {
                let line = match tapped {
                    Tapped::Request(context) => serde_json::to_string(&*context),
                    Tapped::Missed(missed) => serde_json::to_string(&json!({ "missed": missed })),
                };
                // Every field is text or a number, so it can be written.
                let Ok(line) = line else { continue };
                if lines.send(Bytes::from(line + "\n")).await.is_err() {
                    return;
                }
            }
        });
        Answer::Lines(followed)
    }
}

fn hub_row(status: &IdentityStatus) -> view::Hub {
    view::Hub {
        node: status.node.clone(),
        link: match &status.link {
            LinkState::Connecting => "connecting".into(),
            LinkState::Connected { .. } => "connected".into(),
            LinkState::Away { reason, .. } => format!("away: {reason}"),
        },
        address: match &status.link {
            LinkState::Connected { hub, .. } => Some(hub.to_string()),
            _ => None,
        },
        tolerance_s: status.tolerance(SystemTime::now()).as_secs(),
        faults: status.faults(),
    }
}
