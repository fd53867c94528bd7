//! Callers on the mesh port who are not whom they should be.

use std::{
    io::Write,
    time::{Duration, SystemTime},
};

use weft_core::{
    name::ServiceName,
    wire::{Answer, Hello},
};

use crate::{
    certificates::{params, wrong},
    rogue::{Rogue, connect, read_to_end},
    support::{Authority, Mesh, authority::Leaf, mesh::identity, until},
    witness::Witness,
};

const REQUEST: &str = "GET /good HTTP/1.1\r\nhost: echo\r\n\r\n";

/// An agent on `far` with one application behind its mesh port.
pub(crate) struct Far {
    pub(crate) mesh: Mesh,
    pub(crate) witness: Witness,
}

impl Far {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// As `start`, after something was added to the mesh.
    pub(crate) fn start_with(change: impl FnOnce(&mut Mesh)) -> Self {
        let mut far = Self::described(change);
        far.mesh.start();
        far
    }

    /// As `start_with`, with nothing written or started yet.
    pub(crate) fn described(change: impl FnOnce(&mut Mesh)) -> Self {
        let witness = Witness::start();
        let mut mesh = Mesh::new();
        mesh.serve("far", "echo", "v1", witness.address, "http");
        change(&mut mesh);
        Self { mesh, witness }
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello::new(ServiceName::new("echo.default").unwrap(), self.witness.address.port())
    }

    pub(crate) fn leaf(&self, account: &str) -> Leaf {
        self.mesh.authority.sign(&params(&[&identity(account)]))
    }

    /// A call made rightly, but for what `rogue` shows.
    pub(crate) fn call(&self, rogue: &Rogue) -> (bool, Answer, String) {
        let mut tunnel = rogue.dial(self.mesh.inbound("far"), &identity("echo")).unwrap();
        let answer = tunnel.greet(&self.hello()).unwrap();
        let response = match answer {
            Answer::Accepted { .. } => tunnel.ask(REQUEST).unwrap(),
            _ => String::new(),
        };
        (tunnel.is_resumed(), answer, response)
    }

    pub(crate) fn must_answer(&self, rogue: &Rogue) -> bool {
        let (resumed, answer, response) = self.call(rogue);
        assert_eq!(answer, Answer::Accepted { version: 1 });
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        resumed
    }

    pub(crate) fn break_in(&self, rogue: &Rogue) -> Vec<u8> {
        rogue.break_in(self.mesh.inbound("far"), &identity("echo"), &self.hello())
    }
}

#[test]
fn nobody_gets_in_with_a_wrong_certificate() {
    let far = Far::start();
    for (what, leaf) in wrong(&far.mesh.authority, &identity("client")) {
        for framings in [&["weft-h1/1"][..], &["weft-h2/1"], &["weft-tcp/1"]] {
            let got = far.break_in(&Rogue::speaking(Some(&leaf), framings));
            assert!(got.is_empty(), "{what} on {framings:?} got {:?}", String::from_utf8_lossy(&got));
        }
    }
    assert!(far.break_in(&Rogue::new(None)).is_empty(), "who shows no certificate got something");
    assert_eq!((far.witness.connections(), far.witness.seen()), (0, String::new()));
    far.must_answer(&Rogue::new(Some(&far.leaf("client"))));
    assert_eq!(far.witness.targets(), ["/good"]);
}

#[test]
fn who_names_no_framing_that_is_served_is_closed() {
    let far = Far::start();
    let leaf = far.leaf("client");
    for framings in [&[][..], &["h2"], &["http/1.1"], &["weft-mux/1"], &["weft-h2/2"]] {
        let got = far.break_in(&Rogue::speaking(Some(&leaf), framings));
        assert!(got.is_empty(), "{framings:?} got {:?}", String::from_utf8_lossy(&got));
    }
    assert_eq!(far.witness.connections(), 0);
    far.must_answer(&Rogue::new(Some(&leaf)));
}

/// The agent's certificate for a workload is not the one for another, and not for strangers.
#[test]
fn only_identities_of_this_agent_answer() {
    let far = Far::start();
    let rogue = Rogue::new(Some(&far.leaf("client")));
    let got = rogue.break_in(far.mesh.inbound("far"), &identity("billing"), &far.hello());
    assert!(got.is_empty());
    assert_eq!(far.witness.connections(), 0);
    far.must_answer(&rogue);
}

/// A ClientHello of TLS 1.2 (RFC 5246) that a server of TLS 1.2 would gladly take.
fn old_client_hello(server_name: &str) -> Vec<u8> {
    let sized = |body: &[u8]| [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(body)].concat();
    let extensions = [
        extension(0, &sized(&[&[0][..], &sized(server_name.as_bytes())].concat())),
        extension(10, &sized(&[0, 29, 0, 23])),
        extension(11, &[1, 0]),
        extension(13, &sized(&[4, 3, 8, 4, 4, 1])),
        extension(16, &sized(&[&[9][..], b"weft-h1/1"].concat())),
    ];
    let ciphers = sized(&[0xc0, 0x2b, 0xc0, 0x2f]);
    let body = [&[3, 3][..], &[7; 32], &[0], &ciphers, &[1, 0], &sized(&extensions.concat())].concat();
    let handshake = [&[1, 0][..], &sized(&body)].concat();
    [&[22, 3, 1][..], &sized(&handshake)].concat()
}

#[test]
fn tls_1_2_is_refused_by_version() {
    let far = Far::start();
    let mut stream = connect(far.mesh.inbound("far"), None).unwrap();
    stream.write_all(&old_client_hello("echo.default.test.mesh")).unwrap();
    let got = read_to_end(&mut stream);
    // An alert record, fatal, protocol_version (RFC 8446 §6).
    assert_eq!(got, [21, 3, 3, 0, 2, 2, 70]);
    assert_eq!(far.witness.connections(), 0);
}

#[test]
fn a_ticket_does_not_outlive_its_certificate() {
    let far = Far::start();
    let end = SystemTime::now() + Duration::from_secs(8);
    let mut short = params(&[&identity("client")]);
    short.not_after = end.into();
    let rogue = Rogue::new(Some(&far.mesh.authority.sign(&short)));
    assert!(!far.must_answer(&rogue));
    assert!(far.must_answer(&rogue), "tickets work: the second handshake is a resumed one");
    // A validity ends with its last whole second.
    until("the certificate expires", || (SystemTime::now() > end + Duration::from_secs(2)).then_some(()));
    let before = far.witness.seen();
    let (resumed, answer, _) = far.call(&rogue);
    assert!(resumed, "the ticket itself is good, or this proves nothing");
    assert_eq!(answer, Answer::Untrusted);
    let got = far.break_in(&rogue);
    assert!(got.is_empty() || got == Answer::Untrusted.encode(), "{got:?}");
    assert_eq!(far.witness.seen(), before);
}

#[test]
fn a_root_that_is_taken_away_takes_tickets_and_connections_with_it() {
    let far = Far::start();
    let rogue = Rogue::new(Some(&far.leaf("client")));
    assert!(!far.must_answer(&rogue));
    assert!(far.must_answer(&rogue), "tickets work");
    let mut open = rogue.dial(far.mesh.inbound("far"), &identity("echo")).unwrap();
    assert_eq!(open.greet(&far.hello()).unwrap(), Answer::Accepted { version: 1 });
    assert!(open.ask(REQUEST).unwrap().starts_with("HTTP/1.1 200"));

    let new = Authority::new("test.mesh");
    new.write(&far.mesh.sandbox.path("far/certificates"), "echo-v1", &identity("echo"));
    let newcomer = Rogue::new(Some(&new.sign(&params(&[&identity("client")]))));
    until("the new root is in force", || {
        let mut tunnel = newcomer.dial(far.mesh.inbound("far"), &identity("echo")).ok()?;
        matches!(tunnel.greet(&far.hello()).ok()?, Answer::Accepted { .. }).then_some(())
    });
    let before = far.witness.seen();
    let got = far.break_in(&rogue);
    assert!(got.is_empty() || got == Answer::Untrusted.encode(), "{got:?}");
    assert!(far.break_in(&Rogue::new(Some(&far.leaf("client")))).is_empty());
    // What was open carries no further request.
    let response = open.ask(REQUEST).unwrap();
    assert!(response.starts_with("HTTP/1.1 401"), "{response}");
    assert!(response.contains("x-weft-fault: untrusted"), "{response}");
    assert_eq!(far.witness.seen(), before);
    far.must_answer(&newcomer);
}

/// An open stream of opaque bytes has `drain_deadline` to end when its caller is not trusted any more.
#[test]
fn an_open_tcp_stream_ends_with_its_callers_trust() {
    let echo = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in echo.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let far = Far::start_with(|mesh| {
        mesh.settings = "workers = 1\ndrain_deadline = \"2s\"\n".into();
        mesh.serve("far", "bytes", "v1", address, "tcp");
    });
    let rogue = Rogue::speaking(Some(&far.leaf("client")), &["weft-tcp/1"]);
    let hello = Hello::new(ServiceName::new("bytes.default").unwrap(), address.port());
    let mut tunnel = rogue.dial(far.mesh.inbound("far"), &identity("bytes")).unwrap();
    assert_eq!(tunnel.greet(&hello).unwrap(), Answer::Accepted { version: 1 });
    assert_eq!(tunnel.ask("to and fro\r\n\r\n").unwrap(), "to and fro\r\n\r\n");

    let new = Authority::new("test.mesh");
    let folder = far.mesh.sandbox.path("far/certificates");
    let withdrawn = std::time::Instant::now();
    new.write(&folder, "bytes-v1", &identity("bytes"));
    new.write(&folder, "echo-v1", &identity("echo"));
    assert_eq!(tunnel.rest(), Vec::<u8>::new(), "the stream ends, and nothing more comes");
    assert!(withdrawn.elapsed().as_secs_f32() > 1.5, "{:?}", withdrawn.elapsed());
    let refused = rogue.dial(far.mesh.inbound("far"), &identity("bytes"));
    assert!(refused.is_err() || refused.unwrap().greet(&hello).is_err(), "nothing new begins");
}
