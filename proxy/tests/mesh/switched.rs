//! Connections that switch to another protocol: how they end, and what is known of them then.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use weft_core::{context::RequestContext, resource::AppProtocol};
use weft_proxy::OutboundKind;

use crate::{
    application::{read_head, scripted},
    authority::Authority,
    world::{next, pair},
};

/// What an application read after the switch, and how that ended.
type Ending = (Vec<u8>, Result<(), ErrorKind>);

/// An application that switches to `protocol`, says `hello`, and reads to the end.
async fn switching(protocol: &'static str) -> (SocketAddr, mpsc::Receiver<Ending>) {
    let (told, heard) = mpsc::channel(1);
    let address = scripted(move |_, mut stream| {
        let told = told.clone();
        async move {
            let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ";
            stream.write_all(format!("{head}{protocol}\r\n\r\nhello").as_bytes()).await.unwrap();
            let mut all = Vec::new();
            let end = stream.read_to_end(&mut all).await;
            told.send((all, end.map(drop).map_err(|error| error.kind()))).await.unwrap();
        }
    })
    .await;
    (address, heard)
}

async fn switched(address: SocketAddr, protocol: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "GET /chat HTTP/1.1\r\nhost: reviews\r\nconnection: upgrade\r\nupgrade: ";
    stream.write_all(format!("{head}{protocol}\r\n\r\n").as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    stream
}

async fn ending(heard: &mut mpsc::Receiver<Ending>) -> Ending {
    tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.unwrap().unwrap()
}

fn check(record: &Arc<RequestContext>, fault: Option<&str>) {
    assert_eq!((record.verdict.status, record.verdict.fault), (101, fault));
    assert_eq!((record.received_bytes, record.sent_bytes), (4, 5), "{record:?}");
    assert_eq!(record.request.as_ref().map(|request| request.path.as_str()), Some("/chat"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn it_is_recorded_once_at_its_end_with_its_bytes() {
    let authority = Authority::new();
    for protocol in ["websocket", "other"] {
        let (address, mut heard) = switching(protocol).await;
        let (web, reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
        let (mut caller, mut called) = (web.proxy.tap(), reviews.proxy.tap());
        let mut stream = switched(web.outbound(), protocol).await;
        let pause = Duration::from_millis(100);
        tokio::time::sleep(pause).await;
        stream.write_all(b"last").await.unwrap();
        drop(stream);
        assert_eq!(ending(&mut heard).await, (b"last".to_vec(), Ok(())));
        for tap in [&mut caller, &mut called] {
            let record = next(tap).await;
            check(&record, None);
            assert!(record.duration >= pause, "{record:?}");
        }
        for host in [&web, &reviews] {
            let counted = host.proxy.metrics();
            let mut lines = counted.lines().filter(|line| line.contains(r#"response_code="101""#));
            let requests = lines.find(|line| line.starts_with("weft_requests_total{")).unwrap();
            assert!(requests.ends_with(" 1"), "{requests}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_cut_ends_as_an_error_on_the_other_side() {
    let authority = Authority::new();
    for protocol in ["websocket", "other"] {
        let (address, mut heard) = switching(protocol).await;
        let (web, reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
        let (mut caller, mut called) = (web.proxy.tap(), reviews.proxy.tap());
        let mut stream = switched(web.outbound(), protocol).await;
        stream.write_all(b"part").await.unwrap();
        let went = async || web.proxy.load() == 0 && reviews.proxy.load() == 0;
        // Only once it has arrived: a reset overtakes what is on its way.
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.set_zero_linger().unwrap();
        drop(stream);
        assert_eq!(ending(&mut heard).await, (b"part".to_vec(), Err(ErrorKind::ConnectionReset)));
        for tap in [&mut caller, &mut called] {
            check(&next(tap).await, Some("caller_gone"));
        }
        crate::world::until("nothing is left", went).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_drain_is_named() {
    let authority = Authority::new();
    let (address, mut heard) = switching("other").await;
    let (mut web, reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let (mut caller, mut called) = (web.proxy.tap(), reviews.proxy.tap());
    let mut stream = switched(web.outbound(), "other").await;
    stream.write_all(b"last").await.unwrap();
    assert_eq!(web.proxy.drain(Duration::from_millis(200)).await, 1);
    assert_eq!(ending(&mut heard).await, (b"last".to_vec(), Ok(())));
    check(&next(&mut caller).await, Some("drained"));
    drop(stream);
    check(&next(&mut called).await, None);
}
