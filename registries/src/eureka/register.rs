//! How a local instance is announced at Eureka: registered, renewed by heartbeats, registered again where the server forgot
//! it, and cancelled.
//!
//! That an instance drains is said by an override, as an operator says it: a server takes `OUT_OF_SERVICE` and `UP` of a
//! registration only for an instance that it does not know, and keeps what it had otherwise. An override outlives
//! registrations too, and this process if it dies, so the instance's metadata says that it is its own agent's: that one is
//! ended when the instance is well again, an operator's is not. So it is looked whose override there is before one is put or
//! ended: an operator's is not replaced, for it could not be told from ours afterwards. Cancelling ends both.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use weft_core::{
    name::DEFAULT_NAMESPACE,
    registry::{LocalInstance, RegisterError, RegistryError},
    resource::{Endpoint, Health},
};

use super::{
    client::Client,
    objects::{DEFAULT_DURATION, DEFAULT_RENEWAL},
    settings::EurekaSettings,
};
use crate::{
    announcing::Place,
    http_client::{Answer, Call},
    speaking::{keys, protocol_word},
};

/// Whether Eureka has words for an instance.
///
/// # Errors
/// Says why not.
pub(super) fn check(instance: &LocalInstance) -> Result<(), RegisterError> {
    let service = &instance.endpoint.service;
    if service.namespace() != DEFAULT_NAMESPACE {
        let reason = format!("`{service}`: Eureka has no namespaces, so `default` alone can be announced");
        return Err(RegisterError::Unfit(reason));
    }
    Ok(())
}

/// How long a word is tried at all servers together. Shorter than withdrawing may take, so that a server that is silent
/// then does not keep it from the others.
const PATIENCE: Duration = Duration::from_secs(4);

/// Eureka's servers.
pub(super) struct EurekaPlace {
    settings: Arc<EurekaSettings>,
    /// Who took the last word in; none after a failure: certificates may be others by now.
    client: Option<Client>,
    /// When the instance last changed, in milliseconds: the server tells by it who knows more.
    dirty: u64,
    /// Whether the server holds it out of service on our word; none while nobody asked.
    overridden: Option<bool>,
}

/// Whose word holds an instance to another status than its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Override {
    /// Nobody's that keeps it from being called.
    None,
    Ours,
    Others,
}

impl EurekaPlace {
    pub(super) fn new(settings: Arc<EurekaSettings>) -> Self {
        Self { settings, client: None, dirty: now(), overridden: None }
    }

    /// Whose override the server holds the instance by. It may be ours of an earlier life.
    async fn held(&mut self, path: &str) -> Result<Override, RegistryError> {
        let call = Call::get(path).header(header::ACCEPT, "application/json", false);
        let answer = self.ask(call).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Override::None);
        }
        let document: Value = answer.ok()?.json()?;
        let listed = &document["instance"];
        let is_marked = self.overridden == Some(true) || !listed["metadata"][keys::DRAINING].is_null();
        let status = listed["overriddenStatus"].as_str().or(listed["overriddenstatus"].as_str());
        Ok(match (status.unwrap_or_default(), is_marked) {
            ("" | "UNKNOWN" | "OUT_OF_SERVICE", true) => Override::Ours,
            ("OUT_OF_SERVICE", false) | ("DOWN", _) => Override::Others,
            _ => Override::None,
        })
    }

    /// Begins or ends an override. Returns whether the server knows the instance.
    async fn overrides(&mut self, method: Method, path: &str, status: &str) -> Result<bool, RegistryError> {
        // Whether the answer arrives or not, it may be in force from here on.
        self.overridden = Some(true);
        let call = Call::new(method, format!("{path}/status?value={status}"));
        Ok(self.send(call).await? != StatusCode::NOT_FOUND)
    }

    async fn send(&mut self, call: Call) -> Result<StatusCode, RegistryError> {
        let answer = self.ask(call).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(StatusCode::NOT_FOUND),
            _ => answer.ok().map(|answer| answer.status),
        }
    }

    async fn ask(&mut self, call: Call) -> Result<Answer, RegistryError> {
        // What is dropped half-way leaves none either.
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::new(&self.settings, 0)?,
        };
        let answer = client.write(call, PATIENCE).await?;
        self.client = Some(client);
        Ok(answer)
    }
}

impl Place for EurekaPlace {
    fn name(&self) -> &str {
        "Eureka"
    }

    fn renewed_every(&self) -> Duration {
        Duration::from_secs(DEFAULT_RENEWAL * 4 / 5)
    }

    async fn announce(&mut self, instance: &LocalInstance) -> Result<(), RegistryError> {
        self.dirty = now().max(self.dirty + 1);
        let (app, id) = path(&instance.endpoint);
        let path = format!("/apps/{app}/{id}");
        let (drains, status) =
            (instance.endpoint.health == Health::Draining, status(instance.endpoint.health));
        let held = match self.overridden {
            Some(false) if !drains => Override::None,
            _ => self.held(&path).await?,
        };
        self.overridden = Some(held == Override::Ours);
        // Before it is registered: a server passes over an override that says what it has already, and what is registered
        // says whose the override is.
        let is_known = match (drains, held) {
            (_, Override::Others) | (false, Override::None) => true,
            (true, _) => self.overrides(Method::PUT, &path, status).await?,
            (false, Override::Ours) => self.overrides(Method::DELETE, &path, status).await?,
        };
        let said = if drains && !is_known { "DOWN" } else { status };
        let is_ours = drains && held != Override::Others;
        let body = object(instance, said, is_ours, self.dirty).to_string();
        let call = Call::new(Method::POST, format!("/apps/{app}")).body("application/json", body);
        if self.send(call).await? == StatusCode::NOT_FOUND {
            return Err(RegistryError::Malformed(format!("POST /apps/{app} is not there")));
        }
        if drains && !is_known && !self.overrides(Method::PUT, &path, status).await? {
            return Err(RegistryError::Unreachable("the server forgot the instance at once".into()));
        }
        self.overridden = Some(is_ours);
        Ok(())
    }

    async fn renew(&mut self, instance: &LocalInstance) -> Result<bool, RegistryError> {
        let (app, id) = path(&instance.endpoint);
        let (status, dirty) = (status(instance.endpoint.health), self.dirty);
        let path = format!("/apps/{app}/{id}?status={status}&lastDirtyTimestamp={dirty}");
        Ok(self.send(Call::new(Method::PUT, path)).await? != StatusCode::NOT_FOUND)
    }

    /// An override goes with the instance. Ended before, it would let the instance be called again.
    async fn withdraw(&mut self, instance: &LocalInstance) -> Result<(), RegistryError> {
        let (app, id) = path(&instance.endpoint);
        self.send(Call::new(Method::DELETE, format!("/apps/{app}/{id}"))).await.map(drop)
    }
}

/// `APP` and `ID`, as they stand in a path.
fn path(endpoint: &Endpoint) -> (String, String) {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    (encoded(&endpoint.service.label().to_uppercase()), encoded(&id(endpoint)))
}

/// Unique in its application, as each port of an instance is announced for itself.
fn id(endpoint: &Endpoint) -> String {
    format!("{}:{}", endpoint.instance, endpoint.port_name)
}

fn status(health: Health) -> &'static str {
    match health {
        Health::Healthy | Health::Unconfirmed => "UP",
        Health::Draining => "OUT_OF_SERVICE",
        Health::Unhealthy => "DOWN",
    }
}

/// What is registered; `is_ours` says that it is held out of service by our own word.
fn object(instance: &LocalInstance, status: &str, is_ours: bool, dirty: u64) -> Value {
    let endpoint = &instance.endpoint;
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
    say(keys::PROTOCOL, protocol_word(instance.port.protocol).into());
    say(keys::WEIGHT, endpoint.weight.to_string());
    let locality = endpoint.locality.to_string();
    if endpoint.locality != Default::default() {
        say(keys::LOCALITY, locality);
    }
    if is_ours {
        say(keys::DRAINING, "true".into());
    }
    let class = "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo";
    json!({ "instance": {
        "instanceId": id(endpoint),
        "app": endpoint.service.label().to_uppercase(),
        "hostName": address.ip(),
        "ipAddr": address.ip(),
        "vipAddress": endpoint.service.label(),
        "secureVipAddress": endpoint.service.label(),
        "status": status,
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

#[cfg(test)]
mod tests {
    use weft_core::resource::{AppProtocol, SaidBy, Sayer, ServicePort, TlsMode};

    use super::*;

    fn announced(port: &str, number: u16) -> LocalInstance {
        let endpoint = Endpoint {
            service: "web".parse().unwrap(),
            port_name: port.parse().unwrap(),
            instance: "host-5.web".parse().unwrap(),
            address: ([10, 0, 0, 5], number).into(),
            mesh_address: None,
            identity: None,
            said_by: SaidBy::all(Sayer::Metadata),
            tls: TlsMode::Off,
            labels: Default::default(),
            weight: 1,
            locality: Default::default(),
            health: Health::Healthy,
        };
        let port = ServicePort { name: port.parse().unwrap(), number, protocol: AppProtocol::Http };
        LocalInstance { endpoint, port, note: String::new() }
    }

    #[test]
    fn ports_of_one_instance_are_announced_beside_each_other() {
        let [http, admin] = [announced("http", 8080), announced("admin", 9090)];
        assert_ne!(path(&http.endpoint), path(&admin.endpoint));
        for it in [http, admin] {
            let object = object(&it, "UP", false, 1);
            let id = object["instance"]["instanceId"].as_str().unwrap();
            let encoded = utf8_percent_encode(id, NON_ALPHANUMERIC).to_string();
            assert_eq!(path(&it.endpoint), ("WEB".to_owned(), encoded));
        }
    }
}
