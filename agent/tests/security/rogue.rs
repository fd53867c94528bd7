//! Both ends of a mesh connection as somebody writes them who keeps no rule: shows any certificate or none, believes
//! anybody, and sends without waiting to be let in.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::CertifiedKey,
};
use weft_core::{
    identity::SpiffeId,
    wire::{Answer, FrameDecoder, Hello},
};

use crate::{
    credulous::{Anybody, Shows},
    support::authority::Leaf,
};

/// How long one read may take before the test fails.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A client without scruples. It keeps its session tickets.
#[derive(Clone)]
pub(crate) struct Rogue {
    config: Arc<ClientConfig>,
    /// The address it comes from, where that matters.
    from: Option<IpAddr>,
}

/// A connection on which TLS stands, as far as the client can tell.
pub(crate) struct Tunnel {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Rogue {
    /// Shows `leaf`, or nothing, and speaks HTTP/1.1.
    pub(crate) fn new(leaf: Option<&Leaf>) -> Self {
        Self::speaking(leaf, &["weft-h1/1"])
    }

    /// Shows `leaf`, or nothing, and offers these framings.
    pub(crate) fn speaking(leaf: Option<&Leaf>, framings: &[&str]) -> Self {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_client_cert_resolver(Arc::new(Shows(leaf.map(certified))));
        config.alpn_protocols = framings.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config), from: None }
    }

    pub(crate) fn from(self, address: [u8; 4]) -> Self {
        Self { from: Some(address.into()), ..self }
    }

    /// Connects and shakes hands, asking for `identity`.
    pub(crate) fn dial(&self, to: SocketAddr, identity: &str) -> io::Result<Tunnel> {
        let name = SpiffeId::parse(identity).unwrap().server_name().to_owned();
        let name = ServerName::try_from(name).unwrap();
        let mut connection =
            ClientConnection::new(self.config.clone(), name.to_owned()).map_err(io::Error::other)?;
        let mut tcp = connect(to, self.from)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        Ok(Tunnel { stream: StreamOwned::new(connection, tcp) })
    }

    /// Does all at once: handshake, hello, request, without waiting for any answer. Returns every byte that it gets.
    pub(crate) fn break_in(&self, to: SocketAddr, identity: &str, hello: &Hello) -> Vec<u8> {
        match self.dial(to, identity) {
            Ok(mut tunnel) => tunnel.barge(hello, "GET /broken-in HTTP/1.1\r\nhost: echo\r\n\r\n"),
            Err(_) => Vec::new(),
        }
    }
}

/// A TCP connection from an address of choice.
pub(crate) fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Tunnel {
    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a hello and reads the answer, and not a byte of what follows.
    pub(crate) fn greet(&mut self, hello: &Hello) -> io::Result<Answer> {
        self.send(&hello.encode().unwrap())?;
        let mut decoder = FrameDecoder::default();
        loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            if let Some(answer) = Answer::decode(&mut decoder, &mut &byte[..]).map_err(io::Error::other)? {
                return Ok(answer);
            }
        }
    }

    /// Sends a hello and a request at once, and reads all that comes.
    pub(crate) fn barge(&mut self, hello: &Hello, request: &str) -> Vec<u8> {
        let sent = self.send(&[hello.encode().unwrap().as_slice(), request.as_bytes()].concat());
        let read = self.rest();
        // Once it is refused, sending may fail; what was there to be read counts.
        drop(sent);
        read
    }

    /// Sends a request and reads the head of the response and as much of its body as came with it.
    pub(crate) fn ask(&mut self, request: &str) -> io::Result<String> {
        self.send(request.as_bytes())?;
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while !all.windows(4).any(|window| window == b"\r\n\r\n") {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            all.extend_from_slice(&buffer[..count]);
        }
        Ok(String::from_utf8_lossy(&all).into_owned())
    }

    /// Everything until the other side ends it, one way or another. Fails when it does neither.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        read_to_end(&mut self.stream)
    }
}

impl Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Tunnel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Reads until the stream ends or breaks.
pub(crate) fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => {
                let timed_out = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                assert!(!timed_out, "the other side neither answered nor closed within {TIMEOUT:?}");
                return all;
            }
        }
    }
}

/// A server without scruples: it lets in whoever comes, and says "accepted" before it was asked.
pub(crate) struct Impostor {
    pub(crate) address: SocketAddr,
    dialled: Arc<AtomicUsize>,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Impostor {
    pub(crate) fn start(leaf: &Leaf) -> Self {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anybody))
            .with_cert_resolver(Arc::new(Shows(Some(certified(leaf)))));
        config.alpn_protocols =
            ["weft-h2/1", "weft-h1/1", "weft-tcp/1"].map(|name| name.as_bytes().to_vec()).into();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self { address, dialled: Arc::default(), received: Arc::default() };
        let (dialled, received) = (this.dialled.clone(), this.received.clone());
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                dialled.fetch_add(1, Ordering::SeqCst);
                let (config, received) = (config.clone(), received.clone());
                std::thread::spawn(move || answer(config, tcp, &received));
            }
        });
        this
    }

    /// How often it was dialled.
    pub(crate) fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }

    /// What it got under TLS.
    pub(crate) fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap().clone()
    }
}

fn answer(config: Arc<ServerConfig>, tcp: TcpStream, received: &Mutex<Vec<u8>>) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
    // A client that does not believe us ends it in either of these.
    let _said = stream.write_all(&Answer::Accepted { version: 1 }.encode()).and_then(|()| stream.flush());
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            return;
        }
        received.lock().unwrap().extend_from_slice(&buffer[..count]);
    }
}

fn certified(leaf: &Leaf) -> Arc<CertifiedKey> {
    let chain =
        CertificateDer::pem_slice_iter(leaf.certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    Arc::new(CertifiedKey::new(chain, any_supported_type(&key).unwrap()))
}
