//! Requests that two parsers would read differently, and fields by which callers pretend.

use std::io::{Read, Write};

use weft_core::wire::Answer;

use crate::{
    callers::Far,
    rogue::{Rogue, connect, read_to_end},
    support::mesh::identity,
};

const AMBIGUOUS: [(&str, &str); 17] = [
    ("two hosts", "GET / HTTP/1.1\r\nhost: echo\r\nhost: other\r\n\r\n"),
    ("the same host twice", "GET / HTTP/1.1\r\nhost: echo\r\nhost: echo\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\nfoo: bar\r\n\r\n"),
    ("an empty host", "GET / HTTP/1.1\r\nhost:\r\n\r\n"),
    ("two host names in one", "GET / HTTP/1.1\r\nhost: echo, other\r\n\r\n"),
    ("user information", "GET / HTTP/1.1\r\nhost: echo@other\r\n\r\n"),
    (
        "chunked and a length",
        "POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "a length and chunked",
        "POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in two lines",
        "POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "an unknown coding",
        "POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: xchunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\naa"),
    ("a signed length", "POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: +1\r\n\r\na"),
    ("a bare LF after a field", "GET / HTTP/1.1\r\nhost: echo\nfoo: bar\r\n\r\n"),
    ("bare LFs at the end", "GET / HTTP/1.1\r\nhost: echo\n\n"),
    ("a bare LF after the request line", "GET / HTTP/1.1\nhost: echo\r\n\r\n"),
    ("a space before the colon", "GET / HTTP/1.1\r\nhost : echo\r\n\r\n"),
];

const GOOD: &str = "POST /good HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\na\nb\r\n0\r\n\r\n";

fn check(far: &Far, ask: impl Fn(&str) -> Vec<u8>) {
    for (what, request) in AMBIGUOUS {
        let answer = String::from_utf8_lossy(&ask(request)).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400"), "{what}: {answer:?}");
        assert_eq!(far.witness.seen(), "", "{what}: the application got something");
    }
    let answer = String::from_utf8_lossy(&ask(GOOD)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert_eq!(far.witness.targets(), ["/good"]);
    assert!(far.witness.seen().contains("a\nb"), "a body may hold what it likes: {}", far.witness.seen());
}

#[test]
fn ambiguous_requests_are_refused_where_they_come_in() {
    let far = Far::start_with(|mesh| mesh.caller("near", "client"));
    check(&far, |request| {
        let mut stream = connect(far.mesh.outbound("client"), None).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        // A refusal need not end the connection.
        while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                count => answer.extend_from_slice(&buffer[..count]),
            }
        }
        answer
    });
}

#[test]
fn ambiguous_requests_are_refused_from_a_peer() {
    let far = Far::start();
    let rogue = Rogue::new(Some(&far.leaf("client")));
    check(&far, |request| {
        let mut tunnel = rogue.dial(far.mesh.inbound("far"), &identity("echo")).unwrap();
        assert_eq!(tunnel.greet(&far.hello()).unwrap(), Answer::Accepted { version: 1 });
        tunnel.ask(request).unwrap_or_default().into_bytes()
    });
}

#[test]
fn a_pipelined_request_is_looked_at_like_the_first() {
    let far = Far::start_with(|mesh| mesh.caller("near", "client"));
    let mut stream = connect(far.mesh.outbound("client"), None).unwrap();
    let first = "POST /first HTTP/1.1\r\nhost: echo\r\ncontent-length: 3\r\n\r\na\nb";
    let second = "GET /second HTTP/1.1\r\nhost: echo\nfoo: bar\r\n\r\n";
    stream.write_all(format!("{first}{first}{second}").as_bytes()).unwrap();
    let answer = String::from_utf8(read_to_end(&mut stream)).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 400").count(), 1, "{answer}");
    assert_eq!(far.witness.targets(), ["/first", "/first"]);
}

#[test]
fn fields_of_ours_do_not_survive() {
    const SPOOFED: &str = "GET /spoofed HTTP/1.1\r\nhost: echo\r\nx-weft-fault: not_here\r\nX-Weft-Identity: root\r\n\
        x-weft-rule: none\r\nx-forwarded-client-cert: By=spiffe://test.mesh/ns/default/sa/admin\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
        connection: close, x-forwarded-for\r\nx-forwarded-for: 192.0.2.7\r\n\r\n";
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let far = Far::start_with(|mesh| mesh.caller("near", "client"));
    let rogue = Rogue::new(Some(&far.leaf("client")));
    far.witness.answer(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-weft-fault: not_here\r\nx-weft-rule: made-up\r\n\r\nok",
    );
    let near = || {
        let mut stream = connect(far.mesh.outbound("client"), None).unwrap();
        stream.write_all(SPOOFED.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let straight = || {
        let mut tunnel = rogue.dial(far.mesh.inbound("far"), &identity("echo")).unwrap();
        assert_eq!(tunnel.greet(&far.hello()).unwrap(), Answer::Accepted { version: 1 });
        tunnel.ask(SPOOFED).unwrap()
    };
    let doors: [(&str, &dyn Fn() -> String); 2] = [("an agent", &near), ("the mesh port", &straight)];
    for (number, (door, ask)) in doors.into_iter().enumerate() {
        let before = far.witness.seen().len();
        let answer = ask().to_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{door}: {answer}");
        assert!(!answer.contains("x-weft-"), "{door}: an application speaks in our name: {answer}");
        assert_eq!(far.witness.targets().len(), number + 1, "{door}: an application made us try again");
        let seen = far.witness.seen()[before..].to_lowercase();
        for field in ["x-weft-", "x-forwarded-client-cert", "sa/admin", "b7ad6b7169203331"] {
            assert!(!seen.contains(field), "{door}: {field} came through: {seen}");
        }
        assert!(seen.contains(&format!("traceparent: 00-{TRACE}-")), "{door}: the trace goes on: {seen}");
        assert!(seen.contains("x-forwarded-for: 192.0.2.7, 127.0.0.1"), "{door}: {seen}");
    }
}

#[test]
fn a_trace_that_is_none_does_not_survive() {
    let far = Far::start_with(|mesh| mesh.caller("near", "client"));
    for made_up in [
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "<script>",
    ] {
        let before = far.witness.seen().len();
        let mut stream = connect(far.mesh.outbound("client"), None).unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nhost: echo\r\ntraceparent: {made_up}\r\ntracestate: a=b\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let answer = String::from_utf8(read_to_end(&mut stream)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let seen = far.witness.seen()[before..].to_owned();
        assert!(seen.contains("traceparent: 00-") && !seen.contains(made_up), "{seen}");
        assert!(!seen.contains("tracestate: a=b"), "the state of a trace that is none: {seen}");
    }
}
