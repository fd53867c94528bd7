//! What a `kind = "dns"` section says.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use weft_core::{
    config::{Fault, Port, Readable, Section, Value},
    identity::TrustDomain,
    locality::Locality,
    name::{RegistryName, ServiceName},
    registry::Registry,
};

use super::DnsRegistry;
use crate::{
    plan::{BuildError, Environment, Settings},
    speaking::Rules,
};

const MIN_TTL: Duration = Duration::from_secs(5);
const MAX_TTL: Duration = Duration::from_secs(300);
/// What a rule's identity may name, beside `service` and `namespace`.
const WORDS: [&str; 1] = ["host"];
/// The longest name, without a dot at its end.
const MAX_NAME: usize = 253;

/// What the section says.
#[derive(Clone, Debug)]
pub struct DnsSettings {
    /// Who is asked; none means whom the system asks.
    pub resolvers: Vec<SocketAddr>,
    /// How long an answer holds at least.
    pub min_ttl: Duration,
    /// How long an answer holds at most.
    pub max_ttl: Duration,
    /// What is followed, at least one; no service twice.
    pub followed: Vec<Followed>,
    /// Which endpoints speak mesh, and as whom.
    pub rules: Rules,
    /// Completes identities that name none.
    pub trust_domain: Option<TrustDomain>,
}

/// A service and where its addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The service.
    pub service: ServiceName,
    /// What is asked for.
    pub source: Source,
    /// What its addresses mean.
    pub mode: Mode,
    /// Where it runs.
    pub locality: Locality,
}

/// What is asked for. Names are in lower case and without a dot at their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The addresses of a host, each with this port.
    Host(String, u16),
    /// The hosts and ports that offer a service (RFC 2782).
    Service(String),
}

/// What the addresses of one name mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each is an endpoint of its own.
    #[default]
    Strict,
    /// All are the same endpoint, of which one is enough: that in use while it is among them, else the first.
    Logical,
}

/// A name as a file writes it.
struct HostText(String);

impl Readable for HostText {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.parse("a whole name, such as \"db.example.com\"", |text| read_name(text).map(Self))
    }
}

/// Whom to ask, as a file writes it.
struct ResolverText(SocketAddr);

impl Readable for ResolverText {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.parse("a server's address, such as \"10.0.0.2\" or \"127.0.0.1:5353\"", |text| {
            let with_port = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
            let address =
                text.parse::<SocketAddr>().or_else(|_| with_port()).map_err(|_| "this is no address")?;
            if address.port() == 0 { Err("nothing listens on port 0") } else { Ok(Self(address)) }
        })
    }
}

/// Reads a name: labels of letters, digits, `-` and `_`.
fn read_name(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.len() > MAX_NAME || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return Err("the labels of a name have 1 to 63 characters, and all of it at most 253");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err("a name has only letters, digits, dots, `-` and `_`");
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err("this is an address and no name");
    }
    Ok(name)
}

/// Reads the section.
#[must_use]
pub fn read(section: &Section<'_>) -> Option<Arc<dyn Settings>> {
    let resolvers = match section.get("resolvers") {
        None => Some(Vec::new()),
        Some(value) => match Vec::<ResolverText>::read(&value) {
            Some(list) if list.is_empty() => {
                value.reject(
                    "no resolver is named",
                    "expected at least one, or no `resolvers` for the system's",
                );
                None
            }
            list => list.map(|list| list.into_iter().map(|ResolverText(address)| address).collect()),
        },
    };
    let min_ttl = section.read_or("min_ttl", MIN_TTL);
    let max_ttl = section.read_or("max_ttl", MAX_TTL);
    if !(Duration::from_secs(1)..=max_ttl).contains(&min_ttl) || max_ttl > Duration::from_secs(86_400) {
        let key = if section.has("min_ttl") { "min_ttl" } else { "max_ttl" };
        let fault =
            Fault::error(section.key_place(key), "the least and the greatest time to live do not fit");
        section.report(fault.expected("expected \"1s\" <= min_ttl <= max_ttl <= \"24h\""));
    }
    let followed: Vec<Option<Followed>> = section.sections("follow").iter().map(read_followed).collect();
    if followed.is_empty() {
        let fault = Fault::error(section.place(), "it follows no name");
        section.report(fault.expected(
            "expected at least one [[registry.follow]] with service = \"db.default\", host = \"db.example.com\" and port = 5432",
        ));
    }
    let rules = Rules::read(section, &WORDS);
    let followed: Vec<Followed> = followed.into_iter().collect::<Option<_>>()?;
    let mut services = BTreeSet::new();
    for twice in followed.iter().filter(|followed| !services.insert(&followed.service)) {
        let message = format!("the service `{}` is followed twice", twice.service);
        section.report(Fault::error(section.key_place("follow"), message));
    }
    let (resolvers, rules) = (resolvers?, rules?);
    Some(Arc::new(DnsSettings { resolvers, min_ttl, max_ttl, followed, rules, trust_domain: None }))
}

fn read_followed(section: &Section<'_>) -> Option<Followed> {
    let service = section.require("service", "the service that it is, such as service = \"db.default\"");
    let host = section.get("host").map(|value| HostText::read(&value));
    let srv = section.get("srv").map(|value| HostText::read(&value));
    let port = section.get("port").map(|value| Port::read(&value));
    let mode = match section.get("mode") {
        None => Some(Mode::default()),
        Some(value) => value.word(&[("strict", Mode::Strict), ("logical", Mode::Logical)]),
    };
    let locality = match section.get("locality") {
        None => Some(Locality::default()),
        Some(value) => value.parse("a place, such as \"eu/a\"", Locality::new),
    };
    let source = match (host, srv, port) {
        (Some(host), None, Some(port)) => {
            let (HostText(host), Port(port)) = (host?, port?);
            Source::Host(host, port)
        }
        (None, Some(srv), None) => {
            let HostText(srv) = srv?;
            Source::Service(srv)
        }
        _ => {
            let fault = Fault::error(section.place(), "it is not clear what is asked for");
            section.report(fault.expected("expected `host` with `port`, or `srv` alone"));
            return None;
        }
    };
    Some(Followed { service: service?, source, mode: mode?, locality: locality? })
}

impl Settings for DnsSettings {
    fn build(&self, name: &RegistryName, environment: &Environment) -> Result<Arc<dyn Registry>, BuildError> {
        let trust_domain = environment.trust_domain.clone();
        Ok(Arc::new(DnsRegistry::new(name.clone(), Self { trust_domain, ..self.clone() })))
    }
}

#[cfg(test)]
mod tests {
    use weft_core::config::{SourceFile, read as read_file};

    use super::*;

    fn read_text(text: &str) -> Result<String, Vec<String>> {
        let source = SourceFile::new("weft.toml", text.to_owned());
        let outcome = read_file(&source, |root| read(root));
        match outcome.value {
            Some(settings) => Ok(format!("{settings:?}")),
            None => Err(outcome.faults.iter().map(|fault| fault.message.clone()).collect()),
        }
    }

    const DB: &str = "[[follow]]\nservice = \"db.default\"\nhost = \"DB.example.com.\"\nport = 5432\n";

    #[test]
    fn a_section_is_read() {
        let shown = read_text(DB).unwrap();
        assert!(shown.contains("Host(\"db.example.com\", 5432)") && shown.contains("Strict"), "{shown}");
        let text = format!(
            "resolvers = [\"10.0.0.2\", \"[::1]:5353\"]\n{DB}[[follow]]\nservice = \"web\"\nsrv = \"_http._tcp.example\"\nmode = \"logical\"\nlocality = \"eu/a\"\n"
        );
        let shown = read_text(&text).unwrap();
        for part in ["10.0.0.2:53", "[::1]:5353", "Service(\"_http._tcp.example\")", "Logical"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        let db = |key: &str, value: &str| {
            let lines = DB.lines().filter(|line| !line.starts_with(key));
            lines.chain([value]).collect::<Vec<_>>().join("\n")
        };
        for text in [
            String::new(),
            format!("resolvers = []\n{DB}"),
            format!("resolvers = [\"dns.example\"]\n{DB}"),
            format!("min_ttl = \"10m\"\n{DB}"),
            format!("{DB}{DB}"),
            db("port", ""),
            db("port", "port = 0"),
            db("host", "host = \"a..b\""),
            db("host", "host = \"10.0.0.1\""),
            db("host", "host = \"a b\""),
            db("port", "port = 1\nsrv = \"_x._tcp.y\""),
            db("service", "service = \"a/b\""),
            db("xxx", "mode = \"loose\""),
        ] {
            let faults = read_text(&text).unwrap_err();
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        }
    }
}
