use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    task::spawn_local,
    time::{sleep, timeout},
};

use super::*;

/// How long nothing may be heard from an agent before it is asked, and how long its answer may take.
const HUSH: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_secs(1);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A server that says nothing but what it is told to, and counts PINGs without an answer.
struct Mute {
    writer: WriteHalf<DuplexStream>,
    pings: Rc<Cell<u32>>,
    /// What the last PING said.
    last: Rc<Cell<[u8; 8]>>,
    asked: Rc<Notify>,
}

impl Mute {
    async fn start(io: DuplexStream) -> Self {
        let (mut reader, mut writer) = split(io);
        let mut preface = [0; 24];
        reader.read_exact(&mut preface).await.unwrap();
        writer.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        writer.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        let (pings, last, asked) = (Rc::new(Cell::new(0)), Rc::default(), Rc::new(Notify::new()));
        let mute = Self { writer, pings, last, asked };
        spawn_local(Self::read(reader, mute.pings.clone(), mute.last.clone(), mute.asked.clone()));
        mute
    }

    async fn read(
        mut reader: ReadHalf<DuplexStream>,
        pings: Rc<Cell<u32>>,
        last: Rc<Cell<[u8; 8]>>,
        asked: Rc<Notify>,
    ) {
        let mut head = [0; 9];
        while reader.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            reader.read_exact(&mut payload).await.unwrap();
            match (head[3], head[4] & ACK) {
                (PING, 0) => {
                    pings.set(pings.get() + 1);
                    last.set(payload.try_into().unwrap());
                }
                (HEADERS, _) => asked.notify_one(),
                _ => {}
            }
        }
    }

    async fn say(&mut self, frame: &[u8]) {
        self.writer.write_all(frame).await.unwrap();
    }

    /// Status 200 (RFC 7541, appendix A, index 8); the body follows.
    async fn answer(&mut self) {
        self.say(&frame(HEADERS, END_HEADERS, 1, &[0x88])).await;
    }
}

async fn connect(peer: Peer) -> (Rc<Multiplexed>, Mute) {
    let (near, far) = duplex(1 << 20);
    let (connection, mute) = tokio::join!(Multiplexed::open(near, STREAM_WINDOW, peer), Mute::start(far));
    (connection.unwrap(), mute)
}

fn get() -> Request<()> {
    Request::get("http://reviews/").body(()).unwrap()
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_application_may_be_silent_and_gets_no_ping() {
    let (connection, mut mute) = connect(Peer::Application).await;
    let call = spawn_local(connection.lease().send(get(), Body::Empty));
    mute.asked.notified().await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(mute.pings.get(), 0);
    mute.answer().await;
    assert_eq!(call.await.unwrap().unwrap().0.status(), 200);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_agent_gets_a_ping_only_when_it_is_silent() {
    let (connection, mut mute) = connect(Peer::Agent).await;
    // A second request begins a new wait, however long the connection idled before.
    sleep(Duration::from_secs(60)).await;
    let call = spawn_local(connection.lease().send(get(), Body::Empty));
    mute.asked.notified().await;
    mute.answer().await;
    let (mut response, _) = call.await.unwrap().unwrap();
    for _ in 0..20 {
        sleep(HUSH / 2).await;
        mute.say(&frame(DATA, 0, 1, b"x")).await;
        let data = poll_fn(|context| response.body_mut().poll_frame(context)).await;
        assert_eq!(data.unwrap().unwrap().into_data().unwrap(), "x");
    }
    assert_eq!(mute.pings.get(), 0);
    let began = Instant::now();
    let end = poll_fn(|context| response.body_mut().poll_frame(context)).await;
    assert!(end.unwrap().is_err());
    assert_eq!(mute.pings.get(), 1);
    let silence = began.elapsed();
    assert!(silence > SILENCE && silence <= SILENCE * 2, "{silence:?}");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn streams_that_nobody_reads_do_not_end_the_others() {
    let (connection, mut mute) = connect(Peer::Application).await;
    let mut unread = Vec::new();
    for stream in (1..80).step_by(2) {
        let call = spawn_local(connection.lease().send(get(), Body::Empty));
        mute.asked.notified().await;
        mute.say(&frame(HEADERS, END_HEADERS, stream, &[0x88])).await;
        unread.push(call.await.unwrap().unwrap());
        for _ in 0..1500 {
            mute.say(&frame(DATA, 0, stream, b"x")).await;
        }
    }
    let call = spawn_local(connection.lease().send(get(), Body::Empty));
    mute.asked.notified().await;
    mute.say(&frame(HEADERS, END_HEADERS, 81, &[0x88])).await;
    assert_eq!(call.await.unwrap().unwrap().0.status(), 200);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn what_comes_late_for_streams_that_were_given_up_does_not_end_the_others() {
    let (connection, mut mute) = connect(Peer::Application).await;
    for stream in (1..400).step_by(2) {
        let call = spawn_local(connection.lease().send(get(), Body::Empty));
        mute.asked.notified().await;
        mute.say(&frame(HEADERS, END_HEADERS, stream, &[0x88])).await;
        drop(call.await.unwrap().unwrap());
    }
    sleep(Duration::from_secs(1)).await;
    for stream in (1..400).step_by(2) {
        for _ in 0..10 {
            mute.say(&frame(DATA, 0, stream, b"late")).await;
        }
    }
    let call = spawn_local(connection.lease().send(get(), Body::Empty));
    mute.asked.notified().await;
    mute.say(&frame(HEADERS, END_HEADERS, 401, &[0x88])).await;
    assert_eq!(call.await.unwrap().unwrap().0.status(), 200);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_application_may_flush_with_empty_frames() {
    let (connection, mut mute) = connect(Peer::Application).await;
    let call = spawn_local(connection.lease().send(get(), Body::Empty));
    mute.asked.notified().await;
    mute.answer().await;
    let (mut response, _) = call.await.unwrap().unwrap();
    for _ in 0..1000 {
        mute.say(&[frame(DATA, 0, 1, b"x"), frame(DATA, 0, 1, b"")].concat()).await;
        let data = poll_fn(|context| response.body_mut().poll_frame(context)).await;
        assert_eq!(data.unwrap().unwrap().into_data().unwrap(), "x");
    }
    mute.say(&frame(DATA, END_STREAM, 1, b"")).await;
    let mut end = poll_fn(|context| response.body_mut().poll_frame(context)).await;
    if end.as_ref().is_some_and(|frame| frame.as_ref().unwrap().data_ref().is_some_and(Bytes::is_empty)) {
        end = poll_fn(|context| response.body_mut().poll_frame(context)).await;
    }
    assert!(end.is_none(), "{end:?}");
    assert_eq!(connection.phase(), Phase::Open);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_agent_that_is_late_with_its_pong_is_not_given_up() {
    let (connection, mut mute) = connect(Peer::Agent).await;
    let call = spawn_local(connection.lease().send(get(), Body::Empty));
    mute.asked.notified().await;
    mute.answer().await;
    let (mut response, _) = call.await.unwrap().unwrap();
    let mut read = async || poll_fn(|context| response.body_mut().poll_frame(context)).await;
    for turn in 1..=5 {
        // A PING goes out; other things are heard first, then nothing for most of the time that its answer may take.
        while mute.pings.get() < turn {
            sleep(HUSH / 10).await;
        }
        mute.say(&frame(DATA, 0, 1, b"x")).await;
        assert!(read().await.unwrap().is_ok());
        sleep(SILENCE * 3 / 2).await;
        mute.say(&frame(PING, ACK, 0, &mute.last.get())).await;
    }
    let began = Instant::now();
    assert!(read().await.unwrap().is_err());
    assert!(began.elapsed() <= SILENCE * 3, "{:?}", began.elapsed());
}

/// Connects until nobody answers any more: who listens does not accept, and its queue is full.
fn fill(address: SocketAddr) -> Vec<std::net::TcpStream> {
    let limit = Duration::from_millis(300);
    std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, limit).ok()).collect()
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_host_that_is_gone_is_given_up_and_one_that_works_long_is_not() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let (connection, mut mute) = connect(Peer::Remote(address)).await;
    let accepted = Rc::new(Cell::new(0));
    let accepting = spawn_local({
        let accepted = accepted.clone();
        async move {
            while listener.accept().await.is_ok() {
                accepted.set(accepted.get() + 1);
                if accepted.get() == 20 {
                    break;
                }
            }
            listener
        }
    });
    let call = spawn_local(connection.lease().send(get(), Body::Empty));
    mute.asked.notified().await;
    sleep(Duration::from_secs(600)).await;
    assert!((8..20).contains(&accepted.get()), "{}", accepted.get());
    mute.answer().await;
    let (mut response, _) = call.await.unwrap().unwrap();
    assert_eq!(
        (response.status(), connection.phase(), mute.pings.get()),
        (200.try_into().unwrap(), Phase::Open, 0)
    );
    // Now the host goes: nothing comes from it, and nothing answers. Those in the queue are real, and so is the time.
    while !accepting.is_finished() {
        std::net::TcpStream::connect(address).unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    let _listener = accepting.await.unwrap();
    let _queue = fill(address);
    let began = Instant::now();
    let end = poll_fn(|context| response.body_mut().poll_frame(context)).await;
    assert!(end.unwrap().is_err());
    let silence = began.elapsed();
    assert!((29..100).contains(&silence.as_secs()), "{silence:?}");
    // What was asked meanwhile is told why.
    assert_eq!((connection.phase(), connection.silent.get()), (Phase::Dead, true));
}

/// Answers every request but `/held` once its body came.
async fn answer_all(io: DuplexStream) {
    let mut server = h2::server::Builder::new();
    let mut server = server.max_concurrent_streams(2).handshake::<_, Bytes>(io).await.unwrap();
    let mut held = Vec::new();
    while let Some(Ok((request, mut respond))) = server.accept().await {
        if request.uri().path() == "/held" {
            held.push((request, respond));
            continue;
        }
        spawn_local(async move {
            let mut body = request.into_body();
            while let Some(chunk) = body.data().await {
                let _ = body.flow_control().release_capacity(chunk.unwrap().len());
            }
            respond.send_response(Response::new(()), true).unwrap();
        });
    }
}

/// The second request takes the last place with a body that needs more than one turn; the third comes before the
/// connection had a turn at all.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_full_connection_forgets_no_body() {
    let (near, far) = duplex(1 << 20);
    spawn_local(answer_all(far));
    let connection = Multiplexed::open(near, STREAM_WINDOW, Peer::Application).await.unwrap();
    assert_eq!(connection.capacity(), 2);
    let request = |path| Request::post(format!("http://reviews/{path}")).body(()).unwrap();
    let held = spawn_local(connection.lease().send(request("held"), Body::Empty));
    sleep(Duration::from_millis(1)).await;
    let large = Body::Full(Some(vec![b'x'; 1_000_000].into()));
    let second = spawn_local(connection.lease().send(request("large"), large));
    let third = spawn_local(connection.lease().send(request("third"), Body::Empty));
    let second = timeout(Duration::from_secs(30), second).await.expect("its body stands still");
    assert_eq!(second.unwrap().unwrap().0.status(), 200);
    held.abort();
    let third = timeout(Duration::from_secs(30), third).await.expect("it was never begun");
    assert_eq!(third.unwrap().unwrap().0.status(), 200);
}
