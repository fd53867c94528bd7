//! What is asked of Eureka's servers, one after the other until one answers.

use std::{
    io::{BufReader, Read},
    sync::Arc,
    time::{Duration, SystemTime},
};

use data_encoding::BASE64;
use http::{HeaderMap, StatusCode, header};
use tokio::time::timeout;
use weft_core::registry::RegistryError;

use super::{
    catalog::{Catalog, Changes, Whole},
    convert::Context,
    list::{self, Head},
    objects::Instance,
    settings::EurekaSettings,
};
use crate::http_client::{Answer, Call, HttpClient};

/// The servers, and which of them is asked.
pub(super) struct Client {
    settings: Arc<EurekaSettings>,
    context: Arc<Context>,
    clients: Vec<HttpClient>,
    current: usize,
    /// Whether anybody answered yet.
    answered: bool,
}

/// A list as it was told.
pub(super) struct Told<T> {
    pub(super) list: T,
    /// When, by the server's clock, in milliseconds; by ours where it does not say.
    pub(super) at: u64,
    /// How long the answer was, in bytes.
    pub(super) length: usize,
}

impl Client {
    /// Reads the certificates that the settings name. Asks the server `first` first.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn new(settings: &Arc<EurekaSettings>, first: usize) -> Result<Self, RegistryError> {
        let clients = settings.servers.iter().map(HttpClient::new).collect::<Result<Vec<_>, _>>()?;
        let context = Context {
            rules: settings.rules.clone(),
            trust_domain: settings.trust_domain.clone(),
            region: settings.region.clone(),
        };
        Ok(Self {
            settings: settings.clone(),
            context: context.into(),
            current: first % clients.len().max(1),
            clients,
            answered: false,
        })
    }

    /// Which server is asked.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// What is the same for all instances.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// All instances, from the first server that answers.
    ///
    /// # Errors
    /// That of the server that was asked first, when none does.
    pub(super) async fn all(&mut self) -> Result<Told<Whole>, RegistryError> {
        let mut first = None;
        for _ in 0..self.clients.len() {
            match self.whole().await {
                Ok(told) => {
                    self.answered = true;
                    return Ok(told);
                }
                Err(error) => {
                    first.get_or_insert(error);
                    self.current = (self.current + 1) % self.clients.len();
                }
            }
        }
        Err(first.unwrap_or_else(|| RegistryError::Unreachable("no server is named".into())))
    }

    /// What changed in the last minutes and `known` has not, from the server that told all; none when it tells no changes.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn changes(&self, known: &Arc<Catalog>) -> Result<Option<Told<Changes>>, RegistryError> {
        let (known, context) = (known.clone(), self.context.clone());
        let take =
            move |at, body: &mut dyn Read| Changes::take(&known, &context, at, |each| instances(body, each));
        match self.get("/apps/delta", take).await? {
            Ok(told) => Ok(Some(told)),
            // Told not to: `eureka.server.disable-delta`.
            Err(answer) if [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&answer.status) => {
                Ok(None)
            }
            Err(answer) => Err(answer.fault()),
        }
    }

    async fn whole(&self) -> Result<Told<Whole>, RegistryError> {
        if !self.answered {
            // What a list costs is asked of one that is there: nobody has this name.
            let nobody = self.with_credential(Call::get("/apps/-")).await?;
            self.clients[self.current].first_answer(nobody).await?;
        }
        self.list("/apps").await
    }

    async fn list(&self, path: &str) -> Result<Told<Whole>, RegistryError> {
        let context = self.context.clone();
        let take = move |at, body: &mut dyn Read| Whole::take(&context, at, |each| instances(body, each));
        let answer = match self.get(path, take).await? {
            Ok(told) => return Ok(told),
            Err(answer) => answer,
        };
        Err(match answer.status {
            StatusCode::NOT_FOUND => {
                let url = &self.clients[self.current].server().url;
                RegistryError::Malformed(format!(
                    "{url}{path} is not there: a server's address ends in /eureka, as in http://host:8761/eureka"
                ))
            }
            // A server that copied from nobody waits before it lets itself be read.
            StatusCode::FORBIDDEN if self.settings.username.is_none() && answer.body.is_empty() => {
                RegistryError::Unreachable("it has just started and does not list anything yet".into())
            }
            _ => answer.fault(),
        })
    }

    /// Has a list read while it comes; an answer that is none comes whole.
    async fn get<T: Send + 'static>(
        &self,
        path: &str,
        take: impl FnOnce(u64, &mut dyn Read) -> Result<T, serde_json::Error> + Send + 'static,
    ) -> Result<Result<Told<T>, Answer>, RegistryError> {
        let call = Call::get(path).header(header::ACCEPT, "application/json", false);
        let call = self.with_credential(call).await?;
        let read = move |headers: &HeaderMap, body: &mut dyn Read| {
            let at = told_at(headers);
            Ok((take(at, body)?, at))
        };
        let read = self.clients[self.current].read(call, read).await?;
        Ok(read.map(|((list, at), length)| Told { list, at, length }))
    }

    /// A word to the first server that takes it in: they pass it on to each other. Whoever took the last one in is asked
    /// first. All of them have `patience` together.
    ///
    /// # Errors
    /// That of the server that was asked first, when none answers.
    pub(super) async fn write(&mut self, call: Call, patience: Duration) -> Result<Answer, RegistryError> {
        let mut first = None;
        let each = patience / u32::try_from(self.clients.len()).unwrap_or(u32::MAX).max(1);
        for _ in 0..self.clients.len() {
            let late = |_| Err(RegistryError::Unreachable("no answer in time".into()));
            match timeout(each, self.send(call.clone())).await.unwrap_or_else(late) {
                Ok(answer) if !answer.status.is_server_error() => return Ok(answer),
                Ok(answer) => {
                    first.get_or_insert(answer.fault());
                }
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
            self.current = (self.current + 1) % self.clients.len();
        }
        Err(first.unwrap_or_else(|| RegistryError::Unreachable("no server is named".into())))
    }

    /// Any call, with the credential.
    ///
    /// # Errors
    /// When there is no answer or no credential.
    async fn send(&self, call: Call) -> Result<Answer, RegistryError> {
        self.clients[self.current].send(self.with_credential(call).await?).await
    }

    async fn with_credential(&self, call: Call) -> Result<Call, RegistryError> {
        Ok(match (&self.settings.username, self.settings.password.token().await?) {
            (Some(name), Some(password)) => {
                let text = BASE64.encode(format!("{name}:{}", password.secret()).as_bytes());
                call.header(header::AUTHORIZATION, &format!("Basic {text}"), true)
            }
            _ => call,
        })
    }
}

fn told_at(headers: &HeaderMap) -> u64 {
    let text = headers.get(header::DATE).and_then(|value| value.to_str().ok());
    let says = text.and_then(|text| httpdate::parse_http_date(text).ok()).unwrap_or_else(SystemTime::now);
    let at = says.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(at).unwrap_or(u64::MAX)
}

/// Reads a document to its end.
///
/// # Errors
/// When it is no list.
pub(super) fn instances(
    document: impl Read,
    each: &mut dyn FnMut(Instance),
) -> Result<Head, serde_json::Error> {
    let mut document = serde_json::Deserializer::from_reader(BufReader::new(document));
    let head = list::read(&mut document, each)?;
    document.end()?;
    Ok(head)
}
