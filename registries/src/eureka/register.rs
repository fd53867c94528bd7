//! A local instance at Eureka: registered, renewed by heartbeats, registered again where the server forgot it, and cancelled
//! with its lease.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use weft_core::{
    name::DEFAULT_NAMESPACE,
    registry::{Lease, RegistryError},
    resource::{Endpoint, Health},
};

use super::{
    client::Client,
    objects::{DEFAULT_DURATION, DEFAULT_RENEWAL},
    settings::EurekaSettings,
};
use crate::{
    http_client::{Call, jittered},
    speaking::keys,
};

/// How soon a registration that failed is tried again, at first and at last.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the last word may take when a lease ends.
const GOODBYE: Duration = Duration::from_secs(5);

/// Announces an instance until the lease is dropped. Eureka knows no namespaces, so services of others than `default`
/// cannot be announced.
pub(super) fn announce(settings: Arc<EurekaSettings>, endpoint: &Endpoint) -> Option<Box<dyn Lease>> {
    if endpoint.service.namespace() != DEFAULT_NAMESPACE {
        return None;
    }
    let (stop, stopped) = oneshot::channel();
    let (path, dirty) = (path(endpoint), now());
    let object = object(endpoint, dirty);
    let announced = Announced { settings, path, object, status: status(endpoint.health), dirty };
    tokio::spawn(announced.keep(stopped));
    Some(Box::new(Announcement { _stop: stop }))
}

struct Announcement {
    /// Dropped with the lease: that is the word to withdraw.
    _stop: oneshot::Sender<()>,
}

impl Lease for Announcement {}

struct Announced {
    settings: Arc<EurekaSettings>,
    /// `APP/ID`, as it stands in a path.
    path: (String, String),
    object: Value,
    status: &'static str,
    /// When it last changed, in milliseconds: the server tells by it who knows more.
    dirty: u64,
}

impl Announced {
    async fn keep(self, mut stopped: oneshot::Receiver<()>) {
        let (mut known, mut failing, mut again) = (false, false, AGAIN.0);
        loop {
            let wait = match tokio::select! { _ = &mut stopped => break, said = self.say(known) => said } {
                Ok(is_known) => {
                    known = is_known;
                    failing = false;
                    again = AGAIN.0;
                    if known {
                        jittered(Duration::from_secs(DEFAULT_RENEWAL * 4 / 5))
                    } else {
                        Duration::ZERO
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, instance = self.path.1, "Eureka does not take an announcement");
                    }
                    again = (again * 2).min(AGAIN.1);
                    jittered(again)
                }
            };
            tokio::select! { _ = &mut stopped => break, () = tokio::time::sleep(wait) => {} }
        }
        let (app, id) = &self.path;
        let goodbye = self.send(Call::new(Method::DELETE, format!("/apps/{app}/{id}")));
        match tokio::time::timeout(GOODBYE, goodbye).await {
            Ok(Ok(_)) => {}
            // Its lease runs out there by itself.
            Ok(Err(error)) => tracing::debug!(%error, instance = id, "not withdrawn from Eureka"),
            Err(_) => tracing::debug!(instance = id, "not withdrawn from Eureka in time"),
        }
    }

    /// Registers, or renews what is `known`; returns whether the server knows the instance now.
    async fn say(&self, known: bool) -> Result<bool, RegistryError> {
        let (app, id) = &self.path;
        if !known {
            let body = self.object.to_string();
            let call = Call::new(Method::POST, format!("/apps/{app}")).body("application/json", body);
            return self.send(call).await.map(|_| true);
        }
        let path = format!("/apps/{app}/{id}?status={}&lastDirtyTimestamp={}", self.status, self.dirty);
        let status = self.send(Call::new(Method::PUT, path)).await?;
        Ok(status != StatusCode::NOT_FOUND)
    }

    async fn send(&self, call: Call) -> Result<StatusCode, RegistryError> {
        let answer = Client::new(&self.settings, 0)?.write(call).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(StatusCode::NOT_FOUND),
            _ => answer.ok().map(|answer| answer.status),
        }
    }
}

fn path(endpoint: &Endpoint) -> (String, String) {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    (encoded(&endpoint.service.label().to_uppercase()), encoded(endpoint.instance.as_str()))
}

fn status(health: Health) -> &'static str {
    match health {
        Health::Healthy | Health::Unconfirmed => "UP",
        Health::Draining => "OUT_OF_SERVICE",
        Health::Unhealthy => "DOWN",
    }
}

fn object(endpoint: &Endpoint, dirty: u64) -> Value {
    let address = endpoint.address.socket();
    let secure = endpoint.port_name.as_str() == "https";
    let port = |here: bool, other: u16| {
        let number = if here { address.port() } else { other };
        json!({ "$": number, "@enabled": here.to_string() })
    };
    let mut metadata: serde_json::Map<String, Value> =
        endpoint.labels.iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    let mut say = |key: &str, value: String| drop(metadata.insert(key.to_owned(), value.into()));
    // A mesh port is one of the instance's own address: another one cannot be said.
    let mesh = endpoint.mesh_address.as_ref().map(|mesh| mesh.socket());
    if let (Some(mesh), Some(identity)) = (mesh.filter(|mesh| mesh.ip() == address.ip()), &endpoint.identity)
    {
        say(keys::MESH_PORT, mesh.port().to_string());
        say(keys::IDENTITY, identity.to_string());
    }
    say(keys::WEIGHT, endpoint.weight.to_string());
    let locality = endpoint.locality.to_string();
    if endpoint.locality != Default::default() {
        say(keys::LOCALITY, locality);
    }
    let class = "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo";
    json!({ "instance": {
        "instanceId": endpoint.instance.as_str(),
        "app": endpoint.service.label().to_uppercase(),
        "hostName": address.ip(),
        "ipAddr": address.ip(),
        "vipAddress": endpoint.service.label(),
        "secureVipAddress": endpoint.service.label(),
        "status": status(endpoint.health),
        "port": port(!secure, 80),
        "securePort": port(secure, 443),
        "metadata": metadata,
        "leaseInfo": { "renewalIntervalInSecs": DEFAULT_RENEWAL, "durationInSecs": DEFAULT_DURATION },
        "dataCenterInfo": { "@class": class, "name": "MyOwn" },
        "lastDirtyTimestamp": dirty.to_string(),
    }})
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
