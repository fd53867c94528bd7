//! A front before Nomad that lets all through but the event stream, with which it does what broken proxies and old servers do.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// What becomes of the answer to a question for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Everything after its head and its first line is swallowed.
    Deaf,
    /// Its head is of a version of HTTP that there is not, as before Nomad 1.11.3.
    Nameless,
    /// It ends after its first line.
    Short,
    /// It has a head and nothing more, as for who may read nothing.
    Empty,
    /// Of this namespace: deaf. All others are let through.
    DeafOf(&'static str),
}

/// Dropping it closes nothing: its threads end with their connections.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    /// How often events were asked for.
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Front {
    pub(crate) fn before(url: &str, stream: Stream) -> Self {
        let server = url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (server, counter) = (server.clone(), counter.clone());
                thread::spawn(move || pass(client.unwrap(), &server, stream, &counter));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Passes the questions of a connection on. A question is one read: they have no bodies, and are short.
fn pass(mut client: TcpStream, server: &str, stream: Stream, asked: &AtomicUsize) {
    let mut server = TcpStream::connect(server).unwrap();
    let mut buffer = vec![0; 64 << 10];
    let mut answers: Option<thread::JoinHandle<()>> = None;
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let is_stream = buffer[..length].starts_with(b"GET /v1/event/stream");
        asked.fetch_add(usize::from(is_stream), Ordering::SeqCst);
        let is_let_through = matches!(stream, Stream::DeafOf(namespace)
            if !String::from_utf8_lossy(&buffer[..length]).contains(&format!("namespace={namespace}")));
        if is_stream && !is_let_through {
            // Whatever was answered before is through: questions are not sent ahead.
            let server = TcpStream::connect(server.peer_addr().unwrap()).unwrap();
            return spoil(client, server, &buffer[..length], stream);
        }
        if answers.is_none() {
            let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            answers = Some(thread::spawn(move || copy(from, to)));
        }
        if server.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

fn spoil(mut client: TcpStream, mut server: TcpStream, question: &[u8], stream: Stream) {
    server.write_all(question).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let end_of_head = |answer: &[u8]| answer.windows(4).position(|part| part == b"\r\n\r\n").map(|at| at + 4);
    // The head and the first line of the body.
    while end_of_head(&answer).is_none_or(|end| !answer[end..].contains(&b'\n')) {
        match server.read(&mut buffer) {
            Ok(length @ 1..) => answer.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
    let head = end_of_head(&answer).unwrap();
    let line = head + answer[head..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let sent = match stream {
        Stream::Deaf | Stream::DeafOf(_) | Stream::Short => answer[..line].to_vec(),
        Stream::Empty => answer[..head].to_vec(),
        Stream::Nameless => [b"HTTP/0.0", &answer[b"HTTP/1.1".len()..]].concat(),
    };
    let _ = client.write_all(&sent);
    if stream == Stream::Short {
        let _ = client.shutdown(Shutdown::Both);
        return;
    }
    // Until the client has enough of it.
    while let Ok(1..) = client.read(&mut buffer) {}
}
