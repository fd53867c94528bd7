//! A caller's agent of our own making: it does what the wire format lets it do, and no more than a test wants.

use std::{future::poll_fn, pin::Pin, task::Poll};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};
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

/// Connects to the mesh port of `host` as `web` and owes the hello.
pub(crate) async fn connect(authority: &Authority, host: &Host, framing: Framing) -> TlsStream<TcpStream> {
    let credentials = Publisher::new(authority.credentials(&[&identity("web")]));
    let tls = TlsContext::new(credentials.reader());
    let config = tls.client_config(&identity("web"), framing).unwrap();
    let ListenAddress::Tcp(address) = host.proxy.addresses().inbound[0].clone() else { panic!("no TCP") };
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = identity("reviews").server_name().try_into().unwrap();
    TlsConnector::from(config).connect(name, stream).await.unwrap()
}

/// Waits until the other side has ended the handshake too: only then it sends tickets.
pub(crate) async fn handshake_done(stream: &mut TlsStream<TcpStream>) {
    poll_fn(|context| {
        let mut byte = [0];
        let read = Pin::new(&mut *stream).poll_read(context, &mut ReadBuf::new(&mut byte));
        assert!(read.is_pending(), "it said something before the hello: {read:?}");
        if stream.get_ref().1.tls13_tickets_received() > 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Asks for an application's port of `reviews`.
pub(crate) async fn hello(stream: &mut TlsStream<TcpStream>, port: u16) -> Answer {
    exchange::write_hello(stream, &Hello::new(service("reviews").service, port)).await.unwrap();
    exchange::read_answer(stream).await.unwrap()
}

/// Connects to the mesh port of `host` as `web`, for an application's port of `reviews`, and is accepted.
pub(crate) async fn greet(
    authority: &Authority,
    host: &Host,
    port: u16,
    framing: Framing,
) -> TlsStream<TcpStream> {
    let mut stream = connect(authority, host, framing).await;
    let answer = hello(&mut stream, port).await;
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    stream
}
