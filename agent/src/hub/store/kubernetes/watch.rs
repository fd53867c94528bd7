//! A watch of ConfigMaps: all there is as of a version, then each change behind it. One that breaks off is taken up where it
//! was; one that cannot be (410) begins anew.

use std::{collections::VecDeque, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use http::Request;
use weft_registries::kubernetes::api::Lines;

use super::{
    Inner, Kind,
    objects::{ConfigMap, Happened, STORE, selector},
};
use crate::hub::store::{StoreError, Told, servers::meaning};

/// How long the API server lets a watch go on, in seconds; it tells where it is at the latest then.
const LASTS: u64 = 50;
/// After how much silence nobody is there.
const SILENCE: Duration = Duration::from_secs(60);

struct Watching<'a> {
    inner: &'a Inner,
    prefix: &'a str,
    /// None before the list.
    version: Option<String>,
    lines: Option<Lines>,
    told: VecDeque<Told>,
}

pub(super) fn watch<'a>(inner: &'a Inner, prefix: &'a str) -> BoxStream<'a, Result<Told, StoreError>> {
    let watching = Watching { inner, prefix, version: None, lines: None, told: VecDeque::new() };
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
            let Some(version) = &self.version else {
                let (objects, version) =
                    self.inner.list::<ConfigMap>(Kind::ConfigMaps, &selector(self.prefix)).await?;
                let entries = self.inner.entries(objects, self.prefix).await?;
                self.version = Some(version);
                return Ok(Told::All(entries));
            };
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => self.lines.insert(open(self.inner, self.prefix, version).await?),
            };
            match tokio::time::timeout(SILENCE, lines.next()).await {
                Ok(Ok(Some(line))) => self.hear(&line)?,
                // Its time is over.
                Ok(Ok(None)) => self.lines = None,
                Ok(Err(fault)) => return Err(meaning(fault)),
                Err(_) => return Err(StoreError::Unreachable("the API server is silent".to_owned())),
            }
        }
    }

    fn hear(&mut self, line: &[u8]) -> Result<(), StoreError> {
        let heard: Happened = super::read(line)?;
        if heard.kind == "ERROR" {
            let code = heard.object["code"].as_u64().unwrap_or_default();
            if code != 410 {
                return Err(StoreError::Unreachable(format!("the API server ended the watch: {code}")));
            }
            (self.version, self.lines) = (None, None);
            return Ok(());
        }
        let object: ConfigMap = serde_json::from_value(heard.object)
            .map_err(|fault| StoreError::Failed(format!("a word of the API server's: {fault}")))?;
        self.version = Some(object.metadata.resource_version.clone());
        if heard.kind == "BOOKMARK" {
            return Ok(());
        }
        let found = self.inner.found(&object).filter(|entry| entry.key.starts_with(self.prefix));
        self.told.extend(found.map(|entry| match heard.kind.as_str() {
            "DELETED" => Told::Gone(entry.key),
            _ => Told::Put(entry),
        }));
        Ok(())
    }
}

async fn open(inner: &Inner, prefix: &str, version: &str) -> Result<Lines, StoreError> {
    let selector = format!("{STORE}%3D{}{}", inner.label, selector(prefix));
    let path = format!(
        "{}?watch=1&allowWatchBookmarks=true&labelSelector={selector}&resourceVersion={version}&timeoutSeconds={LASTS}",
        inner.path(Kind::ConfigMaps, "")
    );
    let request =
        Request::get(path).body(Vec::new()).map_err(|fault| StoreError::Failed(fault.to_string()))?;
    inner.client().await?.lines(&inner.what("watch", Kind::ConfigMaps), request).await.map_err(meaning)
}
