//! An application that keeps every byte it ever got.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What it answers by default.
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nwitness";

pub(crate) struct Witness {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    connections: AtomicUsize,
    seen: Mutex<Vec<u8>>,
    answer: Mutex<String>,
}

impl Witness {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            connections: AtomicUsize::new(0),
            seen: Mutex::default(),
            answer: Mutex::new(ANSWER.to_owned()),
        });
        let server = shared.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let server = server.clone();
                server.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || server.serve(&mut stream));
            }
        });
        Self { address, shared }
    }

    /// How many connections it ever had.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// All that it ever got.
    pub(crate) fn seen(&self) -> String {
        String::from_utf8_lossy(&self.shared.seen.lock().unwrap()).into_owned()
    }

    /// The targets of all requests, in order.
    pub(crate) fn targets(&self) -> Vec<String> {
        let seen = self.seen();
        let lines = seen.lines().filter(|line| line.ends_with(" HTTP/1.1"));
        lines.filter_map(|line| line.split(' ').nth(1).map(str::to_owned)).collect()
    }

    /// From now on it answers this.
    pub(crate) fn answer(&self, answer: &str) {
        answer.clone_into(&mut self.shared.answer.lock().unwrap());
    }
}

impl Shared {
    fn serve(&self, stream: &mut (impl Read + Write)) -> Option<()> {
        let mut pending = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            self.seen.lock().unwrap().extend_from_slice(&buffer[..count]);
            pending.extend_from_slice(&buffer[..count]);
            while let Some(end) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
                pending.drain(..end + 4);
                let answer = self.answer.lock().unwrap().clone();
                stream.write_all(answer.as_bytes()).ok()?;
            }
        }
    }
}
