//! The HTTP client of every registry that is asked over HTTP: hyper's pooled one, with bounds.
//!
//! Every call has a deadline, by which its answer begins and after which it may not stop, and every answer a greatest size;
//! what a server says in an error is cut and escaped before a person sees it, and a secret that it was sent is not among
//! it: proxies before a server send whole requests back. A client is made when a registry is watched, so certificates are
//! read anew after a failure.

mod patience;
mod settings;
mod streamed;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use weft_core::registry::RegistryError;

use patience::{Broken, SILENCE, WHOLE, flowing};
pub(crate) use patience::{CONNECT, connector, end_when_dead, first_answer};
pub use settings::{ServerSettings, ServerUrl, growing_pause, jittered};

/// How long a connection may be idle and be used again: less than the keep-alive of common servers.
const IDLE: Duration = Duration::from_secs(20);
/// How long a secret is at least, in bytes, that is looked for in answers.
const SHORTEST_SECRET: usize = 8;

/// A client of one server.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    server: Arc<ServerSettings>,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    within: Duration,
    secrets: Secrets,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    what: Arc<str>,
    secrets: Secrets,
}

/// What was sent and is shown to nobody.
#[derive(Clone, Default)]
struct Secrets(Vec<Arc<str>>);

impl Secrets {
    fn add(&mut self, secret: &str) {
        // The scheme before a token is none; neither is a word too short to be told from any other.
        let parts = secret.split_ascii_whitespace().filter(|part| part.len() >= SHORTEST_SECRET);
        self.0.extend(parts.map(Arc::from));
    }

    /// The beginning of a text, at least `length` bytes of it where it has them, with every secret replaced.
    fn hide(&self, text: &[u8], length: usize) -> String {
        let mut shown = Vec::with_capacity(length.min(text.len()));
        let mut rest = text;
        while let (Some(first), true) = (rest.first(), shown.len() < length) {
            let fits = self.0.iter().filter(|secret| rest.starts_with(secret.as_bytes()));
            match fits.map(|secret| secret.len()).max() {
                Some(length) => {
                    shown.extend_from_slice("…".as_bytes());
                    rest = &rest[length..];
                }
                None => {
                    shown.push(*first);
                    rest = &rest[1..];
                }
            }
        }
        String::from_utf8_lossy(&shown).into_owned()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Call {
    /// A call of `path`, with its query, below the server's base; ten seconds to answer, see [`Call::within`].
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let within = Duration::from_secs(10);
        let (headers, secrets) = (HeaderMap::new(), Secrets::default());
        Self { method, path: path.into(), headers, body: Bytes::new(), within, secrets }
    }

    /// A GET.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// With a header. A secret one is marked so, and shown by nobody.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str, secret: bool) -> Self {
        // Tokens are checked to be visible ASCII, and so are all others.
        if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(secret);
            self.headers.insert(name, value);
        }
        if secret { self.secret(value) } else { self }
    }

    /// With a secret in its body, that nobody may be shown when the server sends it back.
    #[must_use]
    pub fn secret(mut self, secret: &str) -> Self {
        self.secrets.add(secret);
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, kind: &'static str, body: impl Into<Bytes>) -> Self {
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        self.body = body.into();
        self
    }

    /// How soon the answer to a GET begins, which may then take minutes where it is long and the link is slow, while more
    /// and more of it comes; how long the whole answer may take to anything else.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// What is asked, without its query, for messages.
    fn what(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }
}

impl HttpClient {
    /// Reads the certificates that the settings name.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn new(server: &Arc<ServerSettings>) -> Result<Self, RegistryError> {
        let connector = server.connector(connector())?;
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .retry_canceled_requests(true)
            .build(connector);
        Ok(Self { client, server: server.clone() })
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &ServerSettings {
        &self.server
    }

    /// The whole answer to a call, whatever its status.
    ///
    /// # Errors
    /// When there is none in time, or it is longer than the server may answer.
    pub async fn send(&self, call: Call) -> Result<Answer, RegistryError> {
        let (what, within, secrets) = (call.what(), call.within, call.secrets.clone());
        // What is written is short, and who writes has to know by then.
        let most = if call.method == Method::GET { within + WHOLE } else { within };
        let whole = async {
            let response = self.begun(call, &what).await?;
            self.whole(response, &what, SILENCE.min(within), secrets).await
        };
        timeout(most, whole).await.unwrap_or_else(|_| Err(late(&what, most)))
    }

    /// The whole answer to a question that costs the server nothing, put again while it is not answered: the first of a
    /// client that does not know whether there is anybody.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn first_answer(&self, call: Call) -> Result<Answer, RegistryError> {
        let late = || late(&call.what(), call.within);
        first_answer(call.within, || self.send(call.clone()), late).await
    }

    /// The answer to a call once it has begun, by the call's deadline.
    async fn begun(&self, call: Call, what: &str) -> Result<Response<Incoming>, RegistryError> {
        let within = call.within;
        timeout(within, self.open(call)).await.unwrap_or_else(|_| Err(late(what, within)))
    }

    /// The whole of an answer that has begun, which may be silent for so long.
    async fn whole(
        &self,
        response: Response<Incoming>,
        what: &str,
        silence: Duration,
        secrets: Secrets,
    ) -> Result<Answer, RegistryError> {
        let longest = self.server.max_answer;
        let (head, body) = response.into_parts();
        let body = flowing(Limited::new(body, longest), silence).await.map_err(|broken| match broken {
            Broken::Silent => stopped(what, silence),
            Broken::Off(error) if error.is::<LengthLimitError>() => too_long(what, longest),
            Broken::Off(error) => broken_off(what, &*error),
        })?;
        let (status, headers) = (head.status, head.headers);
        Ok(Answer { status, headers, body, what: what.into(), secrets })
    }

    /// The head of the answer to a call, with the body to follow; the call's deadline is the caller's to keep.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn open(&self, call: Call) -> Result<Response<Incoming>, RegistryError> {
        let what = call.what();
        let uri = self.server.url.uri(&call.path);
        let request = Request::builder().method(call.method).uri(uri).body(Full::new(call.body));
        let mut request =
            request.map_err(|error| RegistryError::Malformed(format!("{what} cannot be asked: {error}")))?;
        *request.headers_mut() = call.headers;
        self.client.request(request).await.map_err(|error| {
            RegistryError::Unreachable(format!("{what} at {}: {}", self.server.url, causes(&error)))
        })
    }
}

impl Answer {
    /// The answer, when its status says that it is one.
    ///
    /// # Errors
    /// What the status means, with what the server says.
    pub fn ok(self) -> Result<Self, RegistryError> {
        if self.status.is_success() { Ok(self) } else { Err(self.fault()) }
    }

    /// What a status that is no success means.
    #[must_use]
    pub fn fault(&self) -> RegistryError {
        let message = self.told();
        match self.status.as_u16() {
            401 | 403 => RegistryError::Denied(message),
            429 => RegistryError::Overloaded(message),
            408 | 500.. => RegistryError::Unreachable(message),
            _ => RegistryError::Malformed(message),
        }
    }

    /// What was asked, the status, and what the server says.
    #[must_use]
    pub fn told(&self) -> String {
        let said = self.said();
        format!("{}: {}{}{said}", self.what, self.status, if said.is_empty() { "" } else { ": " })
    }

    /// What the server says, as one short line, without secrets that it was sent.
    #[must_use]
    pub fn said(&self) -> String {
        let text = self.secrets.hide(&self.body, 300);
        let mut said = String::new();
        for character in text.trim().chars().take(200) {
            match character {
                // On a line of its own nothing ends at a quote.
                '"' | '\'' => said.push(character),
                _ => said.extend(character.escape_debug()),
            }
        }
        said
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// Says where it is not what was expected.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, RegistryError> {
        serde_json::from_slice(&self.body).map_err(|error| self.malformed(error))
    }

    /// The fault of an answer that makes no sense.
    #[must_use]
    pub fn malformed(&self, why: impl std::fmt::Display) -> RegistryError {
        let why = why.to_string();
        RegistryError::Malformed(format!("{}: {}", self.what, self.secrets.hide(why.as_bytes(), why.len())))
    }

    /// A header as a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// A header as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn late(what: &str, within: Duration) -> RegistryError {
    RegistryError::Unreachable(format!("{what}: no answer within {} s", within.as_secs()))
}

fn stopped(what: &str, silence: Duration) -> RegistryError {
    let seconds = silence.as_secs_f32();
    RegistryError::Unreachable(format!("{what}: the answer stopped: nothing of it came within {seconds} s"))
}

fn broken_off(what: &str, error: &(dyn std::error::Error + 'static)) -> RegistryError {
    RegistryError::Unreachable(format!("{what}: the answer broke off: {}", causes(error)))
}

fn too_long(what: &str, longest: usize) -> RegistryError {
    RegistryError::Malformed(format!("{what}: the answer is longer than max_answer ({longest} bytes)"))
}

/// An error with all its causes: hyper's own says little.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
