//! What is asked of Eureka's servers, one after the other until one answers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use data_encoding::BASE64;
use http::{StatusCode, header};
use tokio::time::timeout;
use weft_core::registry::RegistryError;

use super::{objects::Applications, settings::EurekaSettings};
use crate::http_client::{Answer, Call, HttpClient};

/// The servers, and which of them is asked.
pub(super) struct Client {
    settings: Arc<EurekaSettings>,
    clients: Vec<HttpClient>,
    current: usize,
    /// Whether anybody answered yet.
    answered: bool,
}

/// A list, and when it was told.
pub(super) struct Told {
    pub(super) list: Applications,
    /// The server's clock, in milliseconds; ours where it does not say.
    pub(super) at: u64,
}

impl Client {
    /// Reads the certificates that the settings name. Asks the server `first` first.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn new(settings: &Arc<EurekaSettings>, first: usize) -> Result<Self, RegistryError> {
        let clients = settings.servers.iter().map(HttpClient::new).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            settings: settings.clone(),
            current: first % clients.len().max(1),
            clients,
            answered: false,
        })
    }

    /// Which server is asked.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// All instances, from the first server that answers.
    ///
    /// # Errors
    /// That of the server that was asked first, when none does.
    pub(super) async fn all(&mut self) -> Result<Told, RegistryError> {
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

    /// What changed in the last minutes, from the server that told all; none when it tells no changes.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn changes(&self) -> Result<Option<Told>, RegistryError> {
        let answer = self.get("/apps/delta").await?;
        match answer.status {
            // Told not to: `eureka.server.disable-delta`.
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(None),
            _ => told(&answer.ok()?).map(Some),
        }
    }

    async fn whole(&self) -> Result<Told, RegistryError> {
        if !self.answered {
            // What a list costs is asked of one that is there: nobody has this name.
            let nobody = self.with_credential(Call::get("/apps/-")).await?;
            self.clients[self.current].first_answer(nobody).await?;
        }
        self.list("/apps").await
    }

    async fn list(&self, path: &str) -> Result<Told, RegistryError> {
        let answer = self.get(path).await?;
        match answer.status {
            StatusCode::NOT_FOUND => {
                let url = &self.clients[self.current].server().url;
                Err(RegistryError::Malformed(format!(
                    "{url}{path} is not there: a server's address ends in /eureka, as in http://host:8761/eureka"
                )))
            }
            // A server that copied from nobody waits before it lets itself be read.
            StatusCode::FORBIDDEN if self.settings.username.is_none() && answer.body.is_empty() => {
                Err(RegistryError::Unreachable("it has just started and does not list anything yet".into()))
            }
            _ => told(&answer.ok()?),
        }
    }

    async fn get(&self, path: &str) -> Result<Answer, RegistryError> {
        let call = Call::get(path).header(header::ACCEPT, "application/json", false);
        self.send(call).await
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

fn told(answer: &Answer) -> Result<Told, RegistryError> {
    let says = answer
        .text("date")
        .and_then(|text| httpdate::parse_http_date(text).ok())
        .unwrap_or_else(SystemTime::now);
    let at = says.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    Ok(Told { list: answer.json()?, at: u64::try_from(at).unwrap_or(u64::MAX) })
}
