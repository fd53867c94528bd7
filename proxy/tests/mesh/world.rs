//! Two hosts: `web` calls, `reviews` serves, each behind a proxy of its own.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use weft_core::{
    context::RequestContext,
    identity::{SpiffeId, TrustDomain},
    locality::Locality,
    name::{HostName, InstanceName, PortName, RegistryName, RuleName, ServiceKey, ServiceName, WorkloadName},
    publish::Publisher,
    resource::{AppProtocol, Endpoint, Health, Retries, TlsMode},
    table::{
        Authorization, CompiledOperation, CompiledPolicy, CompiledRouteRule, CompiledRule, Destination,
        DestinationPort, EndpointSet, InboundPort, Table, Target, Upstream, View,
    },
    tls::Credentials,
    workload::{Workload, WorkloadPort},
};
use weft_proxy::{
    AllowedLocal, InboundConfig, Limits, ListenAddress, OutboundKind, OutboundListener, Proxy, ProxyConfig,
    TapReceiver, Tapped, WorkloadListeners,
};

use crate::authority::Authority;

/// How long a connection may take: a handshake in a process that stands still for a while is not silence.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) fn identity(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://test.mesh/ns/default/sa/{account}")).unwrap()
}

pub(crate) fn service(name: &str) -> ServiceKey {
    ServiceKey {
        registry: RegistryName::new("static").unwrap(),
        service: ServiceName::new(&format!("{name}.default")).unwrap(),
    }
}

/// A proxy and what is published to it.
pub(crate) struct Host {
    pub(crate) proxy: Proxy,
    pub(crate) table: Publisher<Table>,
    pub(crate) credentials: Publisher<Credentials>,
}

/// How an instance is served.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: AppProtocol,
    pub(crate) authorization: Authorization,
}

pub(crate) fn open_to_domain() -> Authorization {
    Authorization {
        trust_domain: TrustDomain::new("test.mesh").unwrap(),
        deny: Vec::new(),
        allow: Vec::new(),
    }
}

/// A policy, `static/none`, that denies everything.
pub(crate) fn deny_all() -> Arc<CompiledPolicy> {
    let to = vec![CompiledOperation::default()];
    let rule = CompiledRule { name: RuleName::new("static/none/0").unwrap(), from: Vec::new(), to };
    Arc::new(CompiledPolicy { name: RuleName::new("static/none").unwrap(), rules: vec![rule] })
}

/// Waits until `holds`, and fails with `what` when it never does.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The host of an application that speaks HTTP/1.1 to everybody of the trust domain.
pub(crate) fn http_host(authority: &Authority, address: SocketAddr) -> Host {
    serving_host(authority, Serving { address, protocol: AppProtocol::Http, authorization: open_to_domain() })
}

/// A host that serves `reviews`.
pub(crate) fn serving_host(authority: &Authority, serving: Serving) -> Host {
    serving_host_with(authority, serving, Limits::default())
}

/// The same with other bounds.
pub(crate) fn serving_host_with(authority: &Authority, serving: Serving, limits: Limits) -> Host {
    let workload = Arc::new(Workload {
        name: WorkloadName::new("reviews").unwrap(),
        identity: identity("reviews"),
        labels: Default::default(),
        locality: Locality::default(),
        ports: vec![WorkloadPort {
            service: service("reviews").service,
            name: PortName::new("main").unwrap(),
            address: serving.address,
            protocol: serving.protocol,
        }],
    });
    let table = Publisher::new(serving_table(&workload, serving.authorization, 1));
    let credentials = Publisher::new(authority.credentials(&[&identity("reviews")]));
    let config = ProxyConfig {
        workers: 1,
        inbound: Some(InboundConfig { listen: vec!["127.0.0.1:0".parse().unwrap()] }),
        workloads: vec![WorkloadListeners { workload, outbound: Vec::new() }],
        limits,
        ..ProxyConfig::default()
    };
    let proxy = Proxy::start(config, table.reader(), credentials.reader()).unwrap();
    Host { proxy, table, credentials }
}

pub(crate) fn serving_table(
    workload: &Arc<Workload>,
    authorization: Authorization,
    generation: u64,
) -> Table {
    let port = workload.ports[0].clone();
    let key = (port.service.clone(), port.address.port());
    let registry = Some(service("reviews").registry);
    let inbound = [(key, Arc::new(InboundPort { port, registry, authorization: Arc::new(authorization) }))];
    let view = View {
        workload: workload.clone(),
        inbound: inbound.into_iter().collect(),
        hosts: Default::default(),
    };
    Table { generation, views: vec![Arc::new(view)].into(), ..Table::default() }
}

/// An application outside the mesh, as an endpoint of `reviews`.
pub(crate) fn plain_endpoint(instance: &str, application: SocketAddr) -> Arc<Upstream> {
    Arc::new(Upstream {
        registry: RegistryName::new("static").unwrap(),
        endpoint: Arc::new(Endpoint {
            mesh_address: None,
            identity: None,
            said_by: Default::default(),
            tls: TlsMode::Off,
            ..endpoint_at(instance, application, application)
        }),
        tier: 0,
        state: Default::default(),
    })
}

/// An endpoint of `reviews` whose mesh port is somewhere.
pub(crate) fn endpoint_at(instance: &str, application: SocketAddr, mesh: SocketAddr) -> Endpoint {
    Endpoint {
        service: service("reviews").service,
        port_name: PortName::new("main").unwrap(),
        instance: InstanceName::new(instance).unwrap(),
        address: application.into(),
        mesh_address: Some(mesh.into()),
        identity: Some(identity("reviews")),
        said_by: Default::default(),
        tls: TlsMode::Required,
        labels: Default::default(),
        weight: 1,
        locality: Locality::default(),
        health: Health::Healthy,
    }
}

/// An endpoint of `reviews`, served by a host.
pub(crate) fn endpoint(instance: &str, application: SocketAddr, host: &Host) -> Arc<Upstream> {
    let ListenAddress::Tcp(mesh) = host.proxy.addresses().inbound[0].clone() else { panic!("no TCP") };
    Arc::new(Upstream {
        registry: RegistryName::new("static").unwrap(),
        endpoint: Arc::new(endpoint_at(instance, application, mesh)),
        tier: 0,
        state: Default::default(),
    })
}

/// A table in which the host `reviews` leads to these endpoints.
pub(crate) fn calling_table(endpoints: Vec<Arc<Upstream>>, protocol: AppProtocol, generation: u64) -> Table {
    calling_table_with(endpoints, protocol, generation, Retries::default())
}

/// The same with retries.
pub(crate) fn calling_table_with(
    endpoints: Vec<Arc<Upstream>>,
    protocol: AppProtocol,
    generation: u64,
    retries: Retries,
) -> Table {
    calling_table_within(endpoints, protocol, generation, retries, None)
}

/// The same with a limit to the wait for the response.
pub(crate) fn calling_table_within(
    endpoints: Vec<Arc<Upstream>>,
    protocol: AppProtocol,
    generation: u64,
    retries: Retries,
    request_timeout: Option<Duration>,
) -> Table {
    let first_choice = endpoints.len();
    let set = EndpointSet { all: endpoints, first_choice, cumulative_weights: Vec::new() };
    let target = Target { service: service("reviews"), cumulative_weight: 1, endpoints: Arc::new(set) };
    let rule = CompiledRouteRule {
        name: RuleName::new("default").unwrap(),
        matches: Vec::new().into(),
        targets: vec![target],
        request_timeout,
        connect_timeout: CONNECT_TIMEOUT,
        retries,
    };
    let port = DestinationPort {
        service: service("reviews"),
        name: PortName::new("main").unwrap(),
        number: 80,
        protocol,
        rules: vec![Arc::new(rule)].into(),
    };
    let destination =
        Arc::new(Destination { key: service("reviews"), ports: vec![Arc::new(port)], is_held: false });
    let mut table = Table { generation, ..Table::default() };
    table.hosts.insert(HostName::new("reviews").unwrap(), destination);
    table
}

/// The configuration of a host whose `web` calls.
pub(crate) fn calling_config(kind: OutboundKind, allowed: AllowedLocal) -> ProxyConfig {
    let workload = Arc::new(Workload {
        name: WorkloadName::new("web").unwrap(),
        identity: identity("web"),
        labels: Default::default(),
        locality: Locality::default(),
        ports: Vec::new(),
    });
    let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let outbound = vec![OutboundListener { address, kind, allowed }];
    ProxyConfig {
        workers: 1,
        workloads: vec![WorkloadListeners { workload, outbound }],
        ..ProxyConfig::default()
    }
}

/// A host whose `web` calls.
pub(crate) fn calling_host(authority: &Authority, table: Table, kind: OutboundKind) -> Host {
    let table = Publisher::new(table);
    let credentials = Publisher::new(authority.credentials(&[&identity("web")]));
    let config = calling_config(kind, AllowedLocal::Any);
    let proxy = Proxy::start(config, table.reader(), credentials.reader()).unwrap();
    Host { proxy, table, credentials }
}

/// Where a proxy's first workload connects.
pub(crate) fn outbound_of(proxy: &Proxy) -> SocketAddr {
    match proxy.addresses().outbound[0].1.clone() {
        ListenAddress::Tcp(address) => address,
        ListenAddress::Unix(_) => panic!("a Unix socket"),
    }
}

impl Host {
    /// Where its workload connects.
    pub(crate) fn outbound(&self) -> SocketAddr {
        outbound_of(&self.proxy)
    }
}

/// A host that calls, and one that serves an application of this protocol.
pub(crate) fn pair(
    authority: &Authority,
    address: SocketAddr,
    protocol: AppProtocol,
    kind: OutboundKind,
) -> (Host, Host) {
    let reviews = serving_host(authority, Serving { address, protocol, authorization: open_to_domain() });
    let table = calling_table(vec![endpoint("r1", address, &reviews)], protocol, 1);
    (calling_host(authority, table, kind), reviews)
}

/// A listener that leads to `reviews` alone.
pub(crate) fn bound() -> OutboundKind {
    OutboundKind::Upstream { service: HostName::new("reviews").unwrap(), port: None }
}

/// The next record that a tap shows.
pub(crate) async fn next(tap: &mut TapReceiver) -> Arc<RequestContext> {
    match tokio::time::timeout(Duration::from_secs(10), tap.next()).await.unwrap() {
        Some(Tapped::Request(context)) => context,
        other => panic!("{other:?}"),
    }
}
