//! Requests that two parsers would read differently, and fields by which callers pretend.

use std::io::{Read, Write};

use weft_core::wire::Answer;

use crate::{
    callers::Far,
    rogue::{Rogue, connect, read_to_end},
    support::mesh::identity,
};

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
