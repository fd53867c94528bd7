//! HTTP/2 frame by frame, as no library would write it: pseudo-headers hold whatever they hold, and nothing of it gets
//! round a rule on paths, to another host, or into a second request of the HTTP/1.1 that the application speaks.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use weft_core::wire::Answer;

use crate::{
    callers::Far,
    paths::{TARGETS, far_with_rules},
    rogue::{Rogue, Tunnel, connect},
    support::mesh::identity,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;

type Fields<'a> = &'a [(&'a str, &'a str)];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literals without indexing and without Huffman (RFC 7541 §6.2.2): every byte is what it is.
fn block(fields: Fields<'_>) -> Vec<u8> {
    let text = |text: &str| {
        assert!(text.len() < 127, "one byte says the length");
        [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Status(u16),
    /// The stream or the connection was ended instead of an answer.
    Ended,
}

impl Outcome {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Ended | Self::Status(400 | 403))
    }
}

/// Sends one request as the first of a connection, and reads until it is answered.
fn exchange(stream: &mut (impl Read + Write), fields: Fields<'_>) -> Outcome {
    let first = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, WHOLE, 1, &block(fields))].concat();
    stream.write_all(&first).unwrap();
    stream.flush().unwrap();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return Outcome::Ended;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if stream.read_exact(&mut payload).is_err() {
            return Outcome::Ended;
        }
        match head[3] {
            HEADERS => return Outcome::Status(status(&payload)),
            RESET | GO_AWAY => return Outcome::Ended,
            kind => assert_ne!(kind, DATA, "a body without a head"),
        }
    }
}

/// The status, which comes first: an entry of the static table, or a literal in Huffman's code (RFC 7541, A and B).
fn status(block: &[u8]) -> u16 {
    let block = block.iter().position(|byte| byte & 0xe0 != 0x20).map_or(block, |first| &block[first..]);
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        [0x48, 0x83, 0x68, 0x0c, 0xff, ..] => 403,
        _ => panic!("some other status: {block:02x?}"),
    }
}

/// Through the caller's own agent.
fn near(far: &Far) -> TcpStream {
    connect(far.mesh.outbound("client"), None).unwrap()
}

/// Straight to the mesh port.
fn straight(far: &Far) -> Tunnel {
    let rogue = Rogue::speaking(Some(&far.leaf("client")), &["weft-h2/1"]);
    let mut tunnel = rogue.dial(far.mesh.inbound("far"), &identity("echo")).unwrap();
    assert_eq!(tunnel.greet(&far.hello()).unwrap(), Answer::Accepted { version: 1 });
    tunnel
}

fn on_both_doors(far: &Far, check: impl Fn(&str, &dyn Fn(Fields<'_>) -> Outcome)) {
    check("an agent", &|fields| exchange(&mut near(far), fields));
    check("the mesh port", &|fields| exchange(&mut straight(far), fields));
}

fn get(path: &str) -> [(&'static str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "echo"), (":path", path)]
}

#[test]
fn no_spelling_of_a_raw_path_gets_round_a_rule() {
    let far = far_with_rules();
    on_both_doors(&far, |door, ask| {
        let before = far.witness.targets().len();
        // A `:path` is no URI (RFC 9113 §8.3.1).
        let passing = |target: &str, passes: Option<&'static str>| passes.filter(|_| target.starts_with('/'));
        for (target, passes) in TARGETS {
            let outcome = ask(&get(target));
            match passing(target, passes) {
                Some(_) => assert_eq!(outcome, Outcome::Status(200), "{door}: {target}"),
                None => assert!(outcome.is_refusal(), "{door}: {target}: {outcome:?}"),
            }
        }
        let wanted: Vec<_> = TARGETS.iter().filter_map(|(target, passes)| passing(target, *passes)).collect();
        assert_eq!(far.witness.targets()[before..], wanted, "{door}");
    });
}

#[test]
fn no_field_of_http_2_becomes_another_request_or_another_host() {
    let far = Far::start_with(|mesh| mesh.caller("near", "client"));
    let good = get("/good");
    let with = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    let instead = |name: &str, value: &'static str| -> Vec<(&'static str, &'static str)> {
        good.map(|(known, old)| (known, if known == name { value } else { old })).to_vec()
    };
    let without = |name: &str| good.into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>();
    let malformed = [
        ("a second request in the path", instead(":path", "/a HTTP/1.1\r\nhost: other\r\n\r\nGET /evil")),
        ("a blank in the path", instead(":path", "/a HTTP/1.1 /evil")),
        (
            "a second request in the method",
            instead(":method", "GET /evil HTTP/1.1\r\nhost: other\r\n\r\nGET"),
        ),
        ("a line in the authority", instead(":authority", "echo\r\nx-evil: 1")),
        ("two hosts in the authority", instead(":authority", "echo,other")),
        ("a user in the authority", instead(":authority", "echo@other")),
        ("another host", with(&[("host", "other")])),
        ("another scheme", instead(":scheme", "x\r\nevil: 1")),
        ("a line in a value", with(&[("x", "a\r\nx-evil: 1")])),
        ("a line in a name", with(&[("x\r\nx-evil", "1")])),
        ("a colon in a name", with(&[("x-evil: 1\r\ny", "1")])),
        ("capitals in a name", with(&[("X-Evil", "1")])),
        ("a NUL in a value", with(&[("x-evil", "\0")])),
        ("an empty path", instead(":path", "")),
        ("no path", without(":path")),
        ("no method", without(":method")),
        ("no host", without(":authority")),
        ("two paths", with(&[(":path", "/evil")])),
        ("a status", with(&[(":status", "200")])),
        ("a pseudo-field behind others", [&without(":path")[..], &[("x", "y"), (":path", "/evil")]].concat()),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("connection", with(&[("connection", "x-evil")])),
        ("a body that does not come", with(&[("content-length", "5")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "5")])),
        ("no number as length", with(&[("content-length", "+0")])),
    ];
    on_both_doors(&far, |door, ask| {
        let (targets, bytes) = (far.witness.targets().len(), far.witness.seen().len());
        for (what, fields) in &malformed {
            let outcome = ask(fields);
            assert!(outcome.is_refusal(), "{door}: {what}: {outcome:?}");
            assert_eq!(far.witness.seen()[bytes..], *"", "{door}: {what}: the application got something");
        }
        assert_eq!(ask(&good), Outcome::Status(200), "{door}");
        assert_eq!(far.witness.targets()[targets..], ["/good"], "{door}");
    });
}
