//! Who asks the API server, and what its answers mean.
//!
//! The kubeconfig, its credentials and their renewal are kube's, but for credential plugins. The stack around the connection is ours: kube's own
//! tries again in silence for minutes and logs each failure, where we want to hear of it and log one.

mod bearer;
mod config;
mod plugin;
mod proxy;
mod renewed;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::client::Body;
use tokio::time::timeout;
use weft_core::registry::RegistryError;

use super::objects::{List, Status};
use crate::http_client::{causes, first_answer};

pub use config::{Access, connect};
use renewed::Renewed;

/// How long an answer may take to begin, and one that is no watch to end.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// How long a page of a list may take.
const PAGE: Duration = Duration::from_secs(60);
/// The longest page of a list, in bytes: 500 objects of at most 1.5 MB, of which none is near that.
const MAX_PAGE: usize = 256 << 20;
/// The longest answer that is no list, and what of a refusal is read.
const MAX_SHORT: usize = 4 << 20;
/// The longest line of a watch, in bytes: etcd keeps objects of 1.5 MB at most.
const MAX_LINE: usize = 8 << 20;

/// A connected client.
#[derive(Clone)]
pub struct Client(Asks);

#[derive(Clone)]
enum Asks {
    /// The same one always.
    Made(kube::Client),
    /// One that is another with each new certificate.
    Renewed(Arc<Renewed>),
}

#[cfg(test)]
impl Client {
    /// One whose questions a script answers.
    pub(super) fn scripted(client: kube::Client) -> Self {
        Self::made(client)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A part of a list, as the server wrote it.
pub(super) struct Page {
    what: String,
    answer: Bytes,
}

impl Page {
    /// Its objects and its head.
    ///
    /// # Errors
    /// Where it makes no sense.
    pub(super) fn read(&self) -> Result<List<'_>, RegistryError> {
        serde_json::from_slice(&self.answer).map_err(|error| self.malformed(error))
    }

    pub(super) fn malformed(&self, why: impl std::fmt::Display) -> RegistryError {
        RegistryError::Malformed(format!("{}: {why}", self.what))
    }
}

impl Client {
    fn made(client: kube::Client) -> Self {
        Self(Asks::Made(client))
    }

    fn renewed(renewed: Renewed) -> Self {
        Self(Asks::Renewed(Arc::new(renewed)))
    }

    /// A whole page of a list.
    ///
    /// # Errors
    /// What the refusal means.
    pub(super) async fn page(&self, what: &str, request: Request<Vec<u8>>) -> Result<Page, Refusal> {
        let answer = self.whole(what, request, PAGE, MAX_PAGE).await?;
        Ok(Page { what: what.to_owned(), answer })
    }

    /// Whether a question is answered at all.
    ///
    /// # Errors
    /// What the refusal means.
    pub(super) async fn ask(&self, what: &str, request: Request<Vec<u8>>) -> Result<(), Refusal> {
        self.whole(what, request, ANSWER, MAX_SHORT).await.map(drop)
    }

    /// A whole short answer.
    ///
    /// # Errors
    /// What the refusal means.
    pub(super) async fn short(&self, what: &str, request: Request<Vec<u8>>) -> Result<Bytes, RegistryError> {
        self.whole(what, request, ANSWER, MAX_SHORT).await.map_err(|refusal| refusal.error)
    }

    /// A whole answer, whatever its status.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn answer(
        &self,
        what: &str,
        request: Request<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), RegistryError> {
        let whole = async {
            let response = self.response(what, request).await?;
            let status = response.status();
            Ok((status, collect(what, response.into_body(), MAX_PAGE).await?))
        };
        timeout(ANSWER, whole).await.map_err(|_| late(what, ANSWER))?
    }

    /// Waits until there is anybody who answers, whatever it is.
    ///
    /// # Errors
    /// When nobody does in time.
    pub(super) async fn await_answer(&self) -> Result<(), RegistryError> {
        let what = "get version";
        let ask = || async {
            let asked = Request::get("/version").body(Vec::new());
            let asked = asked.map_err(|error| RegistryError::Malformed(format!("{what}: {error}")))?;
            self.answer(what, asked).await.map(drop)
        };
        first_answer(ANSWER, ask, || late(what, ANSWER)).await
    }

    /// The lines of a watch.
    ///
    /// # Errors
    /// What the refusal means.
    pub async fn lines(&self, what: &str, request: Request<Vec<u8>>) -> Result<Lines, RegistryError> {
        self.watch(what, request).await.map_err(|refusal| refusal.error)
    }

    /// The same, with what the server says of when to come again.
    ///
    /// # Errors
    /// What the refusal means.
    pub(super) async fn watch(&self, what: &str, request: Request<Vec<u8>>) -> Result<Lines, Refusal> {
        let opened = timeout(ANSWER, self.send(what, request)).await;
        let body = opened.map_err(|_| late(what, ANSWER))??;
        Ok(Lines { body, buffer: BytesMut::new(), searched: 0, what: what.to_owned() })
    }

    async fn whole(
        &self,
        what: &str,
        request: Request<Vec<u8>>,
        within: Duration,
        longest: usize,
    ) -> Result<Bytes, Refusal> {
        let whole = async {
            let body = self.send(what, request).await?;
            Ok(collect(what, body, longest).await?)
        };
        timeout(within, whole).await.map_err(|_| late(what, within))?
    }

    async fn response(&self, what: &str, request: Request<Vec<u8>>) -> Result<Response<Body>, RegistryError> {
        let client = match &self.0 {
            Asks::Made(client) => client.clone(),
            Asks::Renewed(renewed) => renewed.client().await?,
        };
        client.send(request.map(Body::from)).await.map_err(|error| unsent(what, error))
    }

    async fn send(&self, what: &str, request: Request<Vec<u8>>) -> Result<Body, Refusal> {
        let response = self.response(what, request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let retry_after = retry_after(response.headers());
        let said = collect(what, response.into_body(), MAX_SHORT).await.unwrap_or_default();
        Err(Refusal { error: refused(what, status, &said), retry_after })
    }
}

/// Why a question was not answered.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: RegistryError,
    /// How long the server wants to be left alone (`Retry-After`, RFC 9110, in seconds as the API server says it).
    pub(super) retry_after: Option<Duration>,
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        Self { error, retry_after: None }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

async fn collect(what: &str, body: Body, longest: usize) -> Result<Bytes, RegistryError> {
    let whole = Limited::new(body, longest).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            RegistryError::Malformed(format!("{what}: the answer is longer than {longest} bytes"))
        } else {
            RegistryError::Unreachable(format!("{what}: the answer broke off: {}", causes(&*error)))
        }
    })?;
    Ok(whole.to_bytes())
}

fn late(what: &str, within: Duration) -> RegistryError {
    RegistryError::Unreachable(format!("{what}: no answer within {} s", within.as_secs()))
}

/// The lines of a watch, as they come.
pub struct Lines {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer has no end of a line.
    searched: usize,
    what: String,
}

impl Lines {
    /// The next whole line; none when the server has ended the watch. May be dropped while it waits.
    ///
    /// # Errors
    /// When the connection breaks, or a line is longer than any object can be.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if let Some(line) = self.buffered() {
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_LINE {
                let what = &self.what;
                return Err(RegistryError::Malformed(format!(
                    "{what}: a line is longer than {MAX_LINE} bytes"
                )));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                // What has no end is no line: the watch is taken up again before it.
                None => return Ok(None),
                Some(Err(error)) => {
                    let why = causes(&error);
                    return Err(RegistryError::Unreachable(format!("{}: it broke off: {why}", self.what)));
                }
            }
        }
    }

    /// A line that is there already.
    pub(super) fn buffered(&mut self) -> Option<Bytes> {
        match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}

/// What the API server's refusal of `what` means.
#[must_use]
pub fn refused(what: &str, status: StatusCode, body: &[u8]) -> RegistryError {
    let told: Status = serde_json::from_slice(body).unwrap_or_default();
    let message =
        if told.message.is_empty() { String::from_utf8_lossy(body).into_owned() } else { told.message };
    meaning(what, status.as_u16(), &message)
}

/// What the API server's word against `what` means.
pub(super) fn meaning(what: &str, code: u16, message: &str) -> RegistryError {
    let said: String = message.trim().chars().take(300).flat_map(char::escape_debug).collect();
    let said = said.replace("\\\"", "\"");
    match code {
        401 => RegistryError::Denied(format!("{what}: our credential is not accepted (401: {said})")),
        403 => RegistryError::Denied(format!("{what} ({said})")),
        410 => RegistryError::Gap(format!("{what}: {said}")),
        429 => RegistryError::Overloaded(format!("{what}: {said}")),
        408 | 500.. => RegistryError::Unreachable(format!("{what}: {code}: {said}")),
        _ => RegistryError::Malformed(format!("{what}: {code}: {said}")),
    }
}

fn unsent(what: &str, error: kube::Error) -> RegistryError {
    let unreachable = |why: String| RegistryError::Unreachable(format!("{what}: {why}"));
    match error {
        kube::Error::Auth(error) => config::no_credential(&error),
        kube::Error::Service(error) => match error.downcast::<kube::client::AuthError>() {
            Ok(error) => config::no_credential(&error),
            Err(error) => match error.downcast::<RegistryError>() {
                Ok(error) => *error,
                Err(error) => unreachable(causes(&*error)),
            },
        },
        error => unreachable(causes(&error)),
    }
}
