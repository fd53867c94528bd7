//! Where local processes connect: several workers, other families of addresses, changes, and callers that never finish.

use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use weft_core::{publish::Publisher, resource::AppProtocol, table::Table};
use weft_proxy::{AllowedLocal, Limits, ListenAddress, OutboundKind, OutboundListener, Proxy, ProxyConfig};

use crate::{
    application::Application,
    authority::Authority,
    client::Client1,
    world::{
        Host, Serving, calling_config, calling_table, endpoint, identity, open_to_domain, outbound_of,
        serving_host,
    },
};

fn config() -> ProxyConfig {
    calling_config(OutboundKind::ByHost, AllowedLocal::Any)
}

fn listener(address: ListenAddress) -> OutboundListener {
    OutboundListener { address, kind: OutboundKind::ByHost, allowed: AllowedLocal::Any }
}

fn start(authority: &Authority, table: Table, config: ProxyConfig) -> Host {
    let table = Publisher::new(table);
    let credentials = Publisher::new(authority.credentials(&[&identity("web")]));
    let proxy = Proxy::start(config, table.reader(), credentials.reader()).unwrap();
    Host { proxy, table, credentials }
}

fn reviews(authority: &Authority, application: &Application) -> (Host, Table) {
    let authorization = open_to_domain();
    let serving = Serving { address: application.address, protocol: AppProtocol::Http, authorization };
    let reviews = serving_host(authority, serving);
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Http, 1);
    (reviews, table)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn both_workers_serve() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (_reviews, table) = reviews(&authority, &application);
    let web = start(&authority, table, ProxyConfig { workers: 2, ..config() });
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client1::connect(web.outbound()).await);
    }
    for client in &mut clients {
        assert_eq!(client.get("reviews", "/").await.unwrap().status, 200);
    }
    // Each worker has connections of its own to the other agent.
    assert_eq!(web.proxy.connections().await.len(), 2);
    assert_eq!(web.proxy.load(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_workload_connects_by_ipv6_and_by_a_unix_socket() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (_reviews, table) = reviews(&authority, &application);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.sock");
    let mut config = config();
    config.workloads[0].outbound = vec![
        listener(ListenAddress::Tcp("[::1]:0".parse().unwrap())),
        listener(ListenAddress::Unix(path.clone())),
    ];
    let web = start(&authority, table, config);
    let addresses = web.proxy.addresses().outbound.into_iter();
    let tcp = addresses.filter_map(|(_, address)| match address {
        ListenAddress::Tcp(address) => Some(address),
        ListenAddress::Unix(_) => None,
    });
    let address = tcp.last().unwrap();
    assert!(address.is_ipv6());
    assert_eq!(Client1::connect(address).await.get("reviews", "/").await.unwrap().status, 200);
    let io = TokioIo::new(UnixStream::connect(&path).await.unwrap());
    let mut client = Client1::over(io).await;
    assert_eq!(client.get("reviews", "/").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn listeners_come_and_go_beside_open_connections() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (_reviews, table) = reviews(&authority, &application);
    let mut web = start(&authority, table, config());
    let first = web.outbound();
    let mut open = Client1::connect(first).await;
    assert_eq!(open.get("reviews", "/").await.unwrap().status, 200);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.sock");
    let mut both = config();
    both.workloads[0].outbound.push(listener(ListenAddress::Unix(path.clone())));
    web.proxy.reload(both.clone()).unwrap();
    assert_eq!(outbound_of(&web.proxy), first, "it stays where it was");
    let mut second = Client1::over(TokioIo::new(UnixStream::connect(&path).await.unwrap())).await;
    assert_eq!(second.get("reviews", "/").await.unwrap().status, 200);
    both.workloads[0].outbound.remove(0);
    web.proxy.reload(both).unwrap();
    for client in [&mut open, &mut second] {
        assert_eq!(client.get("reviews", "/").await.unwrap().status, 200);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(first).await.is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(open.get("reviews", "/").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_header_that_never_ends_ends_the_connection_and_idling_does_not() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (_reviews, table) = reviews(&authority, &application);
    let limits = Limits { header: Duration::from_secs(1), ..Limits::default() };
    let web = start(&authority, table, ProxyConfig { limits, ..config() });
    let mut idle = Client1::connect(web.outbound()).await;
    assert_eq!(idle.get("reviews", "/").await.unwrap().status, 200);
    let mut callers = Vec::new();
    for begun in ["P", "GET / HTTP/1.1\r\nhost: rev"] {
        let mut caller = TcpStream::connect(web.outbound()).await.unwrap();
        caller.write_all(begun.as_bytes()).await.unwrap();
        callers.push(caller);
    }
    for mut caller in callers {
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), caller.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "it is still open");
    }
    assert_eq!(idle.get("reviews", "/").await.unwrap().status, 200);
    // A request that takes longer than a header may is none of this.
    let slow = http::Request::get("/").header("host", "reviews").header("x-delay", "2500");
    let reply = idle.call(slow.body(Default::default()).unwrap()).await.unwrap();
    assert_eq!(reply.status, 200);
}
