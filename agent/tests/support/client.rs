//! A raw HTTP/1.1 client: it never retries, and a broken connection is an error that the test sees.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// How long one read may take.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// One kept-alive connection.
pub struct Connection {
    reader: BufReader<Box<dyn Stream>>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(Box::new(stream)) })
    }

    pub fn open_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { reader: BufReader::new(Box::new(stream)) })
    }

    /// Sends one request without a body and reads the whole answer.
    pub fn send(&mut self, method: &str, host: &str, path: &str) -> io::Result<Response> {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.reader.get_mut().write_all(request.as_bytes())?;
        self.receive(method)
    }

    pub fn get(&mut self, host: &str, path: &str) -> io::Result<Response> {
        self.send("GET", host, path)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn receive(&mut self, method: &str) -> io::Result<Response> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {first:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other("not a header"))?;
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let response = Response { status, headers, body: String::new() };
        let body = if method == "HEAD" || status == 204 || status == 304 {
            Vec::new()
        } else if response.header("transfer-encoding").is_some() {
            self.chunks()?
        } else if let Some(length) = response.header("content-length") {
            let mut body = vec![0; length.parse().map_err(io::Error::other)?];
            self.reader.read_exact(&mut body)?;
            body
        } else {
            let mut body = Vec::new();
            self.reader.read_to_end(&mut body)?;
            body
        };
        Ok(Response { body: String::from_utf8_lossy(&body).into_owned(), ..response })
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

/// One request on a connection of its own.
pub fn get(address: SocketAddr, host: &str, path: &str) -> io::Result<Response> {
    Connection::open(address)?.get(host, path)
}

/// One request of any method on a connection of its own.
pub fn send(address: SocketAddr, method: &str, host: &str, path: &str) -> io::Result<Response> {
    Connection::open(address)?.send(method, host, path)
}
