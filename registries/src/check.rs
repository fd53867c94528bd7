//! Active checks: whether something answers at an address, asked again and again.
//!
//! Two use them: an agent that announces a local service looks after the application, so that the announcement says when
//! it is gone; and a registry that knows no health has its endpoints looked after by the agent. [`ask`] is one question
//! and its answer, [`Tally`] the pure judgement over a run of them.

mod grpc;
mod ask;
pub(crate) mod mesh;

use std::{fmt, pin::pin, time::Duration};

use weft_core::config::{Fault, Section};

pub use ask::ask;
pub(crate) use mesh::ask_in_time as ask_mesh;

/// How often is asked when the file does not say.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer may take when the file does not say.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The bounds of an interval: an application is not asked more often than ten times a second.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// What a check asks, how often, and what its answers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSettings {
    /// The question.
    pub question: Question,
    /// How often it is asked; each pause is drawn from a quarter less to a quarter more.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// After how many failures in a row what was healthy is not, at least 1.
    pub failures: u32,
    /// After how many successes in a row what was unhealthy is healthy again, at least 1.
    pub successes: u32,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether a connection is accepted.
    Tcp,
    /// Whether a GET is answered with a status from 200 to 399.
    Http {
        /// The path, with a query if need be.
        path: String,
        /// The `Host` header; the address when none is named.
        host: Option<String>,
    },
    /// Whether `grpc.health.v1.Health/Check` answers that a service is serving.
    Grpc {
        /// The service; empty for the server as a whole.
        service: String,
    },
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("connection"),
            Self::Http { path, .. } => write!(f, "GET {path}"),
            Self::Grpc { service } if service.is_empty() => f.write_str("gRPC health"),
            Self::Grpc { service } => write!(f, "gRPC health of {service}"),
        }
    }
}

impl Default for CheckSettings {
    /// A connection, every five seconds; two failures in a row are one too many, one success is enough.
    fn default() -> Self {
        Self { question: Question::Tcp, interval: INTERVAL, timeout: TIMEOUT, failures: 2, successes: 1 }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    None,
    Tcp,
    Http,
    Grpc,
}

impl CheckSettings {
    /// Reads `check = { … }`; what it does not say is as in `usual`. The outer none says that it has faults, the inner one
    /// that nothing is to be checked.
    #[must_use]
    pub fn read(section: &Section<'_>, usual: &Self) -> Option<Option<Self>> {
        let kind = section.require_value("kind", "what is asked, such as kind = \"http\"");
        let kind = kind.and_then(|value| {
            value.word(&[
                ("tcp", Kind::Tcp),
                ("http", Kind::Http),
                ("grpc", Kind::Grpc),
                ("none", Kind::None),
            ])
        });
        let interval = section.read_or("interval", usual.interval);
        let timeout = section.read_or("timeout", usual.timeout.min(interval));
        let count = |key, usual: u32| match section.get(key) {
            Some(value) => value.integer(1..=100).and_then(|number| u32::try_from(number).ok()),
            None => Some(usual),
        };
        let (failures, successes) = (count("failures", usual.failures), count("successes", usual.successes));
        let question = match kind? {
            Kind::None => return Some(None),
            Kind::Tcp => Some(Question::Tcp),
            Kind::Http => http(section),
            Kind::Grpc => grpc(section),
        };
        if !(INTERVALS.0..=INTERVALS.1).contains(&interval) {
            let fault = Fault::error(section.key_place("interval"), "the interval is out of range");
            section.report(fault.expected("expected a duration from \"100ms\" to \"1h\""));
            return None;
        }
        if timeout.is_zero() || timeout > interval {
            let fault = Fault::error(section.key_place("timeout"), "the timeout is out of range");
            section.report(fault.expected("expected a duration of at most the interval"));
            return None;
        }
        let (failures, successes) = (failures?, successes?);
        Some(Some(Self { question: question?, interval, timeout, failures, successes }))
    }
}

fn http(section: &Section<'_>) -> Option<Question> {
    let path = section.read_or("path", "/".to_owned());
    let host: Option<String> = section.read("host");
    let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || !visible(&path) || path.contains('#') {
        let fault = Fault::error(section.key_place("path"), "this is no path of a request");
        section.report(fault.expected("expected a path such as \"/health\""));
        return None;
    }
    if host.as_deref().is_some_and(|host| !visible(host)) {
        let fault = Fault::error(section.key_place("host"), "this is no host name");
        section.report(fault.expected("expected a name such as \"web.example\""));
        return None;
    }
    Some(Question::Http { path, host })
}

fn grpc(section: &Section<'_>) -> Option<Question> {
    let service = section.read_or("service", String::new());
    if service.len() > 1024 {
        let fault = Fault::error(section.key_place("service"), "this is too long for a gRPC service");
        section.report(fault.expected("expected a name such as \"shop.Reviews\""));
        return None;
    }
    Some(Question::Grpc { service })
}

/// The judgement over a run of answers. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// None before the first answer.
    healthy: Option<bool>,
    /// How many answers in a row said otherwise.
    against: u32,
}

impl Tally {
    /// One that goes on from what was found before, if anything.
    #[must_use]
    pub fn known(healthy: Option<bool>) -> Self {
        Self { healthy, against: 0 }
    }

    /// Takes an answer in. The first one decides alone; later ones must come in a row. Returns whether the judgement changed.
    pub fn take(&mut self, settings: &CheckSettings, answered: bool) -> bool {
        let Some(healthy) = self.healthy else {
            self.healthy = Some(answered);
            return true;
        };
        if healthy == answered {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let enough = if healthy { settings.failures } else { settings.successes };
        if self.against < enough {
            return false;
        }
        *self = Self { healthy: Some(answered), against: 0 };
        true
    }

    /// Whether it is healthy; none before the first answer.
    #[must_use]
    pub fn healthy(&self) -> Option<bool> {
        self.healthy
    }
}

/// Drives a connection until the answer is there. One that ends may have brought it, or says in it why not.
async fn with_connection<T>(
    answered: impl Future<Output = T>,
    connection: impl Future<Output = Result<(), hyper::Error>>,
) -> T {
    let mut answered = pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        _ended = connection => answered.await,
    }
}

#[cfg(test)]
mod tests;
