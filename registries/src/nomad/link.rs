//! How changes are heard of: by event streams, or by blocking queries where there is none that works.

use std::{future::pending, time::Duration};

use futures_core::future::BoxFuture;
use futures_util::future::{select_all, try_join_all};
use tokio::time::{Instant, sleep, sleep_until};
use weft_core::registry::RegistryError;

use super::{
    client::Client,
    events::{Events, Line},
    objects::StreamEvent,
};
use crate::http_client::jittered;

/// How long more events are waited for after one, so that what changes together is read together.
const GATHER: Duration = Duration::from_millis(10);
/// The most events that are waited for.
const MOST_GATHERED: usize = 500;
/// How long a blocking query waits.
const WAIT_S: u64 = 25;
/// Between two blocking queries: each change costs a reading of everything.
const PAUSE: Duration = Duration::from_secs(1);

/// How changes are heard of.
pub(super) enum Link {
    /// The streams are being opened.
    Opening(BoxFuture<'static, Result<Vec<Events>, RegistryError>>),
    /// The streams: one for each namespace, or one for all of them.
    Open { streams: Vec<Events>, since: Instant, gathered: Vec<StreamEvent>, until: Option<Instant> },
    /// A blocking query.
    Blocking { wait: BoxFuture<'static, Result<u64, RegistryError>>, since: Instant },
    /// Nothing, until somebody decides.
    Down,
}

/// What was heard.
pub(super) enum Heard {
    /// The stream is there.
    Opened,
    /// These changed.
    Events(Vec<StreamEvent>),
    /// Something changed.
    Anything,
    /// A blocking query came back with this index.
    Index(u64),
    /// The stream is not there, or is no more; how long it lived.
    Lost(RegistryError, Duration),
    /// A blocking query failed.
    Failed(RegistryError),
}

impl Link {
    pub(super) fn open(
        client: &Client,
        topics: &'static [&'static str],
        namespaces: Vec<String>,
        index: u64,
    ) -> Self {
        let streams = namespaces.into_iter().map(|namespace| {
            let client = client.clone();
            async move { Events::open(&client, topics, &namespace, index).await }
        });
        Self::Opening(Box::pin(try_join_all(streams)))
    }

    /// Follows by blocking queries since then.
    pub(super) fn block(client: &Client, namespace: &str, index: u64, since: Instant) -> Self {
        let (client, namespace) = (client.clone(), namespace.to_owned());
        let wait = Box::pin(async move {
            sleep(jittered(PAUSE)).await;
            client.services_after(&namespace, index, WAIT_S).await.map(|services| services.index)
        });
        Self::Blocking { wait, since }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Down)
    }

    /// Whether there are several streams: what comes by one says nothing of how far the others are.
    pub(super) fn is_several(&self) -> bool {
        matches!(self, Self::Open { streams, .. } if streams.len() > 1)
    }

    /// For how long it was followed by blocking queries.
    pub(super) fn blocking_for(&self) -> Option<Duration> {
        match self {
            Self::Blocking { since, .. } => Some(since.elapsed()),
            _ => None,
        }
    }

    /// What is heard next. May be given up and called again.
    pub(super) async fn next(&mut self) -> Heard {
        let heard = match self {
            Self::Down => pending().await,
            Self::Opening(opening) => match opening.await {
                Ok(streams) => {
                    let since = Instant::now();
                    *self = Self::Open { streams, since, gathered: Vec::new(), until: None };
                    return Heard::Opened;
                }
                Err(error) => Heard::Lost(error, Duration::ZERO),
            },
            Self::Open { streams, since, gathered, until } => match gather(streams, gathered, until).await {
                Ok(Some(events)) => return Heard::Events(events),
                Ok(None) => return Heard::Anything,
                Err(error) => Heard::Lost(error, since.elapsed()),
            },
            Self::Blocking { wait, .. } => match wait.await {
                Ok(index) => Heard::Index(index),
                Err(error) => Heard::Failed(error),
            },
        };
        // What has ended is not asked again. Who blocks goes on blocking since the same time.
        if !matches!(heard, Heard::Index(_)) {
            *self = Self::Down;
        }
        heard
    }
}

/// The next events, with those that follow at once; none for a line that says nothing but that there are some.
async fn gather(
    streams: &mut [Events],
    gathered: &mut Vec<StreamEvent>,
    until: &mut Option<Instant>,
) -> Result<Option<Vec<StreamEvent>>, RegistryError> {
    loop {
        let enough = *until;
        let over = async move {
            match enough {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        let lines = select_all(streams.iter_mut().map(|events| Box::pin(events.next())));
        let line = tokio::select! {
            (line, ..) = lines => Some(line?),
            () = over => None,
        };
        match line {
            Some(Line::Beat) => {}
            Some(Line::Events(more)) => {
                gathered.extend(more);
                until.get_or_insert_with(|| Instant::now() + GATHER);
            }
            Some(Line::Unreadable) => {
                gathered.clear();
                *until = None;
                return Ok(None);
            }
            None => {}
        }
        if is_over(enough) || gathered.len() >= MOST_GATHERED {
            *until = None;
            return Ok(Some(std::mem::take(gathered)));
        }
    }
}

fn is_over(enough: Option<Instant>) -> bool {
    enough.is_some_and(|enough| Instant::now() >= enough)
}
