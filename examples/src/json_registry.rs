//! A registry that is a JSON document on a web server: what it takes to bring a catalog of one's own into the mesh.
//!
//! `docs/writing-a-registry.md` walks through this file. Three parts, as every registry has them: settings (what the
//! section says), conversion (pure: a document in, words out, whatever is in it), and the loop.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use weft_agent::registries::{
    BuildError, Environment, Kind, Settings,
    address::{endpoint_address, read_ip},
    http_client::{Call, HttpClient, ServerSettings, jittered},
    names::{fault, origin_name, service_name},
    speaking::{Instance, Recorded, Rules, keys},
    told::{Listing, Told, Words},
};
use weft_core::{
    config::Section,
    identity::TrustDomain,
    name::{InstanceName, PortName, RegistryName, ServiceName},
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

/// The document: `GET /services.json`.
#[derive(Deserialize)]
struct Document {
    services: Vec<JsonService>,
}

#[derive(Deserialize)]
struct JsonService {
    name: String,
    port: u16,
    instances: Vec<JsonInstance>,
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
    let one = |service: &JsonService| {
        let (resources, faults) = convert_service(service, around);
        (origin_name(&[&service.name]), Words::new(resources, faults))
    };
    document.services.iter().map(one).collect()
}

fn convert_service(service: &JsonService, around: &Around) -> (Vec<Resource>, Vec<OriginFault>) {
    let name = match service_name(&service.name, "default") {
        Ok(name) if service.port != 0 => name,
        Ok(_) => return (Vec::new(), vec![fault(&service.name, "its port is 0")]),
        Err(fault) => return (Vec::new(), vec![fault]),
    };
    let Ok(port_name) = PortName::new("http") else { return (Vec::new(), Vec::new()) };
    let mut faults = Vec::new();
    let protocol = around.rules.protocol(&name);
    let port = ServicePort { name: port_name.clone(), number: service.port, protocol };
    let declared =
        Service { name: name.clone(), ports: vec![port], hosts: Vec::new(), nearest: false, declared: true };
    let mut resources = vec![Resource::Service(declared.into())];
    for instance in &service.instances {
        match convert_instance(instance, &name, &port_name, around, &mut faults) {
            Ok(endpoint) => resources.push(Resource::Endpoint(endpoint.into())),
            Err(why) => faults.push(fault(&instance.id, why)),
        }
    }
    (resources, faults)
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
        Ok(watch.told.tell(listing, Completeness::Full, Instant::now().into_std()))
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
