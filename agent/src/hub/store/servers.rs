//! The servers of one store: whichever answers is as good as the others, so they are asked in turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Response, StatusCode};
use hyper::body::Incoming;
use weft_core::registry::RegistryError;
use weft_registries::http_client::{Answer, Call, HttpClient, ServerSettings};

use super::StoreError;

/// How long a server may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long all of them may take, one after the other, but for the last chances: who asks a hub that asks its store waits
/// ten seconds.
const ANSWERS: Duration = Duration::from_secs(6);
/// How long each may take at least.
const CHANCE: Duration = Duration::from_secs(1);

/// The servers, of which one is asked until it fails.
#[derive(Clone)]
pub(super) struct Servers {
    clients: Arc<[HttpClient]>,
    /// Which one is asked; counts on, and is taken modulo their number.
    current: Arc<AtomicUsize>,
}

impl Servers {
    /// Reads the certificates that the settings name.
    ///
    /// # Errors
    /// When one cannot be read, or there is no server.
    pub(super) fn new(servers: &[ServerSettings]) -> Result<Self, StoreError> {
        let clients: Result<Arc<[_]>, _> =
            servers.iter().map(|server| HttpClient::new(&Arc::new(server.clone()))).collect();
        let clients = clients.map_err(meaning)?;
        if clients.is_empty() {
            return Err(StoreError::Failed("no server is named".to_owned()));
        }
        Ok(Self { clients, current: Arc::default() })
    }

    /// Where they are.
    pub(super) fn describe(&self) -> String {
        let urls: Vec<_> = self.clients.iter().map(|client| client.server().url.to_string()).collect();
        urls.join(", ")
    }

    /// The answer to what may be asked twice, of the first server that has one.
    pub(super) async fn ask(&self, call: &Call) -> Result<Answer, StoreError> {
        let (mut fault, until) = (None, Instant::now() + ANSWERS);
        for others in (0..u32::try_from(self.clients.len()).unwrap_or(u32::MAX)).rev() {
            // The one that answered last has most of it; the others have a chance.
            let left = until.saturating_duration_since(Instant::now());
            let share = left.saturating_sub(CHANCE.saturating_mul(others)).clamp(CHANCE, ANSWER);
            match self.ask_for(call.clone(), share).await {
                Err(StoreError::Unreachable(why)) => fault = Some(StoreError::Unreachable(why)),
                outcome => return outcome,
            }
        }
        Err(fault.unwrap_or_else(|| StoreError::Failed("no server is named".to_owned())))
    }

    /// The answer to what must not happen twice. Where none comes it may have happened.
    pub(super) async fn ask_once(&self, call: Call) -> Result<Answer, StoreError> {
        self.ask_for(call, ANSWER).await
    }

    /// The answer of one server within so long.
    pub(super) async fn ask_for(&self, call: Call, within: Duration) -> Result<Answer, StoreError> {
        let (turn, client) = self.current();
        let outcome = client.send(call.within(within)).await;
        let outcome =
            outcome.and_then(|answer| if is_away(answer.status) { Err(answer.fault()) } else { Ok(answer) });
        outcome.map_err(|fault| self.failed(turn, fault))
    }

    /// The head of an answer whose body goes on.
    pub(super) async fn open(&self, call: Call) -> Result<Response<Incoming>, StoreError> {
        let (turn, client) = self.current();
        let opened = tokio::time::timeout(ANSWER, client.open(call)).await;
        let late = |_| RegistryError::Unreachable(format!("no answer within {} s", ANSWER.as_secs()));
        let response =
            opened.map_err(late).and_then(|opened| opened).map_err(|fault| self.failed(turn, fault))?;
        if is_away(response.status()) {
            let why = RegistryError::Unreachable(format!("it answers {}", response.status()));
            return Err(self.failed(turn, why));
        }
        Ok(response)
    }

    /// Asks another server next.
    pub(super) fn turn(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    fn current(&self) -> (usize, &HttpClient) {
        let turn = self.current.load(Ordering::Relaxed);
        (turn, &self.clients[turn % self.clients.len()])
    }

    /// What a fault means, with the server that has it; the next one is asked from here on.
    fn failed(&self, turn: usize, fault: RegistryError) -> StoreError {
        let url = self.clients[turn % self.clients.len()].server().url.to_string();
        // Of several that failed at the same time one goes on.
        let _turned =
            self.current.compare_exchange(turn, turn.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        meaning(match fault {
            RegistryError::Unreachable(why) if !why.contains(&url) => {
                RegistryError::Unreachable(format!("{url}: {why}"))
            }
            fault => fault,
        })
    }
}

/// Whether a status says that this server cannot answer now.
fn is_away(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 429)
}

/// What the client's fault means to who wanted something of the store.
pub(super) fn meaning(fault: RegistryError) -> StoreError {
    match fault {
        RegistryError::Unreachable(why) | RegistryError::Overloaded(why) => StoreError::Unreachable(why),
        RegistryError::Denied(why) => StoreError::Denied(why),
        fault => StoreError::Failed(fault.to_string()),
    }
}
