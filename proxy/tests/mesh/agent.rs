//! A caller's agent of our own making: it does what the wire format lets it do, and no more than a test wants.

use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use weft_core::{
    publish::Publisher,
    tls::TlsContext,
    wire::{Answer, Framing, Hello, exchange},
};
use weft_proxy::ListenAddress;

use crate::{
    authority::Authority,
    world::{Host, identity, service},
};

/// Connects to the mesh port of `host` as `web`, for an application's port of `reviews`, and is accepted.
pub(crate) async fn greet(
    authority: &Authority,
    host: &Host,
    port: u16,
    framing: Framing,
) -> TlsStream<TcpStream> {
    let credentials = Publisher::new(authority.credentials(&[&identity("web")]));
    let tls = TlsContext::new(credentials.reader());
    let config = tls.client_config(&identity("web"), framing).unwrap();
    let ListenAddress::Tcp(address) = host.proxy.addresses().inbound[0].clone() else { panic!("no TCP") };
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = identity("reviews").server_name().try_into().unwrap();
    let mut stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
    exchange::write_hello(&mut stream, &Hello::new(service("reviews").service, port)).await.unwrap();
    let answer = exchange::read_answer(&mut stream).await.unwrap();
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    stream
}
