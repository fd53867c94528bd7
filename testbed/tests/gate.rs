//! The gate's modes, on sockets before a server that echoes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use weft_testbed::{Gate, GateMode, Port, until};

const SOON: Duration = Duration::from_secs(10);
/// Long enough that what would arrive has arrived.
const QUIET: Duration = Duration::from_millis(200);

/// Sends back what it gets, connection by connection, for as long as the test runs.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn gate() -> Gate {
    Gate::before(&echo().to_string()).unwrap()
}

fn connect(gate: &Gate) -> TcpStream {
    let stream = TcpStream::connect(gate.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Whether `word` comes back, and nothing else.
fn echoes(mut stream: &TcpStream, word: &str) {
    stream.write_all(word.as_bytes()).unwrap();
    receives(stream, word);
}

fn receives(mut stream: &TcpStream, word: &str) {
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, word.as_bytes());
}

fn receives_nothing(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(QUIET)).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(SOON)).unwrap();
}

#[test]
fn open_passes_everything_and_counts_it() {
    let gate = gate();
    let (one, two) = (connect(&gate), connect(&gate));
    echoes(&one, "hello");
    echoes(&two, "you");
    drop(one);
    // What is passed on is counted after it.
    until("all is counted, and one is closed", SOON, || {
        let counts = gate.counts();
        (counts.open, counts.to_server, counts.from_server) == (1, 8, 8)
    })
    .unwrap();
    let counts = gate.counts();
    assert_eq!((counts.accepted, counts.most_open), (2, 2));
    let long = vec![b'x'; 3_000_000];
    thread::scope(|scope| {
        scope.spawn(|| (&two).write_all(&long).unwrap());
        let mut back = vec![0; long.len()];
        (&two).read_exact(&mut back).unwrap();
        assert!(back == long);
    });
}

#[test]
fn the_end_of_a_stream_passes_each_way_alone() {
    let gate = gate();
    let mut stream = connect(&gate);
    stream.write_all(b"last words").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
    until("it is closed", SOON, || gate.counts().open == 0).unwrap();
}

#[test]
fn refuse_closes_the_door_to_new_ones_only() {
    let gate = gate();
    let old = connect(&gate);
    echoes(&old, "before");
    gate.set(GateMode::Refuse).unwrap();
    let error = TcpStream::connect(gate.address()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    echoes(&old, "still");
    gate.set(GateMode::Open).unwrap();
    echoes(&connect(&gate), "again");
}

#[test]
fn cut_resets_what_exists_and_refuses_what_comes() {
    let gate = gate();
    let old = connect(&gate);
    echoes(&old, "before");
    gate.set(GateMode::Cut).unwrap();
    assert_eq!(gate.counts().open, 0);
    assert_eq!((&old).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(TcpStream::connect(gate.address()).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    gate.set(GateMode::Open).unwrap();
    echoes(&connect(&gate), "again");
}

#[test]
fn reset_leaves_the_door_open() {
    let gate = gate();
    let old = connect(&gate);
    echoes(&old, "before");
    gate.reset();
    assert_eq!((&old).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    echoes(&connect(&gate), "new");
}

#[test]
fn silence_in_both_directions_holds_everything_back_until_it_ends() {
    let gate = gate();
    let old = connect(&gate);
    echoes(&old, "before");
    gate.set(GateMode::Silent).unwrap();
    let new = connect(&gate);
    for stream in [&old, &new] {
        (&*stream).write_all(b"late").unwrap();
        receives_nothing(stream);
    }
    assert_eq!(gate.counts().to_server, 6);
    gate.set(GateMode::Open).unwrap();
    for stream in [&old, &new] {
        receives(stream, "late");
    }
}

#[test]
fn silence_to_the_server_keeps_the_way_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gate = Gate::before(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    assert_eq!(gate.url(), format!("http://{}", gate.address()));
    let client = connect(&gate);
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    gate.set(GateMode::SilentToServer).unwrap();
    (&client).write_all(b"up").unwrap();
    (&server).write_all(b"down").unwrap();
    receives(&client, "down");
    receives_nothing(&server);
    gate.set(GateMode::SilentFromServer).unwrap();
    receives(&server, "up");
    (&server).write_all(b"again").unwrap();
    receives_nothing(&client);
    assert_eq!(gate.counts().from_server, 4);
    gate.set(GateMode::Open).unwrap();
    receives(&client, "again");
}

#[test]
fn what_is_lost_never_arrives_and_what_comes_after_it_does() {
    let gate = gate();
    let (idle, busy) = (connect(&gate), connect(&gate));
    echoes(&idle, "before");
    echoes(&busy, "before");
    gate.set(GateMode::Lost).unwrap();
    let new = connect(&gate);
    for mut stream in [&busy, &new] {
        stream.write_all(b"lost").unwrap();
    }
    // What the gate has not read by then it does not lose.
    thread::sleep(5 * QUIET);
    for stream in [&busy, &new] {
        receives_nothing(stream);
    }
    gate.set(GateMode::Open).unwrap();
    receives_nothing(&busy);
    receives_nothing(&new);
    echoes(&idle, "nothing was sent on it");
    echoes(&connect(&gate), "new");
}

#[test]
fn a_cut_ends_silent_connections_too() {
    let gate = gate();
    gate.set(GateMode::Silent).unwrap();
    let stream = connect(&gate);
    (&stream).write_all(b"lost").unwrap();
    until("it is accepted", SOON, || gate.counts().open == 1).unwrap();
    gate.set(GateMode::Cut).unwrap();
    assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(gate.counts().to_server, 0);
}

#[test]
fn a_dead_server_resets_the_client_and_a_dropped_gate_lets_nobody_in() {
    let port = Port::free().unwrap();
    let gate = Gate::before(&format!("127.0.0.1:{}", port.number())).unwrap();
    let stream = connect(&gate);
    assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let door = gate.address();
    drop(gate);
    assert_eq!(TcpStream::connect(door).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
