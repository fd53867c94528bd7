//! `[[service.endpoint]]`: one instance's port.

use std::collections::BTreeMap;

use crate::{
    config::{Fault, Located, Section, SocketPort, nearest},
    identity::SpiffeId,
    locality::Locality,
    name::{InstanceName, PortName, ServiceName},
    resource::{Endpoint, Health, SaidBy, Sayer, ServicePort, TlsMode},
};

const HEALTH: [(&str, Health); 3] =
    [("healthy", Health::Healthy), ("draining", Health::Draining), ("unhealthy", Health::Unhealthy)];

const TLS: [(&str, TlsMode); 2] = [("required", TlsMode::Required), ("off", TlsMode::Off)];

/// Reads an endpoint. `ports` are its service's, none when those have a fault.
pub(super) fn read(
    section: &Section<'_>,
    service: &ServiceName,
    ports: Option<&[ServicePort]>,
) -> Option<Located<Endpoint>> {
    let instance: Option<InstanceName> = section.read("instance");
    let port_name = port_name(section, ports);
    let address: Option<SocketPort> =
        section.require("address", "where the application listens, such as address = \"127.0.0.1:8080\"");
    let mesh: Option<SocketPort> = section.read("mesh");
    let identity: Option<SpiffeId> = section.read("identity");
    let labels: BTreeMap<String, String> = section.read_or("labels", BTreeMap::new());
    let weight = section.read_or("weight", 1_u16);
    let locality = section.read_or("locality", Locality::default());
    let health = section.get("health").and_then(|value| value.word(&HEALTH)).unwrap_or_default();
    let tls = section.get("tls").and_then(|value| value.word(&TLS)).unwrap_or_default();
    check_tls(section, tls);
    let SocketPort(address) = address?;
    let instance = instance.or_else(|| InstanceName::new(&address.to_string()).ok())?;
    let endpoint = Endpoint {
        service: service.clone(),
        port_name: port_name?,
        instance,
        address: address.into(),
        mesh_address: mesh.map(|SocketPort(address)| address.into()),
        identity,
        said_by: SaidBy {
            tls: if section.has("tls") { Sayer::Declared } else { Sayer::Default },
            ..SaidBy::default()
        },
        tls,
        labels: labels.into(),
        weight,
        locality,
        health,
    };
    Some(Located { value: endpoint, place: section.place() })
}

/// The service's port that is served; may be left out where there is only one.
fn port_name(section: &Section<'_>, ports: Option<&[ServicePort]>) -> Option<PortName> {
    let Some(value) = section.get("port") else {
        return match ports? {
            [only] => Some(only.name.clone()),
            _ => {
                let fault = Fault::error(section.place(), "the key `port` is missing");
                section.report_missing(fault.expected("expected the name of one of the service's ports"));
                None
            }
        };
    };
    let written: Located<PortName> = crate::config::Readable::read(&value)?;
    let ports = ports?;
    if ports.iter().any(|port| port.name == written.value) {
        return Some(written.value);
    }
    let names = || ports.iter().map(|port| port.name.as_str());
    let listed = names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let fault = Fault::error(written.place, format!("the service has no port `{}`", written.value));
    section.report(
        fault
            .expected(format!("expected one of {listed}"))
            .did_you_mean(nearest(written.value.as_str(), names())),
    );
    None
}

/// An endpoint that requires TLS and lacks what that needs would never be dialled: better said at once.
fn check_tls(section: &Section<'_>, tls: TlsMode) {
    let missing: Vec<&str> = ["mesh", "identity"].into_iter().filter(|key| !section.has(key)).collect();
    if tls == TlsMode::Required && !missing.is_empty() {
        let keys = missing.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ");
        let fault = Fault::error(section.place(), format!("an endpoint in the mesh needs {keys}"));
        let expected = "expected where its agent listens and who must answer there";
        section
            .report_missing(fault.expected(expected).help("outside the mesh, in plaintext: tls = \"off\""));
    }
    if tls == TlsMode::Off && section.has("mesh") {
        let fault = Fault::error(section.key_place("mesh"), "`mesh` beside tls = \"off\"");
        section.report(fault.expected("plaintext goes to `address`: leave one of the two out"));
    }
    if tls == TlsMode::Off && section.has("identity") {
        let fault = Fault::error(section.key_place("identity"), "`identity` beside tls = \"off\"");
        section.report(fault.expected("nobody proves who he is in plaintext: leave one of the two out"));
    }
}
