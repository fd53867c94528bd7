//! A plain HTTP/1.1 server that knows nothing of Weft: it answers every request with its name and what it saw.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub struct Application {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    /// How long each answer takes.
    delay: Mutex<Duration>,
    requests: AtomicU64,
    stopped: AtomicBool,
    /// The head of the last request, line by line.
    last: Mutex<Vec<String>>,
    /// Whether streams go on.
    streaming: AtomicBool,
}

impl Application {
    /// Serves on a port from the OS.
    pub fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            name: name.into(),
            delay: Mutex::default(),
            requests: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            last: Mutex::default(),
            streaming: AtomicBool::new(true),
        });
        let address = listener.local_addr().unwrap();
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if server.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        Self { address, shared }
    }

    /// From now on every answer takes so long.
    pub fn delay(&self, delay: Duration) {
        *self.shared.delay.lock().unwrap() = delay;
    }

    /// Lets every answer to `/stream` come to its end: until then they go on, a chunk now and then.
    pub fn end_streams(&self) {
        self.shared.streaming.store(false, Ordering::SeqCst);
    }

    /// How many requests came.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The head of the last request.
    pub fn last(&self) -> Vec<String> {
        self.shared.last.lock().unwrap().clone()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept loop, which then ends; it may be gone already.
        let _woken = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let head = read_head(&mut reader)?;
            self.requests.fetch_add(1, Ordering::SeqCst);
            *self.last.lock().unwrap() = head.clone();
            let length = head.iter().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            let mut body = vec![0; length.unwrap_or(0)];
            std::io::Read::read_exact(&mut reader, &mut body).ok()?;
            if head.first().is_some_and(|line| line.contains(" /stream ")) {
                self.stream(reader.get_mut()).ok()?;
                continue;
            }
            let delay = *self.delay.lock().unwrap();
            if !delay.is_zero() {
                std::thread::sleep(delay);
            }
            let body = format!("{{\"service\":\"{}\"}}", self.name);
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            reader.get_mut().write_all(answer.as_bytes()).ok()?;
        }
    }
}

impl Shared {
    fn stream(&self, connection: &mut TcpStream) -> std::io::Result<()> {
        connection.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        while self.streaming.load(Ordering::SeqCst) && !self.stopped.load(Ordering::SeqCst) {
            connection.write_all(b"5\r\ntick\n\r\n")?;
            std::thread::sleep(Duration::from_millis(50));
        }
        connection.write_all(b"4\r\nend\n\r\n0\r\n\r\n")
    }
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Some(head);
        }
        head.push(line.to_owned());
    }
}
