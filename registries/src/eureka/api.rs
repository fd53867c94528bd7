//! Eureka's own REST API, answered from the mesh's services, so that clients of Eureka go on when Eureka is gone. Pure: the
//! agent and the hub bring the sockets.
//!
//! What is listed is what the registries say, by the first registry that has a name, and beside it the applications that
//! register here, under their leases, in memory. Decisions that a reader may look for:
//!
//! - An instance is listed with its application's own address, whether or not it speaks mesh: its registry names that
//!   address to everybody, and clients of Eureka call it in plaintext today. Where the agent has a listener of its own for
//!   the service that clients can reach, that listener is listed instead, as the only instance: it leads through the mesh.
//! - Whatever registers here is listed here and told to nobody else: a request without proof must not become an endpoint
//!   of the mesh. Nor is it listed under a name that a registry has, unless that is Eureka, where everybody may say as much.
//! - Until the registries have spoken there is no list, not an empty one: clients keep what they have. One that fails is not
//!   waited for any longer than it takes its clients to register here.
//! - Who registered here and left is listed no more, whatever Eureka said of it before: while Eureka is gone, its last list
//!   is all that the mesh has of it. Where Eureka is heard again, its word counts.
//! - Nobody registers with what Netflix's clients cannot read: they would lose the whole list for it.
//! - No answer that says "not found" has a body: Netflix's client takes a body for an instance.

mod recent;
mod log;
mod registrations;
mod codec;
mod served;
mod documents;
mod xml;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

pub use served::{Leads, Listeners, Source};

use super::objects::Instance;
use documents::Format;
use log::Log;
use registrations::{MAX_INSTANCE, Refusal, Registrations};

/// The largest body of a request, in bytes: an instance has one or two thousand.
pub const MAX_BODY: usize = 64 << 10;

/// The API with all that it remembers.
#[derive(Debug, Default)]
pub struct Api(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    registrations: Registrations,
    log: Log,
    /// Long answers as they were written last, and of which state: all that ask get the same memory.
    written: BTreeMap<(Whole, Format), ((u64, usize), Bytes)>,
}

/// The long documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whole {
    All,
    Changes,
}

/// A time, by two clocks, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since 1970: what is told.
    pub wall: u64,
    /// Since any moment, by a clock that nobody sets: what leases are counted by.
    pub steady: u64,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path, as it came.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: &'a str,
    /// Which forms of an answer it takes; XML when it says none.
    pub accept: Option<&'a str>,
    /// What form its body has.
    pub content_type: Option<&'a str>,
    /// Its body, at most [`MAX_BODY`] of it.
    pub body: &'a [u8],
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// What form its body has; none without one.
    pub content_type: Option<&'static str>,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    fn empty(status: StatusCode) -> Self {
        Self { status, content_type: None, body: Bytes::new() }
    }

    fn refused(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, content_type: Some("text/plain"), body: reason.into().into() }
    }
}

impl Api {
    /// Answers at `now`. Without a `source` the registries have not spoken yet. A long list takes a moment of a processor.
    pub fn answer(&self, question: Question<'_>, source: Option<&Source<'_>>, now: Moment) -> Reply {
        let Some(segments) = segments(question.path) else {
            return Reply::empty(StatusCode::NOT_FOUND);
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match *question.method {
            Method::GET => match source {
                Some(source) => self.read(&segments, Format::wanted(question.accept), source, now),
                None => unheard(),
            },
            Method::POST | Method::PUT | Method::DELETE => {
                let mut state = self.lock();
                let outcome = state.registrations.write(&question, &segments, now);
                outcome.map_or_else(|refusal| refusal.reply(), Reply::empty)
            }
            _ => Reply::empty(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn read(&self, segments: &[&str], format: Format, source: &Source<'_>, now: Moment) -> Reply {
        let mut state = self.lock();
        let State { registrations, log, written } = &mut *state;
        registrations.expire(now);
        log.refresh(source, registrations, now);
        if source.lacks && log.all().next().is_none() {
            return unheard();
        }
        let whole = match segments {
            ["apps"] => Some(Whole::All),
            ["apps", "delta"] => Some(Whole::Changes),
            _ => None,
        };
        if let Some(whole) = whole {
            let (of, bytes) = written.entry((whole, format)).or_default();
            if bytes.is_empty() || *of != log.state() {
                (*of, *bytes) = (log.state(), format.write(&entire(whole, log)).into());
            }
            return Reply { status: StatusCode::OK, content_type: Some(format.name()), body: bytes.clone() };
        }
        let document = match segments {
            ["apps", app] => {
                let app = app.to_uppercase();
                let instances: Vec<_> = log.all().filter(|instance| instance.app == app).collect();
                match instances.is_empty() {
                    true => return Reply::empty(StatusCode::NOT_FOUND),
                    false => documents::application(&app, &instances),
                }
            }
            ["apps", app, id] => {
                let app = app.to_uppercase();
                match log.all().find(|instance| instance.app == app && instance.id == *id) {
                    Some(instance) => documents::instance(instance),
                    None => return Reply::empty(StatusCode::NOT_FOUND),
                }
            }
            ["instances", id] => match log.all().find(|instance| instance.id == *id) {
                Some(instance) => documents::instance(instance),
                None => return Reply::empty(StatusCode::NOT_FOUND),
            },
            ["vips", name] => by_address(log, |instance| &instance.vip, name),
            ["svips", name] => by_address(log, |instance| &instance.secure_vip, name),
            _ => return Reply::empty(StatusCode::NOT_FOUND),
        };
        drop(state);
        let body = format.write(&document).into();
        Reply { status: StatusCode::OK, content_type: Some(format.name()), body }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unheard() -> Reply {
    Reply::refused(StatusCode::SERVICE_UNAVAILABLE, "the registries have not spoken yet")
}

fn entire(whole: Whole, log: &Log) -> serde_json::Value {
    let version = log.version().to_string();
    match whole {
        Whole::All => documents::applications(log.all(), log.hash(), &version),
        Whole::Changes => documents::applications(log.changes(), log.hash(), &version),
    }
}

fn by_address(log: &Log, address: fn(&Instance) -> &String, name: &str) -> serde_json::Value {
    let is =
        |instance: &&Instance| address(instance).split(',').any(|it| it.trim().eq_ignore_ascii_case(name));
    let found: Vec<&Instance> = log.all().filter(is).collect();
    let hash = log::hash(found.iter().copied());
    documents::applications(found.into_iter(), hash, "-1")
}

/// The path below `/eureka`, or `/eureka/v2` as Netflix has it, with or without a slash at its end.
fn segments(path: &str) -> Option<Vec<String>> {
    let rest = path.strip_prefix("/eureka/")?;
    let rest = rest.strip_prefix("v2/").unwrap_or(rest);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    rest.split('/').map(decoded).collect()
}

impl Refusal {
    fn reply(self) -> Reply {
        match self {
            Self::Unknown => Reply::empty(StatusCode::NOT_FOUND),
            Self::Wrong(reason) => Reply::refused(StatusCode::BAD_REQUEST, reason),
            Self::Form => Reply::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected JSON or XML"),
            Self::TooLarge => Reply::refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("an instance may take {MAX_INSTANCE} bytes of memory here"),
            ),
            Self::Full => {
                Reply::refused(StatusCode::TOO_MANY_REQUESTS, "too many instances are registered here")
            }
            Self::NoSuchMethod => Reply::empty(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}
