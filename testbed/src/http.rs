//! HTTP calls to a server, one connection each, and as little as that needs.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::error::Error;

/// Answers longer than this are taken for a fault: a snapshot of a big catalog is some 10 MB.
const MOST_BYTES: u64 = 1 << 30;

/// A call that is about to be made.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    method: &'a str,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    patience: Duration,
    host: Option<String>,
}

impl<'a> Call<'a> {
    /// A request without headers of its own, with an empty body, to a `http://HOST:PORT/PATH` URL.
    #[must_use]
    pub fn new(method: &'a str, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            patience: Duration::from_secs(30),
            host: None,
        }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Naming this host instead of where it goes.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With this instead of 30 s as the longest silence of the server that is waited for.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes the call, on a connection of its own, and reads the answer, whatever its status.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] when no whole answer comes.
    pub fn send(&self) -> Result<Answer, Error> {
        self.exchange().map_err(|source| Error::Call {
            method: self.method.into(),
            url: self.url.clone(),
            source,
        })
    }

    fn exchange(&self) -> io::Result<Answer> {
        let rest = self.url.strip_prefix("http://").ok_or_else(|| broken("not a http:// URL"))?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let mut stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        let named = self.host.as_deref().unwrap_or(host);
        let mut head = format!("{} {path} HTTP/1.1\r\nHost: {named}\r\nConnection: close\r\n", self.method);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        let mut message = head.into_bytes();
        message.extend_from_slice(&self.body);
        stream.write_all(&message)?;
        read_answer(&mut BufReader::new(stream), self.method == "HEAD")
    }
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, with their values, in the server's order.
    pub headers: Vec<(String, String)>,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether the status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of that name, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text; bytes that are none are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// This answer when its status is 2xx.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], which names `what` was asked, when it is not.
    pub fn success(self, what: &str) -> Result<Self, Error> {
        if self.is_success() {
            return Ok(self);
        }
        Err(Error::Refused { what: what.into(), answer: self.to_string() })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {} {}", self.status, self.text())
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_answer(reader: &mut impl BufRead, without_body: bool) -> io::Result<Answer> {
    let first = line(reader)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.filter(|_| first.starts_with("HTTP/")).ok_or_else(|| broken("not an HTTP answer"))?;
    let mut headers = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| broken("a header without a colon"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if !without_body && status != 204 && status != 304 {
        answer.body = read_body(reader, &answer)?;
    }
    Ok(answer)
}

fn read_body(reader: &mut impl BufRead, answer: &Answer) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = line(reader)?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| broken("not the size of a chunk"))?;
            exactly(reader, size, &mut body)?;
            let end = line(reader)?;
            if size == 0 {
                return Ok(body);
            }
            if !end.is_empty() {
                return Err(broken("a chunk longer than its size"));
            }
        }
    }
    match answer.header("content-length").map(str::parse) {
        Some(Ok(length)) => exactly(reader, length, &mut body)?,
        Some(Err(_)) => return Err(broken("not a content length")),
        None => {
            reader.take(MOST_BYTES).read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

/// Appends the next `length` bytes; reserves nothing for a length that was only claimed.
fn exactly(reader: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if length > MOST_BYTES {
        return Err(broken("too long"));
    }
    if reader.take(length).read_to_end(body)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Answer> {
        read_answer(&mut text.as_bytes(), false)
    }

    #[test]
    fn bodies_end_by_length_by_chunks_or_with_the_connection() {
        let bodies = [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nhello",
        ];
        for text in bodies {
            let answer = read(text).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{text}");
        }
        assert!(read("HTTP/1.1 204 No Content\r\n\r\nx").unwrap().body.is_empty());
    }

    #[test]
    fn half_an_answer_is_an_error() {
        let halves = [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nContent-Len",
            "SSH-2.0\r\n\r\n",
        ];
        for text in halves {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
