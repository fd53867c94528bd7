//! `[[workload]]`: the local processes that have an identity.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use weft_core::{
    config::{Fault, Located, OneOrMany, Readable, Section, SocketPort, Value},
    identity::SpiffeId,
    locality::Locality,
    name::{PortName, ServiceName, WorkloadName},
    resource::AppProtocol,
    workload::{Workload, WorkloadPort},
};

use super::{
    announce::{RawTerms, read_terms},
    unix_path::MAX_SOCKET_PATH,
};

/// A local workload and how it reaches the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadConfig {
    /// Who it is and what it serves.
    pub workload: Arc<Workload>,
    /// Where it sends requests whose destination they name themselves; may be empty.
    pub outbound: Vec<ListenAddress>,
    /// Which local processes may use its listeners; none when it has no listeners.
    pub allowed: Option<Allowed>,
    /// Listeners that each lead to one service.
    pub upstreams: Vec<UpstreamConfig>,
}

/// Which local processes may speak as a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Those of these users.
    Uids(Vec<u32>),
    /// All of this host.
    AnyLocal,
}

/// Where a workload's local connections come in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    /// A TCP address; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A Unix socket, written `unix:/path`.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Readable for ListenAddress {
    fn read(value: &Value<'_>) -> Option<Self> {
        match value.as_text().and_then(|text| text.strip_prefix("unix:")) {
            Some(path) if path.starts_with('/') && path.len() <= MAX_SOCKET_PATH && !path.contains('\0') => {
                Some(Self::Unix(path.into()))
            }
            Some(_) => {
                let expected = format!("expected \"unix:/path\", at most {MAX_SOCKET_PATH} bytes");
                value.reject("this is not the path of a Unix socket", expected);
                None
            }
            None => SocketAddr::read(value).map(Self::Tcp),
        }
    }
}

/// A listener that leads to one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// The service, in whichever registry has it first.
    pub service: ServiceName,
    /// Its port; none means its only one.
    pub port: Option<PortName>,
    /// Where local connections come in.
    pub listen: ListenAddress,
}

/// What is written, with the places that checks across sections name.
pub(super) struct RawWorkload {
    pub(super) name: Located<WorkloadName>,
    pub(super) identity: Located<SpiffeId>,
    pub(super) outbound: Vec<Located<ListenAddress>>,
    pub(super) upstreams: Vec<Located<RawUpstream>>,
    pub(super) ports: Vec<Located<WorkloadPort>>,
    /// The ports that are announced.
    pub(super) announced: Vec<(WorkloadPort, RawTerms)>,
    pub(super) checked: WorkloadConfig,
}

pub(super) struct RawUpstream {
    pub(super) config: UpstreamConfig,
    pub(super) listen: Located<ListenAddress>,
}

pub(super) fn read(section: &Section<'_>) -> Option<RawWorkload> {
    let name: Option<Located<WorkloadName>> = section.require("name", "a name, such as name = \"web\"");
    let example = "who it is, such as identity = \"spiffe://demo.mesh/ns/default/sa/web\"";
    let identity: Option<Located<SpiffeId>> = section.require("identity", example);
    let labels = section.read_or("labels", BTreeMap::new());
    let locality = section.read_or("locality", Locality::default());
    let outbound: OneOrMany<Located<ListenAddress>> = section.read_or("outbound", OneOrMany::default());
    let upstreams: Vec<_> = section.sections("upstream").iter().filter_map(upstream).collect();
    let (ports, terms): (Vec<_>, Vec<_>) = section.sections("port").iter().filter_map(port).unzip();
    let announced = ports.iter().zip(terms).filter_map(|(port, terms)| Some((port.value.clone(), terms?)));
    let announced = announced.collect();
    let allowed = allowed(section);
    let (name, identity) = (name?, identity?);
    let workload = Workload {
        name: name.value.clone(),
        identity: identity.value.clone(),
        labels: labels.into(),
        locality,
        ports: ports.iter().map(|port| port.value.clone()).collect(),
    };
    let checked = WorkloadConfig {
        workload: workload.into(),
        outbound: outbound.0.iter().map(|outbound| outbound.value.clone()).collect(),
        allowed,
        upstreams: upstreams.iter().map(|upstream| upstream.value.config.clone()).collect(),
    };
    Some(RawWorkload { name, identity, outbound: outbound.0, upstreams, ports, announced, checked })
}

/// The number of a user.
struct Uid(u32);

impl Readable for Uid {
    /// Takes all numbers but the last, by which the kernel says that there is no user (`chown(2)`).
    fn read(value: &Value<'_>) -> Option<Self> {
        value.integer(0..=u64::from(u32::MAX - 1)).and_then(|uid| u32::try_from(uid).ok()).map(Self)
    }
}

/// `uid` or `any_local`: exactly one where there is a listener, because a listener's port proves nothing.
fn allowed(section: &Section<'_>) -> Option<Allowed> {
    let uids: Option<OneOrMany<Uid>> = section.read("uid");
    let any_local = section.read_or("any_local", false);
    let listens = section.has("outbound") || section.has("upstream");
    if section.has("uid") && any_local {
        let fault = Fault::error(section.key_place("any_local"), "`any_local` beside `uid`");
        section.report(fault.expected("either some users may speak as the workload, or all"));
        return None;
    }
    if any_local {
        let message = "any process of this host may speak as this workload";
        let fault = Fault::warning(section.key_place("any_local"), message);
        section.report(fault.help("name its user with `uid` instead"));
        return Some(Allowed::AnyLocal);
    }
    if listens && !section.has("uid") {
        let place = section.key_place(if section.has("outbound") { "outbound" } else { "upstream" });
        let message = "nothing says which local processes may speak as this workload";
        let expected = "any process can connect to a local port, so the port is no proof of who is calling";
        let help =
            "name the user that the workload runs as with `uid`, or let all in with `any_local = true`";
        section.report_missing(Fault::error(place, message).expected(expected).help(help));
    }
    let OneOrMany(uids) = uids?;
    if uids.is_empty() {
        section
            .report(Fault::error(section.key_place("uid"), "`uid` is empty: nobody could use the listeners"));
    }
    Some(Allowed::Uids(uids.into_iter().map(|Uid(uid)| uid).collect()))
}

fn upstream(section: &Section<'_>) -> Option<Located<RawUpstream>> {
    let service: Option<ServiceName> =
        section.require("service", "where to, such as service = \"reviews.default\"");
    let port: Option<PortName> = section.read("port");
    let example = "where local connections come in, such as listen = \"127.0.0.1:9101\"";
    let listen: Option<Located<ListenAddress>> = section.require("listen", example);
    let listen = listen?;
    let config = UpstreamConfig { service: service?, port, listen: listen.value.clone() };
    Some(Located { value: RawUpstream { config, listen }, place: section.key_place("service") })
}

/// A port, and how it is announced where it is.
fn port(section: &Section<'_>) -> Option<(Located<WorkloadPort>, Option<RawTerms>)> {
    let service: Option<ServiceName> =
        section.require("service", "what it is an instance of, such as service = \"web.default\"");
    let name: Option<PortName> = section.require("name", "the service's port, such as name = \"http\"");
    let example = "where the application listens, such as address = \"127.0.0.1:8080\"";
    let address: Option<Located<SocketPort>> = section.require("address", example);
    let protocol = section.get("protocol").map_or(Some(AppProtocol::default()), |value| {
        value.word(&[
            ("http", AppProtocol::Http),
            ("http2", AppProtocol::Http2),
            ("grpc", AppProtocol::Grpc),
            ("tcp", AppProtocol::Tcp),
        ])
    });
    let number = address.as_ref().map(|address| address.value.0.port());
    let announce = section.section("announce").map(|terms| read_terms(&terms, number.unwrap_or(1)));
    let Located { value: SocketPort(address), place } = address?;
    let terms = match announce {
        Some(terms) => Some(terms?),
        None => None,
    };
    let port = WorkloadPort { service: service?, name: name?, address, protocol: protocol? };
    Some((Located { value: port, place }, terms))
}
