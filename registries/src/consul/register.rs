//! Announcing a local instance: registered with the agent that is asked, kept alive by a check that must be renewed, and
//! registered again when Consul forgot it.
//!
//! Everything happens in one task for each instance, so that a caller never waits for Consul. When the lease is dropped
//! the task withdraws the instance; where it cannot (the process ends, Consul is away), the check fails after its time and
//! Consul removes the instance a minute later.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use weft_core::{
    driver::Backoff,
    name::DEFAULT_NAMESPACE,
    registry::{Lease, RegistryError},
    resource::{Endpoint, Health},
};

use super::client::{Client, encoded};
use crate::{http_client::jittered, speaking::keys};

/// How long the check passes without being renewed.
const LIVES: Duration = Duration::from_secs(20);
/// How often it is renewed, before jitter.
const RENEWED: Duration = Duration::from_secs(6);
/// After how long without renewal Consul removes the instance: the shortest that it takes.
const REMOVED_AFTER: &str = "1m";
/// How long withdrawing is tried.
const WITHDRAWING: Duration = Duration::from_secs(10);

/// An instance that is announced until this is dropped.
struct Announced {
    _withdraw: oneshot::Sender<()>,
}

impl Lease for Announced {}

/// Announces an instance; none when it cannot be said to Consul.
pub(super) fn announce(client: Client, endpoint: &Arc<Endpoint>) -> Option<Box<dyn Lease>> {
    if endpoint.service.namespace() != DEFAULT_NAMESPACE {
        tracing::warn!(service = %endpoint.service, "not announced: Consul has no namespaces here but `default`");
        return None;
    }
    let (withdraw, withdrawn) = oneshot::channel();
    let announcing = Announcing { client, id: id(endpoint), body: body(endpoint) };
    tokio::spawn(announcing.keep(withdrawn));
    Some(Box::new(Announced { _withdraw: withdraw }))
}

struct Announcing {
    client: Client,
    id: String,
    body: Value,
}

impl Announcing {
    async fn keep(self, mut withdrawn: oneshot::Receiver<()>) {
        let mut backoff = Backoff::default();
        let (mut registered, mut failing) = (false, false);
        loop {
            let kept = tokio::select! {
                kept = self.keep_once(registered) => kept,
                _ = &mut withdrawn => break,
            };
            let pause = match kept {
                Ok(()) => {
                    if failing || !registered {
                        tracing::info!(instance = %self.id, "announced in Consul");
                    }
                    (registered, failing) = (true, false);
                    backoff.succeeded();
                    jittered(RENEWED)
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(instance = %self.id, %error, "cannot be announced in Consul; tried again");
                    }
                    failing = true;
                    backoff.next(&error).min(RENEWED)
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                _ = &mut withdrawn => break,
            }
        }
        self.withdraw().await;
    }

    /// Renews the check, and registers the instance where it is not known (any more).
    async fn keep_once(&self, registered: bool) -> Result<(), RegistryError> {
        if registered && self.renew().await? {
            return Ok(());
        }
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.client.send(Method::PUT, path, &self.body).await?.ok().map(drop)
    }

    /// Whether the check was there to be renewed.
    async fn renew(&self) -> Result<bool, RegistryError> {
        let path = format!("/v1/agent/check/update/{}", encoded(&check_id(&self.id)));
        let answer = self.client.send(Method::PUT, &path, &json!({ "Status": "passing" })).await?;
        let unknown = answer.status.as_u16() == 404 || answer.said().contains("Unknown check");
        if unknown { Ok(false) } else { answer.ok().map(|_| true) }
    }

    async fn withdraw(&self) {
        let path = format!("/v1/agent/service/deregister/{}", encoded(&self.id));
        let until = Instant::now() + WITHDRAWING;
        let mut backoff = Backoff::default();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let asked = timeout(left, self.client.send(Method::PUT, &path, &Value::Null)).await;
            let asked = asked.unwrap_or_else(|_| Err(RegistryError::Unreachable("no answer in time".into())));
            let gone = asked.and_then(|answer| match answer.status.as_u16() {
                404 => Ok(()),
                _ => answer.ok().map(drop),
            });
            let Err(error) = gone else { return };
            let pause = backoff.next(&error);
            if Instant::now() + pause >= until {
                tracing::warn!(instance = %self.id, %error, "not withdrawn from Consul: its check will fail");
                return;
            }
            sleep(pause).await;
        }
    }
}

/// Unique among what this agent of Consul's has: one instance may serve several ports.
fn id(endpoint: &Endpoint) -> String {
    format!("weft:{}:{}:{}", endpoint.service.label(), endpoint.port_name, endpoint.instance)
}

fn check_id(id: &str) -> String {
    format!("{id}:alive")
}

fn body(endpoint: &Endpoint) -> Value {
    let id = id(endpoint);
    let address = endpoint.address.socket();
    let (meta, tags) = record(endpoint);
    let status = if endpoint.health == Health::Unhealthy { "critical" } else { "passing" };
    json!({
        "ID": id,
        "Name": endpoint.service.label(),
        "Address": address.ip().to_string(),
        "Port": address.port(),
        "Tags": tags,
        "Meta": meta,
        "Check": {
            "CheckID": check_id(&id),
            "Name": "announced by weft",
            "TTL": format!("{}s", LIVES.as_secs()),
            "Status": status,
            "DeregisterCriticalServiceAfter": REMOVED_AFTER,
        },
    })
}

/// What the instance says of itself: as meta, and as tags what would be read from tags.
fn record(endpoint: &Endpoint) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut meta, mut tags) = (BTreeMap::new(), Vec::new());
    for (key, value) in endpoint.labels.iter() {
        match key.strip_prefix("tag.") {
            Some(tag) if value == "true" => tags.push(tag.to_owned()),
            Some(tag) => tags.push(format!("{tag}={value}")),
            None if is_meta(key, value) => drop(meta.insert(key.to_owned(), value.to_owned())),
            None => {
                tracing::warn!(label = key, instance = %endpoint.instance, "a label that Consul's meta cannot hold")
            }
        }
    }
    if let Some(mesh) = &endpoint.mesh_address {
        let port = mesh.socket().port().to_string();
        meta.insert(keys::MESH_PORT.into(), port);
    }
    if let Some(identity) = &endpoint.identity {
        meta.insert(keys::IDENTITY.into(), identity.to_string());
    }
    meta.insert(keys::WEIGHT.into(), endpoint.weight.to_string());
    let locality = endpoint.locality.to_string();
    if !locality.is_empty() {
        meta.insert(keys::LOCALITY.into(), locality);
    }
    (meta, tags)
}

/// What Consul takes as meta: 128 letters, digits, dashes and underscores as a key, 512 bytes as a value.
fn is_meta(key: &str, value: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !key.is_empty() && key.len() <= 128 && key.bytes().all(fits) && value.len() <= 512
}
