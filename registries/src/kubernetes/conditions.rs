//! Writes into our own objects how they were understood, one after the other.
//!
//! A patch names the version that it is about, so that nothing said meanwhile is undone: who was overtaken sees the newer
//! object, and judges that. What cannot be written changes nothing of what is in force.

use std::{collections::BTreeMap, time::Duration};

use futures_core::future::BoxFuture;
use http::Request;
use k8s_openapi::jiff::Timestamp;
use kube::{
    api::{Patch, PatchParams},
    core::Request as Path,
};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use weft_core::registry::RegistryError;

use super::{client::Client, configured::Verdict, objects::Kind};
use crate::http_client::jittered;

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(10);

/// What is still to be written.
pub(super) struct Conditions {
    client: Client,
    wanted: BTreeMap<(Kind, Option<String>, String), Verdict>,
    writing: Option<BoxFuture<'static, Result<(), RegistryError>>>,
    not_before: Instant,
}

impl Conditions {
    pub(super) fn new(client: Client) -> Self {
        Self { client, wanted: BTreeMap::new(), writing: None, not_before: Instant::now() }
    }

    /// Takes in what is to be written; of an object the last counts.
    pub(super) fn want(&mut self, verdicts: Vec<Verdict>) {
        for verdict in verdicts {
            let place = &verdict.place;
            self.wanted.insert((place.kind, place.namespace.clone(), verdict.name.clone()), verdict);
        }
    }

    /// Waits until one was written, or could not be: then it says why. May be given up and called again.
    pub(super) async fn next(&mut self) -> Option<String> {
        if self.writing.is_none() {
            if self.wanted.is_empty() {
                std::future::pending::<()>().await;
            }
            sleep_until(self.not_before).await;
            let (_, verdict) = self.wanted.pop_first()?;
            let client = self.client.clone();
            self.writing = Some(Box::pin(async move { write(&client, verdict).await }));
        }
        let written = self.writing.as_mut()?.await;
        self.writing = None;
        let why = written.err()?;
        self.not_before = Instant::now() + jittered(PAUSE);
        Some(why.to_string())
    }
}

async fn write(client: &Client, mut verdict: Verdict) -> Result<(), RegistryError> {
    // To the second, as everybody else writes it.
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for condition in verdict.conditions.iter_mut().filter(|it| it.last_transition_time.is_empty()) {
        condition.last_transition_time.clone_from(&now);
    }
    let what = format!("{}/status", verdict.place.describe("patch"));
    match client.short(&what, request(&what, &verdict)?).await {
        // Somebody changed it meanwhile (409), or took it away (404).
        Err(RegistryError::Malformed(why)) if [": 409: ", ": 404: "].iter().any(|it| why.contains(it)) => {
            Ok(())
        }
        answer => answer.map(drop),
    }
}

fn request(what: &str, verdict: &Verdict) -> Result<Request<Vec<u8>>, RegistryError> {
    let path = Path::new(verdict.place.kind.path(verdict.place.namespace.as_deref()));
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": verdict.resource_version },
        "status": { "conditions": verdict.conditions },
    }));
    path.patch_subresource("status", &verdict.name, &PatchParams::default(), &patch)
        .map_err(|error| RegistryError::Malformed(format!("{what} cannot be asked: {error}")))
}
