//! A watch of etcd's: all there is as of a revision, then what each later one changed.
//!
//! The member must know of a leader while it tells (`hasleader`): one that is cut off from the others ends the watch
//! instead of falling silent.

use std::{collections::VecDeque, time::Duration};

use data_encoding::BASE64;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use http::HeaderName;

use super::{
    super::lines::Lines,
    EtcdStore, after, call,
    messages::{Streamed, Watch, WatchCreate, Watched},
};
use crate::hub::store::{StoreError, Told};

/// After how much silence all is listed again: a member that is stopped says nothing more, and does not hang up.
const SILENCE: Duration = Duration::from_secs(60);

struct Watching<'a> {
    store: &'a EtcdStore,
    prefix: &'a str,
    /// None before the list.
    lines: Option<Lines>,
    told: VecDeque<Told>,
}

pub(super) fn watch<'a>(store: &'a EtcdStore, prefix: &'a str) -> BoxStream<'a, Result<Told, StoreError>> {
    let watching = Watching { store, prefix, lines: None, told: VecDeque::new() };
    let told =
        stream::try_unfold(
            watching,
            |mut watching| async move { Ok(Some((watching.next().await?, watching))) },
        );
    told.boxed()
}

impl Watching<'_> {
    async fn next(&mut self) -> Result<Told, StoreError> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Ok(told);
            }
            let Some(lines) = &mut self.lines else { return self.begin().await };
            match tokio::time::timeout(SILENCE, lines.next()).await {
                Ok(Ok(Some(line))) => self.hear(&line)?,
                Ok(Ok(None)) => return Err(StoreError::Unreachable("etcd ended the watch".to_owned())),
                Ok(Err(why)) => return Err(StoreError::Unreachable(why)),
                // Another member may know more.
                Err(_silence) => {
                    self.store.servers.turn();
                    self.lines = None;
                }
            }
        }
    }

    /// Lists, and opens the watch behind the list.
    async fn begin(&mut self) -> Result<Told, StoreError> {
        let (entries, revision) = self.store.list_at(self.prefix).await?;
        let first = format!("{}{}", self.store.prefix, self.prefix).into_bytes();
        let question = Watch {
            create_request: WatchCreate {
                key: &BASE64.encode(&first),
                range_end: &BASE64.encode(&after(&first)),
                start_revision: (revision + 1).to_string(),
            },
        };
        let has_leader = HeaderName::from_static("grpc-metadata-hasleader");
        let call = self.store.with_token(call("/v3/watch", &question)?).await?;
        let response = self.store.servers.open(call.header(has_leader, "true", false)).await?;
        if !response.status().is_success() {
            return Err(StoreError::Failed(format!("etcd refuses the watch: {}", response.status())));
        }
        self.lines = Some(Lines::new(response.into_body()));
        Ok(Told::All(entries))
    }

    fn hear(&mut self, line: &[u8]) -> Result<(), StoreError> {
        let heard: Streamed<Watched> = serde_json::from_slice(line)
            .map_err(|fault| StoreError::Failed(format!("a word of etcd's watch: {fault}")))?;
        if let Some(fault) = heard.error {
            // Without a leader, or with a token that has expired: taken up anew.
            return Err(StoreError::Unreachable(format!("etcd ended the watch: {}", fault.message)));
        }
        let Some(watched) = heard.result else { return Ok(()) };
        if watched.canceled {
            // Compacted beyond our revision, for one: a new watch lists again.
            return Err(StoreError::Unreachable(format!("etcd ended the watch: {}", watched.cancel_reason)));
        }
        for happened in &watched.events {
            self.told.push_back(match happened.kind.as_str() {
                "DELETE" => Told::Gone(self.store.key_of(&happened.kv)?),
                _ => Told::Put(self.store.entry(&happened.kv)?),
            });
        }
        Ok(())
    }
}
