//! Nonsense on every socket: the process stays, serves others meanwhile, and never panics.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    callers::Far,
    rogue::{Rogue, connect},
    support::{Process, address, client, mesh::identity, until},
};

/// How long a connection that says nothing, or ever less, may live.
const LONGEST: Duration = Duration::from_secs(16);

enum Socket {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Socket {
    fn open(&self) -> Box<dyn Stream> {
        let wait = Some(Duration::from_millis(20));
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(wait).unwrap();
                stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(wait).unwrap();
                stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                Box::new(stream)
            }
        }
    }
}

/// Messages of no sense, and of some sense at their beginning.
fn nonsense() -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise =
        |length: usize| std::iter::repeat_with(|| random.u8(..)).take(length).collect::<Vec<u8>>();
    let mut all: Vec<Vec<u8>> = (0..24).map(|power| noise((1 << (power % 14)) + power)).collect();
    let huge_field = format!("GET / HTTP/1.1\r\nhost: echo\r\nx: {}\r\n\r\n", "y".repeat(300_000));
    let many_fields = format!("GET / HTTP/1.1\r\nhost: echo\r\n{}\r\n", "a: b\r\n".repeat(5000));
    let long_target = format!("GET /{} HTTP/1.1\r\nhost: echo\r\n\r\n", "z".repeat(200_000));
    all.extend([huge_field, many_fields, long_target].map(String::into_bytes));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for frame in 0..12_u8 {
        // A frame of each kind of HTTP/2, of a length that its body has not.
        all.push(
            [&preface[..], &[0, 0, 6, 4, 0, 0, 0, 0, 0], &[0, 0, 40, frame, 0xff, 0, 0, 0, 1], &noise(40)]
                .concat(),
        );
    }
    for record in [20_u8, 21, 22, 23, 24] {
        // A TLS record of each kind: complete, too long, and cut.
        all.push([&[record, 3, 3, 0, 64][..], &noise(64)].concat());
        all.push([&[record, 3, 3, 0xff, 0xff][..], &noise(400)].concat());
        all.push(vec![record, 3, 1]);
    }
    all.extend([b"\0".to_vec(), b"\r\n\r\n".to_vec(), b"GET".to_vec(), b"GET / HTTP/9.9\r\n\r\n".to_vec()]);
    all
}

/// Sends all of it, each on a connection of its own; looks at what comes back, and leaves in the middle.
fn throw(socket: &Socket) {
    for message in nonsense() {
        let mut stream = socket.open();
        // It may be closed before all is said.
        let _sent = stream.write_all(&message);
        let _answered = stream.read(&mut [0; 1024]);
    }
}

fn hub(far: &Far) -> (Process, SocketAddr, PathBuf) {
    let sandbox = &far.mesh.sandbox;
    let hub = address();
    sandbox.write(
        "hub.toml",
        &format!(
            "listen = \"{hub}\"\nstate_dir = \"hub\"\nrun_dir = \"hub\"\n[admin]\nlisten = \"off\"\n\
            [[registry]]\nkind = \"static\"\nname = \"static\"\npath = \"mesh.d\"\nallow_loopback = true\n"
        ),
    );
    sandbox.ok(&["ca", "init", "--state-dir", "hub", "--trust-domain", "hub.mesh"]);
    let process = sandbox.spawn("hub", &["hub", "--config", "hub.toml"]);
    until("the hub listens", || TcpStream::connect(hub).ok());
    (process, hub, sandbox.path("hub/admin.sock"))
}

#[test]
fn nonsense_harms_nobody() {
    let mut far = Far::start_with(|mesh| mesh.caller("near", "client"));
    let (mut hub, hub_address, hub_socket) = hub(&far);
    until("the hub's admin socket is there", || hub_socket.exists().then_some(()));
    let outbound = far.mesh.outbound("client");
    let hub_admin = hub_socket.clone();
    let sockets = [
        Socket::Tcp(far.mesh.inbound("far")),
        Socket::Tcp(outbound),
        Socket::Tcp(far.mesh.admin("far")),
        Socket::Unix(far.mesh.socket("far").into()),
        Socket::Tcp(hub_address),
        Socket::Unix(hub_socket),
    ];
    std::thread::scope(|scope| {
        let throwers: Vec<_> = sockets.iter().map(|socket| scope.spawn(|| throw(socket))).collect();
        let mut served = 0;
        while served < 20 || throwers.iter().any(|thrower| !thrower.is_finished()) {
            let response = client::get(outbound, "echo", "/meanwhile").unwrap();
            assert_eq!(response.status, 200, "{response:?}");
            served += 1;
        }
    });
    let answer = client::Connection::open_unix(&hub_admin).unwrap().get("weft", "/status").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    for host in ["near", "far"] {
        assert_eq!(far.mesh.try_status(host).unwrap()["phase"], "serving");
        let process = far.mesh.process(host);
        assert!(process.is_running() && !process.log().contains("panicked"), "{host}: {}", process.log());
    }
    assert!(hub.is_running() && !hub.log().contains("panicked"), "{}", hub.log());
}

/// A peer with a good certificate can send nonsense as well.
#[test]
fn nonsense_from_a_trusted_peer_harms_nobody() {
    let mut far = Far::start();
    let leaf = far.leaf("client");
    let hello = far.hello().encode().unwrap();
    for framing in ["weft-h1/1", "weft-h2/1", "weft-tcp/1"] {
        let rogue = Rogue::speaking(Some(&leaf), &[framing]);
        for (number, message) in nonsense().into_iter().enumerate() {
            let mut tunnel = rogue.dial(far.mesh.inbound("far"), &identity("echo")).unwrap();
            // In place of the hello, after it, and as a hello that is cut or damaged.
            let message = match number % 4 {
                0 => message,
                1 => [&hello[..], &message].concat(),
                2 => [&hello[..number % hello.len()], &message].concat(),
                _ => [b"WEFT\x01\x00\x40", &message[..]].concat(),
            };
            // It may be closed before all is said.
            let _sent = tunnel.send(&message);
        }
    }
    far.must_answer(&Rogue::new(Some(&leaf)));
    let process = far.mesh.process("far");
    assert!(process.is_running() && !process.log().contains("panicked"), "{}", process.log());
}

/// Says a little now and then, and expects to be sent away.
fn dawdle(mut stream: TcpStream, message: &[u8]) -> Duration {
    let began = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
    let mut rest = message.iter();
    loop {
        if let Some(byte) = rest.next()
            && stream.write_all(&[*byte]).is_err()
        {
            return began.elapsed();
        }
        match stream.read(&mut [0; 256]) {
            Ok(0) => return began.elapsed(),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return began.elapsed(),
            _ => assert!(began.elapsed() < LONGEST, "a caller that dawdles is never sent away"),
        }
    }
}

#[test]
fn who_dawdles_is_sent_away() {
    let far = Far::start();
    let (_hub, hub, _) = hub(&far);
    let inbound = far.mesh.inbound("far");
    let record = [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 200]].concat();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n", "a".repeat(300)).into_bytes();
    let nothing = Vec::new();
    std::thread::scope(|scope| {
        for (address, message) in [
            (inbound, &record),
            (inbound, &nothing),
            (hub, &record),
            (hub, &nothing),
            (far.mesh.admin("far"), &request),
        ] {
            scope.spawn(move || dawdle(connect(address, None).unwrap(), message));
        }
        scope.spawn(|| {
            // Good TLS, and then no hello.
            let rogue = Rogue::new(Some(&far.leaf("client")));
            let began = Instant::now();
            let mut tunnel = rogue.dial(inbound, &identity("echo")).unwrap();
            assert!(tunnel.rest().is_empty());
            assert!(began.elapsed() < LONGEST);
        });
    });
    far.must_answer(&Rogue::new(Some(&far.leaf("client"))));
}
