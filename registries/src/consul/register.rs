//! How a local instance is announced at Consul: registered with the agent that is asked, kept alive by checks that must be
//! renewed, and registered again when Consul forgot it.
//!
//! One check says that somebody renews it, the other how the application is. Where the instance is not withdrawn (the
//! process ended, Consul is away), the first fails after its time and Consul removes the instance a minute later. Consul
//! removes by how long a check is critical, whatever made it so: with one check for both, an application that is ill for
//! a minute would be removed and registered again and again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};
use weft_core::{
    name::DEFAULT_NAMESPACE,
    registry::{LocalInstance, RegisterError, RegistryError},
    resource::Endpoint,
};

use super::{
    access::Access,
    client::{Client, encoded},
    settings::ConsulSettings,
};
use crate::{
    announcing::Place,
    http_client::Answer,
    speaking::{keys, protocol_word},
};

/// How long a check passes without being renewed.
const LIVES: Duration = Duration::from_secs(20);
/// How often they are renewed, before jitter.
const RENEWED: Duration = Duration::from_secs(6);
/// After how long without renewal Consul removes the instance: the shortest that it takes.
const REMOVED_AFTER: &str = "1m";

/// The agent of Consul's that is told.
pub(super) struct ConsulPlace {
    settings: Arc<ConsulSettings>,
    access: Arc<Access>,
    /// None before the first word and after one that failed: certificates are then read anew, which may have been renewed.
    client: Option<Client>,
}

impl ConsulPlace {
    pub(super) fn new(settings: Arc<ConsulSettings>, access: Arc<Access>) -> Self {
        Self { settings, access, client: None }
    }

    async fn put(&mut self, path: &str, body: &Value) -> Result<Answer, RegistryError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::new(&self.settings, self.access.clone())?,
        };
        let answer = client.send(Method::PUT, path, body).await?;
        self.client = Some(client);
        Ok(answer)
    }
}

/// Whether Consul has words for an instance.
///
/// # Errors
/// Says why not.
pub(super) fn check(instance: &LocalInstance, settings: &ConsulSettings) -> Result<(), RegisterError> {
    if let Some(peer) = &settings.peer {
        let reason = format!("what belongs to the peer {peer} is announced there, not here");
        return Err(RegisterError::Unfit(reason));
    }
    let service = &instance.endpoint.service;
    if service.namespace() != DEFAULT_NAMESPACE {
        let reason = format!("`{service}`: Consul has no namespaces here but `default`");
        return Err(RegisterError::Unfit(reason));
    }
    Ok(())
}

impl Place for ConsulPlace {
    fn name(&self) -> &str {
        "Consul"
    }

    fn renewed_every(&self) -> Duration {
        RENEWED
    }

    async fn announce(&mut self, instance: &LocalInstance) -> Result<(), RegistryError> {
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.put(path, &body(instance)).await?.ok()?;
        // A check that exists keeps its status whatever the registration says. Of one that is gone again, the next renewal
        // hears.
        self.renew(instance).await.map(drop)
    }

    async fn renew(&mut self, instance: &LocalInstance) -> Result<bool, RegistryError> {
        let id = id(&instance.endpoint);
        for (check, status, note) in checks(&id, instance) {
            let path = format!("/v1/agent/check/update/{}", encoded(&check));
            let body = json!({ "Status": status, "Output": note });
            let answer = self.put(&path, &body).await?;
            if answer.status.as_u16() == 404 || answer.said().contains("Unknown check") {
                return Ok(false);
            }
            answer.ok()?;
        }
        Ok(true)
    }

    async fn withdraw(&mut self, instance: &LocalInstance) -> Result<(), RegistryError> {
        let path = format!("/v1/agent/service/deregister/{}", encoded(&id(&instance.endpoint)));
        let answer = self.put(&path, &Value::Null).await?;
        if answer.status.as_u16() == 404 { Ok(()) } else { answer.ok().map(drop) }
    }
}

/// Unique among what this agent of Consul's has: one instance may serve several ports.
fn id(endpoint: &Endpoint) -> String {
    format!("weft:{}:{}:{}", endpoint.service.label(), endpoint.port_name, endpoint.instance)
}

/// Both checks of an instance, by id, with what they say now: that it is renewed, and how the application is.
fn checks<'a>(id: &str, instance: &'a LocalInstance) -> [(String, &'static str, &'a str); 2] {
    let status = if instance.is_healthy() { "passing" } else { "critical" };
    [(format!("{id}:alive"), "passing", ""), (format!("{id}:healthy"), status, instance.note.as_str())]
}

fn body(instance: &LocalInstance) -> Value {
    let endpoint = &instance.endpoint;
    let id = id(endpoint);
    let address = endpoint.address.socket();
    let (meta, tags) = record(instance);
    let [(alive, renewed, _), (healthy, status, note)] = checks(&id, instance);
    let lives = format!("{}s", LIVES.as_secs());
    json!({
        "ID": id,
        "Name": endpoint.service.label(),
        "Address": address.ip().to_string(),
        "Port": address.port(),
        "Tags": tags,
        "Meta": meta,
        "Checks": [
            {
                "CheckID": alive,
                "Name": "announced by weft",
                "TTL": lives,
                "Status": renewed,
                "DeregisterCriticalServiceAfter": REMOVED_AFTER,
            },
            { "CheckID": healthy, "Name": "healthy, says weft", "TTL": lives, "Status": status, "Notes": note },
        ],
    })
}

/// What the instance says of itself: as meta, and as tags what would be read from tags.
fn record(instance: &LocalInstance) -> (BTreeMap<String, String>, Vec<String>) {
    let endpoint = &instance.endpoint;
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
    meta.insert(keys::PROTOCOL.into(), protocol_word(instance.port.protocol).into());
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
