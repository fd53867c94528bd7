//! A registry that is a JSON document on a web server: what it takes to bring a catalog of one's own into the mesh.
//!
//! `docs/writing-a-registry.md` walks through this file. Three parts, as every registry has them: settings (what the
//! section says), conversion (pure: a document in, words out, whatever is in it), and the loop.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use weft_agent::registries::{
    BuildError, Environment, Kind, Settings,
    address::{endpoint_address, read_ip},
    http_client::{Call, HttpClient, ServerSettings, jittered},
    names::{fault, origin_name, service_name},
    speaking::{Instance, Recorded, Rules, keys},
    told::{Listing, Told, Words, bounded},
};
use weft_core::{
    config::Section,
    identity::TrustDomain,
    name::{InstanceName, OriginName, PortName, RegistryName, ServiceName},
    registry::{Capabilities, Completeness, Event, OriginFault, Registry, RegistryError, Resume, Scope},
    resource::{Endpoint, Health, Resource, Service, ServicePort},
};

/// What the binary is told of it.
pub const KIND: Kind = Kind { word: "json", read };

/// What a `kind = "json"` section says.
#[derive(Debug)]
struct JsonSettings {
    server: Arc<ServerSettings>,
    poll: Duration,
    rules: Rules,
}

/// Reads the section. Whatever is wrong with it was reported, with its place, when this yields none.
fn read(section: &Section<'_>) -> Option<Arc<dyn Settings>> {
    let server = ServerSettings::read(section, "http://127.0.0.1:8090");
    let poll = section.read_or("poll", Duration::from_secs(5));
    let rules = Rules::read(section, &[]);
    Some(Arc::new(JsonSettings { server: Arc::new(server?), poll, rules: rules? }))
}

impl Settings for JsonSettings {
    fn build(&self, name: &RegistryName, environment: &Environment) -> Result<Arc<dyn Registry>, BuildError> {
        Ok(Arc::new(JsonRegistry {
            name: name.clone(),
            server: self.server.clone(),
            poll: self.poll,
            around: Around { rules: self.rules.clone(), trust_domain: environment.trust_domain.clone() },
        }))
    }
}

/// The document: `GET /services.json`. Whatever somebody else writes into it is read one by one: as a list of services it
/// would be all or nothing, and the mistake of one team would freeze what all others say.
#[derive(Deserialize)]
struct Document {
    services: Vec<Value>,
}

/// Numbers are as wide as JSON has them: that a port is none is to be told, of that service alone.
#[derive(Deserialize)]
struct JsonService {
    name: String,
    port: u64,
    instances: Vec<Value>,
}

#[derive(Deserialize)]
struct JsonInstance {
    id: String,
    address: String,
    port: u64,
    #[serde(default = "healthy")]
    healthy: bool,
    #[serde(default)]
    meta: BTreeMap<String, String>,
}

fn healthy() -> bool {
    true
}

/// What conversion needs beside the document.
#[derive(Clone)]
struct Around {
    rules: Rules,
    trust_domain: Option<TrustDomain>,
}

/// Every service of the document is an origin: it speaks as a whole, and what is wrong with one leaves the others alone.
fn convert(document: &Document, around: &Around) -> Listing {
    let (mut listing, mut nameless) = (Listing::new(), Vec::new());
    for service in &document.services {
        let Some(name) = text(service, "name") else {
            nameless.push(fault(&service.to_string(), "it has no name"));
            continue;
        };
        let (resources, faults) = match JsonService::deserialize(service) {
            Ok(service) => convert_service(&service, around),
            // What it said before stands: nobody knows what was meant.
            Err(error) => (Vec::new(), vec![keeping(fault(name, error.to_string()))]),
        };
        listing.insert(origin_name(&["service", name]), Words::new(resources, faults));
    }
    if !nameless.is_empty() {
        listing.insert(self::nameless(), Words::new(Vec::new(), bounded(nameless)));
    }
    listing
}

/// What tells of services that have no name.
fn nameless() -> OriginName {
    origin_name(&["nameless"])
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn keeping(fault: OriginFault) -> OriginFault {
    OriginFault { keeps_last_good: true, ..fault }
}

fn convert_service(service: &JsonService, around: &Around) -> (Vec<Resource>, Vec<OriginFault>) {
    let name = match service_name(&service.name, "default") {
        Ok(name) => name,
        Err(fault) => return (Vec::new(), vec![fault]),
    };
    let Some(number) = u16::try_from(service.port).ok().filter(|number| *number != 0) else {
        let fault = fault(&service.name, format!("its port {} is not between 1 and 65535", service.port));
        return (Vec::new(), vec![keeping(fault)]);
    };
    let Ok(port_name) = PortName::new("http") else { return (Vec::new(), Vec::new()) };
    let mut faults = Vec::new();
    let protocol = around.rules.protocol(&name);
    let port = ServicePort { name: port_name.clone(), number, protocol };
    let declared =
        Service { name: name.clone(), ports: vec![port], hosts: Vec::new(), nearest: false, declared: true };
    let mut resources = vec![Resource::Service(declared.into())];
    for value in &service.instances {
        let converted = match JsonInstance::deserialize(value) {
            Ok(instance) => convert_instance(&instance, &name, &port_name, around, &mut faults),
            Err(error) => Err(error.to_string()),
        };
        match converted {
            Ok(endpoint) => resources.push(Resource::Endpoint(endpoint.into())),
            Err(why) => faults.push(fault(text(value, "id").unwrap_or_default(), why)),
        }
    }
    (resources, bounded(faults))
}

fn convert_instance(
    instance: &JsonInstance,
    service: &ServiceName,
    port_name: &PortName,
    around: &Around,
    faults: &mut Vec<OriginFault>,
) -> Result<Endpoint, String> {
    let name = InstanceName::new(&instance.id).map_err(|error| error.reason.to_owned())?;
    let ip = read_ip(&instance.address)?;
    let address = endpoint_address(ip, instance.port, around.rules.allow_loopback)?;
    let record = |key: &str| instance.meta.get(key).map(String::as_str);
    let strays = keys::strays(instance.meta.keys().map(String::as_str));
    let known = Instance::recorded(service, &address, &record, &strays);
    let speaks = around.rules.speaks(known, around.trust_domain.as_ref());
    let recorded = Recorded::read(&record);
    let told = speaks.faults.into_iter().chain(recorded.faults);
    faults.extend(told.map(|message| fault(&instance.id, message)));
    let labels = instance.meta.iter().filter(|(key, _)| !keys::is_ours(key));
    Ok(Endpoint {
        service: service.clone(),
        port_name: port_name.clone(),
        instance: name,
        mesh_address: speaks.mesh_address,
        identity: speaks.identity,
        said_by: speaks.said_by,
        tls: speaks.tls,
        labels: labels.map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        weight: recorded.weight.unwrap_or(1),
        locality: recorded.locality.unwrap_or_default(),
        health: if instance.healthy { Health::Healthy } else { Health::Unhealthy },
        address,
    })
}

/// The registry.
struct JsonRegistry {
    name: RegistryName,
    server: Arc<ServerSettings>,
    poll: Duration,
    around: Around,
}

/// One watch, from its first question to its failure.
struct Watch {
    client: HttpClient,
    told: Told,
    due: Instant,
}

impl JsonRegistry {
    /// Waits until it is time, asks, and says what is new. An error ends the watch; the driver around every registry
    /// begins another one, with a growing pause, and keeps what was said.
    async fn look(&self, watch: &mut Watch) -> Result<Vec<Event>, RegistryError> {
        sleep_until(watch.due).await;
        watch.due = Instant::now() + jittered(self.poll);
        let answer = watch.client.send(Call::get("/services.json")).await?.ok()?;
        let listing = convert(&answer.json()?, &self.around);
        // What has no name may be any of those that are missing.
        let is_whole = !listing.contains_key(&nameless());
        let completeness = if is_whole { Completeness::Full } else { Completeness::Filtered };
        Ok(watch.told.tell(listing, completeness, Instant::now().into_std()))
    }
}

impl Registry for JsonRegistry {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { health: true, ..Capabilities::default() }
    }

    fn watch(&self, scope: Scope, _: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        let begin = async move {
            let client = HttpClient::new(&self.server)?;
            let watch = Watch { client, told: Told::new(scope), due: Instant::now() };
            Ok(stream::try_unfold(watch, move |mut watch| async move {
                let events = self.look(&mut watch).await?;
                Ok(Some((stream::iter(events.into_iter().map(Ok)), watch)))
            })
            .try_flatten())
        };
        stream::once(begin).try_flatten().boxed()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a document becomes: the endpoints, and the faults with whether what was known before stands.
    fn converted(services: Value) -> (Vec<String>, Vec<(String, bool)>) {
        let around = Around { rules: Rules::default(), trust_domain: None };
        let listing = convert(&Document { services: serde_json::from_value(services).unwrap() }, &around);
        let endpoint = |resource: &Resource| match resource {
            Resource::Endpoint(endpoint) => Some(format!("{} {}", endpoint.service, endpoint.address)),
            _ => None,
        };
        let endpoints = listing.values().flat_map(|words| words.resources.iter().filter_map(endpoint));
        let faults = listing.values().flat_map(|words| &words.faults);
        let faults = faults.map(|it| (format!("{}: {}", it.place, it.message), it.keeps_last_good));
        (endpoints.collect(), faults.collect())
    }

    #[test]
    fn what_is_wrong_with_one_service_leaves_the_others_alone() {
        let good = json!({ "name": "web", "port": 80, "instances": [{ "id": "a", "address": "10.0.0.1", "port": 1 }] });
        for (odd, told, stands) in [
            (json!({ "name": "odd", "port": 70000, "instances": [] }), "\"odd\": its port 70000", true),
            (json!({ "name": "odd", "port": 0, "instances": [] }), "its port 0", true),
            (json!({ "name": "odd", "port": -1, "instances": [] }), "invalid value", true),
            (json!({ "name": "odd", "port": 80, "instances": 3 }), "invalid type", true),
            (json!({ "name": "odd", "port": 80 }), "missing field `instances`", true),
            (json!({ "name": "o\nd", "port": 80, "instances": [] }), "only lower-case letters", false),
            (json!({ "name": 5, "port": 80, "instances": [] }), "it has no name", false),
            (json!("odd"), "it has no name", false),
        ] {
            let (endpoints, faults) = converted(json!([odd, good]));
            assert_eq!(endpoints, ["web.default 10.0.0.1:1"], "{told}");
            let [(fault, keeps)] = &faults[..] else { panic!("{told}: {faults:?}") };
            assert!(fault.contains(told) && *keeps == stands && !fault.contains('\n'), "{told}: {faults:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_one_instance_leaves_the_others_of_its_service_alone() {
        for (odd, told) in [
            (json!({ "id": "b", "port": 80 }), "\"b\": missing field `address`"),
            (json!({ "id": "b", "address": "10.0.0.2", "port": 70000 }), "\"b\": its port is not between"),
            (json!({ "id": "b", "address": "169.254.169.254", "port": 80 }), "an address of the link"),
            (
                json!({ "id": "b", "address": "10.0.0.2", "port": 80, "meta": { "x": 1 } }),
                "expected a string",
            ),
            (json!({ "id": 7, "address": "10.0.0.2", "port": 80 }), "expected a string"),
            (json!(null), "invalid type: null"),
        ] {
            let good = json!({ "id": "a", "address": "10.0.0.1", "port": 1 });
            let (endpoints, faults) =
                converted(json!([{ "name": "web", "port": 80, "instances": [odd, good] }]));
            assert_eq!(endpoints, ["web.default 10.0.0.1:1"], "{told}");
            let [(fault, false)] = &faults[..] else { panic!("{told}: {faults:?}") };
            assert!(fault.contains(told), "{told}: {faults:?}");
        }
    }
}
