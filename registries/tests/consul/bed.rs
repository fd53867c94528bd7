//! A server, and what is written to it.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::block_in_place;
use weft_core::{
    config::{SourceFile, read},
    identity::TrustDomain,
    name::RegistryName,
    registry::Registry,
};
use weft_registries::Environment;
use weft_testbed::{Consul, ConsulOptions, Kind, installed, required};

/// How long anything may take to be told: less than a question waits, at whose end everything is told.
pub(crate) const SOON: std::time::Duration = std::time::Duration::from_secs(25);

/// How soon it is as the server says, once the server can say so: five seconds, and three for a machine that is busy with
/// other tests.
pub(crate) const CONVERGED: std::time::Duration = std::time::Duration::from_secs(8);

/// Starts it; none, having said so loudly, where it is not installed.
pub(crate) fn start(options: ConsulOptions) -> Option<Consul> {
    let home = required(installed(Kind::Consul))?;
    Some(block_in_place(|| Consul::start(&home, options)).unwrap())
}

/// A registry over `url`, with more of its section's lines.
pub(crate) fn registry(url: &str, more: &str) -> Arc<dyn Registry> {
    let text = format!("address = {url:?}\n{more}");
    let source = SourceFile::new("weft.toml", text);
    let settings = read(&source, |section| weft_registries::consul::read(section));
    let settings = settings.value.unwrap_or_else(|| panic!("{:?}", settings.faults));
    let trust_domain = Some(TrustDomain::new("test.mesh").unwrap());
    let environment = Environment { trust_domain, ..Environment::default() };
    settings.build(&RegistryName::new("consul").unwrap(), &environment).unwrap()
}

/// A write to the API.
pub(crate) fn put(consul: &Consul, path: &str, body: &Value) {
    block_in_place(|| consul.call("PUT", path, body.to_string()).unwrap().success(path).unwrap());
}

/// Writes an instance of a service on `node`, whose address ends in `host`; `more` are fields of the service.
pub(crate) fn write(consul: &Consul, node: &str, host: u8, service: &str, more: Value) {
    let mut body = json!({ "ID": format!("{service}-{host}"), "Service": service, "Port": 8080 });
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().cloned().unwrap_or_default());
    let address = format!("10.0.0.{host}");
    put(consul, "/v1/catalog/register", &json!({ "Node": node, "Address": address, "Service": body }));
}

/// Writes a check of an instance that [`write`] wrote, or of its whole node where there is no service.
pub(crate) fn check(consul: &Consul, node: &str, host: u8, service: &str, id: &str, status: &str) {
    let mut check = json!({ "Node": node, "CheckID": id, "Name": id, "Status": status });
    if !service.is_empty() {
        check["ServiceID"] = json!(format!("{service}-{host}"));
    }
    let address = format!("10.0.0.{host}");
    put(consul, "/v1/catalog/register", &json!({ "Node": node, "Address": address, "Check": check }));
}
