//! A door before a server that can be shut in the ways in which a network fails, without any right over the network.
//!
//! What a cut cable does, delivering nothing and saying nothing, is to hold the bytes of a direction back: a sender learns
//! as little as it would on a dead link, until its own timeout. When the door opens again, what was held back arrives, as
//! retransmission would make it.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_linger;

use crate::{error::Error, ports::Port, process::held};

/// How long a writer whose peer does not read takes to notice that its connection is being reset.
const WRITE_SLICE: Duration = Duration::from_millis(50);
const BUFFER: usize = 64 * 1024;

/// What the door lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateMode {
    /// Everything.
    Open,
    /// New connections are refused, as by a host whose server is down; those that exist go on.
    Refuse,
    /// New connections are refused, and those that exist were reset: the server's host restarted.
    Cut,
    /// Connections are accepted and stay, and nothing is delivered in either direction.
    Silent,
    /// Nothing reaches the server; what it sends arrives.
    SilentToServer,
    /// The server hears everything; nothing that it sends arrives.
    SilentFromServer,
    /// Nothing is delivered, and what was sent is lost for good: a connection that anything was sent on, or that was made,
    /// stays silent when the door is open again, as when the kernel's next try is minutes away.
    Lost,
}

impl GateMode {
    fn accepts(self) -> bool {
        !matches!(self, Self::Refuse | Self::Cut)
    }

    fn passes(self, direction: Direction) -> bool {
        !matches!(
            (self, direction),
            // A connection that is about to be reset must not say what was held back.
            (Self::Silent | Self::Cut | Self::Lost, _)
                | (Self::SilentToServer, Direction::ToServer)
                | (Self::SilentFromServer, Direction::FromServer)
        )
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    ToServer,
    FromServer,
}

/// What went through a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateCounts {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that are open now.
    pub open: u64,
    /// The most that were open at once.
    pub most_open: u64,
    /// Bytes delivered to the server.
    pub to_server: u64,
    /// Bytes delivered from the server.
    pub from_server: u64,
    /// Requests of HTTP/1.1 delivered to the server, by the ends of their first lines; none of what is encrypted.
    pub requests: u64,
}

/// A TCP forwarder on a loopback port of its own before one server. Dropping it resets its connections.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Shared>,
    scheme: &'static str,
    address: SocketAddr,
    _port: Port,
}

impl Gate {
    /// An open one before `server`: `HOST:PORT`, or a URL of which scheme and address count.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when `server` is no address, or nothing can be bound.
    pub fn before(server: &str) -> Result<Self, Error> {
        let (scheme, rest) = match server.split_once("://") {
            Some(("https", rest)) => ("https", rest),
            Some((_, rest)) => ("http", rest),
            None => ("http", server),
        };
        let host = rest.split('/').next().unwrap_or_default();
        let target = host
            .to_socket_addrs()
            .and_then(|mut found| found.next().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        let target = target.map_err(Error::system(format!("find {host}")))?;
        let port = Port::free()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        let gate = Self { shared: Arc::new(Shared::new(target)), scheme, address, _port: port };
        gate.listen()?;
        Ok(gate)
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL without a path, with the scheme of the server's.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Changes what it lets through. When this returns, the change holds for old and new connections.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when its port, closed until now, cannot be bound again.
    pub fn set(&self, mode: GateMode) -> Result<(), Error> {
        let listens = {
            let mut state = held(&self.shared.state);
            state.mode = mode;
            self.shared.changed.notify_all();
            state.listens
        };
        if mode.accepts() && !listens {
            self.listen()?;
        } else if !mode.accepts() && listens {
            self.stop_listening();
        }
        if mode == GateMode::Cut {
            self.reset();
        }
        Ok(())
    }

    /// Resets every connection that exists, and returns when they are gone. New ones are treated as before.
    pub fn reset(&self) {
        let mut state = held(&self.shared.state);
        let old: Vec<u64> = state.connections.keys().copied().collect();
        for connection in state.connections.values() {
            connection.reset();
        }
        self.shared.changed.notify_all();
        while old.iter().any(|id| state.connections.contains_key(id)) {
            state = self.shared.wait(state);
        }
    }

    /// What went through so far.
    #[must_use]
    pub fn counts(&self) -> GateCounts {
        let state = held(&self.shared.state);
        GateCounts {
            open: state.connections.len() as u64,
            to_server: self.shared.to_server.load(Ordering::Relaxed),
            from_server: self.shared.from_server.load(Ordering::Relaxed),
            requests: self.shared.requests.load(Ordering::Relaxed),
            ..state.counts
        }
    }

    fn listen(&self) -> Result<(), Error> {
        let listener = TcpListener::bind(self.address).map_err(Error::system("listen before a server"))?;
        held(&self.shared.state).listens = true;
        let shared = self.shared.clone();
        thread::spawn(move || accept(&shared, listener));
        Ok(())
    }

    /// Wakes the accepting thread, which then sees the mode, and waits until the port is closed.
    fn stop_listening(&self) {
        let deadline = Instant::now() + crate::wait::LIMIT;
        let mut state = held(&self.shared.state);
        while state.listens && Instant::now() < deadline {
            drop(state);
            let _ = TcpStream::connect_timeout(&self.address, WRITE_SLICE);
            state = self.shared.wait(held(&self.shared.state));
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Shutting cannot fail: it binds nothing.
        let _ = self.set(GateMode::Cut);
    }
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    /// Of the mode, of the set of connections, of whether it listens.
    changed: Condvar,
    to_server: AtomicU64,
    from_server: AtomicU64,
    requests: AtomicU64,
}

#[derive(Debug)]
struct State {
    mode: GateMode,
    listens: bool,
    connections: HashMap<u64, Arc<Connection>>,
    counts: GateCounts,
}

impl Shared {
    fn new(target: SocketAddr) -> Self {
        let state = State {
            mode: GateMode::Open,
            listens: false,
            connections: HashMap::new(),
            counts: GateCounts::default(),
        };
        Self {
            target,
            state: Mutex::new(state),
            changed: Condvar::new(),
            to_server: AtomicU64::new(0),
            from_server: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    /// Until something changed, or a moment has passed: no wake-up is trusted to come.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, WRITE_SLICE).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Until that direction passes; false when the connection was reset meanwhile.
    fn await_passage(&self, connection: &Connection, direction: Direction) -> bool {
        let mut state = held(&self.state);
        while !connection.is_reset() && (connection.is_lost() || !state.mode.passes(direction)) {
            connection.lost.fetch_or(state.mode == GateMode::Lost, Ordering::SeqCst);
            state = self.wait(state);
        }
        !connection.is_reset()
    }

    fn admit(&self, client: TcpStream) -> Option<(u64, Arc<Connection>)> {
        let mut state = held(&self.state);
        if !state.mode.accepts() {
            return None;
        }
        state.counts.accepted += 1;
        let id = state.counts.accepted;
        let connection = Arc::new(Connection::new(client));
        state.connections.insert(id, connection.clone());
        state.counts.most_open = state.counts.most_open.max(state.connections.len() as u64);
        Some((id, connection))
    }
}

/// Runs until the mode accepts no more.
fn accept(shared: &Arc<Shared>, listener: TcpListener) {
    for client in listener.incoming() {
        let Some((id, connection)) = client.ok().and_then(|client| shared.admit(client)) else {
            if held(&shared.state).mode.accepts() {
                continue;
            }
            break;
        };
        let shared = shared.clone();
        thread::spawn(move || {
            connection.run(&shared);
            drop(connection);
            // The last reference: whoever waits for a reset finds the sockets closed.
            held(&shared.state).connections.remove(&id);
            shared.changed.notify_all();
        });
    }
    drop(listener);
    held(&shared.state).listens = false;
    shared.changed.notify_all();
}

/// A pair of sockets. Both close with the last reference to it.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: Mutex<Option<Arc<TcpStream>>>,
    reset: AtomicBool,
    /// Whether something that was sent on it never arrives.
    lost: AtomicBool,
}

impl Connection {
    fn new(client: TcpStream) -> Self {
        Self { client, server: Mutex::new(None), reset: AtomicBool::default(), lost: AtomicBool::default() }
    }

    fn is_reset(&self) -> bool {
        self.reset.load(Ordering::SeqCst)
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Wakes both threads, which then close their sockets; closing sends a reset, not an end.
    fn reset(&self) {
        let server = held(&self.server);
        self.reset.store(true, Ordering::SeqCst);
        for stream in [Some(&self.client), server.as_deref()].into_iter().flatten() {
            // Both fail only on a socket that the peer has reset already.
            let _ = set_socket_linger(stream, Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    fn run(&self, shared: &Shared) {
        // On a dead link to the server the connection would not come about.
        if !shared.await_passage(self, Direction::ToServer) {
            return;
        }
        let Ok(server) = TcpStream::connect(shared.target).map(Arc::new) else {
            self.reset();
            return;
        };
        {
            let mut known = held(&self.server);
            *known = Some(server.clone());
            if self.is_reset() {
                return;
            }
        }
        for stream in [&self.client, &*server] {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_write_timeout(Some(WRITE_SLICE));
        }
        thread::scope(|scope| {
            scope.spawn(|| self.pump(shared, Direction::ToServer, &self.client, &server));
            self.pump(shared, Direction::FromServer, &server, &self.client);
        });
    }

    fn pump(&self, shared: &Shared, direction: Direction, mut from: &TcpStream, to: &TcpStream) {
        let counter = match direction {
            Direction::ToServer => &shared.to_server,
            Direction::FromServer => &shared.from_server,
        };
        let mut buffer = vec![0; BUFFER];
        let mut requests = RequestLines::default();
        loop {
            let read = from.read(&mut buffer);
            // The end of a stream travels like its bytes, and so does a reset.
            if !shared.await_passage(self, direction) {
                return;
            }
            match read {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(length) => {
                    if !self.write(to, &buffer[..length], counter) {
                        return self.reset();
                    }
                    if matches!(direction, Direction::ToServer) {
                        shared.requests.fetch_add(requests.count(&buffer[..length]), Ordering::Relaxed);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.reset(),
            }
        }
    }

    /// False when it could not all be written.
    fn write(&self, mut to: &TcpStream, mut bytes: &[u8], counter: &AtomicU64) -> bool {
        while !bytes.is_empty() && !self.is_reset() {
            match to.write(bytes) {
                Ok(written) => {
                    counter.fetch_add(written as u64, Ordering::Relaxed);
                    bytes = &bytes[written..];
                }
                Err(error) if is_pause(&error) => {}
                Err(_) => return false,
            }
        }
        bytes.is_empty()
    }
}

/// How much of the end of a request's first line the last bytes were.
#[derive(Debug, Default)]
struct RequestLines {
    matched: usize,
}

impl RequestLines {
    const END: &[u8] = b" HTTP/1.1\r\n";

    /// How many ended in `bytes`, which follow those of the call before.
    fn count(&mut self, bytes: &[u8]) -> u64 {
        let mut ended = 0;
        for &byte in bytes {
            // Only its first byte can begin it anew.
            self.matched = match byte == Self::END[self.matched] {
                true => self.matched + 1,
                false => usize::from(byte == Self::END[0]),
            };
            if self.matched == Self::END.len() {
                (self.matched, ended) = (0, ended + 1);
            }
        }
        ended
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_however_they_are_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPUT /a%20HTTP  HTTP/1.1\r\n\r\n";
        for cut in 0..text.len() {
            let (first, second) = text.split_at(cut);
            let mut lines = RequestLines::default();
            assert_eq!(lines.count(first) + lines.count(second), 2, "{cut}");
        }
    }
}
