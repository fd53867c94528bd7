//! How many connections there are and how much they may hold: seen by applications that look at the frames.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use weft_core::{publish::Publisher, resource::AppProtocol, table::Upstream};
use weft_proxy::{AllowedLocal, Limits, OutboundKind, Proxy, ProxyConfig};

use crate::{
    authority::Authority,
    client::{Client2, Reply},
    world::{Host, calling_config, calling_host, calling_table, identity, plain_endpoint, until},
};

fn call(client: &Client2) -> JoinHandle<hyper::Result<Reply>> {
    let mut client = client.clone();
    let request = Request::get("http://reviews/").body(Full::new(Bytes::new())).unwrap();
    tokio::spawn(async move { client.call(request).await })
}

/// An application that takes so many streams a connection, and answers none before it is told to.
struct Holding {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
    held: Arc<AtomicU32>,
    answer: watch::Sender<bool>,
}

const STREAMS: u32 = 10;

impl Holding {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self {
            address,
            connections: Arc::default(),
            held: Arc::default(),
            answer: watch::Sender::new(false),
        };
        let (connections, held, answer) =
            (this.connections.clone(), this.held.clone(), this.answer.subscribe());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Relaxed);
                tokio::spawn(hold(stream, held.clone(), answer.clone()));
            }
        });
        this
    }
}

async fn hold(stream: TcpStream, held: Arc<AtomicU32>, answer: watch::Receiver<bool>) {
    let builder = h2::server::Builder::new().max_concurrent_streams(STREAMS).handshake::<_, Bytes>(stream);
    let Ok(mut connection) = builder.await else { return };
    let here = Arc::new(AtomicU32::new(0));
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        held.fetch_add(1, Relaxed);
        assert!(here.fetch_add(1, Relaxed) < STREAMS, "more streams than were offered");
        let (mut answer, here) = (answer.clone(), here.clone());
        tokio::spawn(async move {
            let _ = answer.wait_for(|answer| *answer).await;
            here.fetch_sub(1, Relaxed);
            let _ = respond.send_response(Response::new(()), true);
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_next_connection_is_opened_at_four_fifths_of_the_streams() {
    let authority = Authority::new();
    let application = Holding::start().await;
    let table = calling_table(vec![plain_endpoint("r1", application.address)], AppProtocol::Http2, 1);
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    let client = Client2::connect(web.outbound()).await;
    let mut calls = Vec::new();
    let mut connections_at = Vec::new();
    for count in 1..=2 * STREAMS {
        calls.push(call(&client));
        until("the request has come", async || application.held.load(Relaxed) == count).await;
        if count == STREAMS * 4 / 5 + 1 {
            until("the second connection is opened ahead", async || {
                application.connections.load(Relaxed) == 2
            })
            .await;
        }
        connections_at.push(application.connections.load(Relaxed));
    }
    let early = usize::try_from(STREAMS * 4 / 5).unwrap();
    assert_eq!(connections_at[..early], vec![1; early], "not before four fifths");
    assert!(connections_at[early..].iter().all(|count| (2..=3).contains(count)), "{connections_at:?}");
    application.answer.send_replace(true);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status, 200);
    }
}

/// An application that says which windows it was given, and nothing else.
struct Listening {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Of a stream and of the connection, in bytes.
type Windows = Arc<Mutex<Vec<(u32, u32)>>>;

impl Listening {
    async fn start(windows: &Windows) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, windows) = (listener.local_addr().unwrap(), windows.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = listen(&mut stream).await;
                windows.lock().unwrap().push(seen);
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            }
        });
        Self { address, task }
    }
}

/// Reads up to the first request (RFC 9113 §6.5.2: setting 4 is the window of a stream; §6.9: the connection's begins at
/// 65 535 and grows by increments).
async fn listen(stream: &mut TcpStream) -> (u32, u32) {
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    stream.read_exact(&mut [0; 24]).await.unwrap();
    let (mut of_stream, mut of_connection) = (65_535, 65_535);
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        match head[3] {
            1 => return (of_stream, of_connection),
            4 => {
                let setting = payload.chunks(6).find(|setting| setting[..2] == [0, 4]);
                of_stream = setting.map_or(of_stream, |setting| word(&setting[2..]));
            }
            8 if head[5..] == [0; 4] => of_connection += word(&payload),
            _ => {}
        }
    }
}

const WINDOW_BYTES: u64 = 64 << 20;
const CONNECTIONS: usize = 6;

fn calling(authority: &Authority, endpoints: Vec<Arc<Upstream>>) -> Host {
    let table = Publisher::new(calling_table(endpoints, AppProtocol::Http2, 1));
    let credentials = Publisher::new(authority.credentials(&[&identity("web")]));
    let limits = Limits { window_bytes: WINDOW_BYTES, ..Limits::default() };
    let config = ProxyConfig { limits, ..calling_config(OutboundKind::ByHost, AllowedLocal::Any) };
    let proxy = Proxy::start(config, table.reader(), credentials.reader()).unwrap();
    Host { proxy, table, credentials }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connections_share_the_bytes_that_peers_may_send_unread() {
    let authority = Authority::new();
    let windows = Windows::default();
    let mut applications = Vec::new();
    for _ in 0..CONNECTIONS {
        applications.push(Listening::start(&windows).await);
    }
    let endpoint = |(number, application): (usize, &Listening)| {
        plain_endpoint(&format!("r{number}"), application.address)
    };
    let mut web = calling(&authority, applications.iter().enumerate().map(endpoint).collect());
    let mut client = Client2::connect(web.outbound()).await;
    let mut calls = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    // No call is answered, so the least busy endpoint is one without a connection, until each has one.
    while windows.lock().unwrap().len() < CONNECTIONS {
        assert!(Instant::now() < deadline, "{windows:?}");
        let known = windows.lock().unwrap().len();
        calls.push(call(&client));
        // One connection after the other, so that they are told of in the order in which they were given their windows. A
        // call on one that is there already tells nothing.
        let more = until("one more connection", async || windows.lock().unwrap().len() > known);
        let _told = tokio::time::timeout(Duration::from_millis(500), more).await;
    }
    let seen = windows.lock().unwrap().clone();
    for (of_stream, of_connection) in &seen {
        assert_eq!(of_stream * 256, *of_connection, "a connection holds what its streams may: {seen:?}");
    }
    assert!(seen.windows(2).all(|pair| pair[1].0 < pair[0].0), "the less is left, the smaller: {seen:?}");
    let all: u64 = seen.iter().map(|(_, of_connection)| u64::from(*of_connection)).sum();
    assert!(all <= WINDOW_BYTES, "{all} bytes of {WINDOW_BYTES}");

    // What a connection had is given back when it ends.
    let largest = seen[0].0;
    calls.iter().for_each(JoinHandle::abort);
    drop((calls, client, applications));
    client = Client2::connect(web.outbound()).await;
    let mut generation = 2;
    loop {
        assert!(Instant::now() < deadline, "the windows do not grow again");
        let fresh = Windows::default();
        let application = Listening::start(&fresh).await;
        let endpoints = vec![plain_endpoint("fresh", application.address)];
        web.table.publish(calling_table(endpoints, AppProtocol::Http2, generation));
        generation += 1;
        let call = call(&client);
        until("the application is called", async || !fresh.lock().unwrap().is_empty() || call.is_finished())
            .await;
        call.abort();
        if fresh.lock().unwrap().first().is_some_and(|(of_stream, _)| *of_stream == largest) {
            return;
        }
    }
}
