//! Connections that switch to another protocol: how they end, and what is known of them then.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

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
    world::{next, pair, until},
};

/// What an application read after the switch, and how that ended.
type Ending = (Vec<u8>, Result<(), ErrorKind>);

/// What is heard of an application that switched.
struct Heard {
    /// How many bytes it has read so far.
    read: Arc<AtomicUsize>,
    ended: mpsc::Receiver<Ending>,
}

/// An application that switches to `protocol`, says `hello`, and reads to the end.
async fn switching(protocol: &'static str) -> (SocketAddr, Heard) {
    let (told, ended) = mpsc::channel(1);
    let heard = Heard { read: Arc::default(), ended };
    let count = heard.read.clone();
    let address = scripted(move |_, mut stream| {
        let (told, count) = (told.clone(), count.clone());
        async move {
            let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ";
            stream.write_all(format!("{head}{protocol}\r\n\r\nhello").as_bytes()).await.unwrap();
            let mut all = Vec::new();
            let end = loop {
                match stream.read_buf(&mut all).await {
                    Ok(0) => break Ok(()),
                    Ok(_) => count.store(all.len(), Relaxed),
                    Err(error) => break Err(error.kind()),
                }
            };
            told.send((all, end)).await.unwrap();
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

impl Heard {
    /// Waits until the application has read so much.
    async fn has_read(&self, bytes: usize) {
        until("it has arrived", async || self.read.load(Relaxed) == bytes).await;
    }

    async fn ending(&mut self) -> Ending {
        tokio::time::timeout(Duration::from_secs(10), self.ended.recv()).await.unwrap().unwrap()
    }
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
        assert_eq!(heard.ending().await, (b"last".to_vec(), Ok(())));
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
        heard.has_read(4).await;
        stream.set_zero_linger().unwrap();
        drop(stream);
        assert_eq!(heard.ending().await, (b"part".to_vec(), Err(ErrorKind::ConnectionReset)));
        for tap in [&mut caller, &mut called] {
            check(&next(tap).await, Some("caller_gone"));
        }
        until("nothing is left", went).await;
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
    heard.has_read(4).await;
    assert_eq!(web.proxy.drain(Duration::from_millis(200)).await, 1);
    assert_eq!(heard.ending().await, (b"last".to_vec(), Ok(())));
    check(&next(&mut caller).await, Some("drained"));
    drop(stream);
    check(&next(&mut called).await, None);
}
