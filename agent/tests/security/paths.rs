//! Ways round a rule on paths.

use std::{
    io::{Read, Write},
    net::SocketAddr,
};

use weft_core::{
    name::ServiceName,
    wire::{Answer, Framing, Hello},
};

use crate::{
    callers::Far,
    rogue::{Rogue, connect},
    support::mesh::identity,
};

pub(crate) const RULES: &str = r#"
[[policy]]
name = "public-only"
target = { service = "echo.default" }
action = "allow"
[[policy.rule]]
to = [{ methods = ["GET"], paths = ["/public/*"] }]

[[policy]]
name = "not-private"
target = { service = "echo.default" }
action = "deny"
[[policy.rule]]
name = "private"
to = [{ paths = ["/public/private/*"] }]

[[policy]]
name = "bytes-by-path"
target = { service = "bytes.default" }
action = "allow"
[[policy.rule]]
to = [{ paths = ["/public/*"] }]
"#;

/// What is asked for, and what the application may see of it.
pub(crate) const TARGETS: [(&str, Option<&str>); 35] = [
    ("/public/a", Some("/public/a")),
    ("/public/./a", Some("/public/a")),
    ("/x/../public/a", Some("/public/a")),
    ("//public//a", Some("/public/a")),
    ("/public/%61", Some("/public/a")),
    ("/public/a?next=/../secret", Some("/public/a?next=/../secret")),
    ("http://echo/public/a", Some("/public/a")),
    // Decoded once, as an application does, these are still inside.
    ("/public/%252e%252e/secret", Some("/public/%252e%252e/secret")),
    ("/public/%252fsecret", Some("/public/%252fsecret")),
    ("/secret", None),
    ("/", None),
    ("*", None),
    ("/public", None),
    ("/publicity", None),
    ("/Public/a", None),
    ("/public/../secret", None),
    ("/public/%2e%2e/secret", None),
    ("/public/%2E%2e/secret", None),
    ("/public/.%2e/secret", None),
    ("/public/a/../../secret", None),
    ("/public/..", None),
    ("//secret", None),
    ("//public/../secret", None),
    ("/public/..%2fsecret", None),
    ("/public/%2e%2e%2Fsecret", None),
    ("/public%2f..%2fsecret", None),
    ("/public/..\\secret", None),
    ("/public\\..\\secret", None),
    ("/public/..%5csecret", None),
    ("/public/..;/secret", None),
    ("/public/..;a=b/secret", None),
    ("/public/%00/../../secret", None),
    ("/public/%zz", None),
    ("http://echo/secret", None),
    ("http://echo/public/../secret", None),
];

pub(crate) fn far_with_rules() -> Far {
    Far::start_with(|mesh| {
        mesh.caller("near", "client");
        mesh.serve("far", "bytes", "v1", SocketAddr::from(([127, 0, 0, 1], 9)), "tcp");
        mesh.resource("policy.toml", RULES);
    })
}

pub(crate) fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nhost: echo\r\nconnection: close\r\n\r\n")
}

/// Through the caller's own agent.
pub(crate) fn through_both(far: &Far, request: &str) -> String {
    let mut stream = connect(far.mesh.outbound("client"), None).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Straight to the mesh port, by a peer that has no agent to tidy up after it.
fn straight(far: &Far, rogue: &Rogue, request: &str) -> String {
    let mut tunnel = rogue.dial(far.mesh.inbound("far"), &identity("echo")).unwrap();
    assert_eq!(tunnel.greet(&far.hello()).unwrap(), Answer::Accepted { version: 1 });
    tunnel.ask(request).unwrap()
}

fn check(far: &Far, ask: impl Fn(&str) -> String) {
    let before = far.witness.targets().len();
    for (target, passes) in TARGETS {
        let answer = ask(&request("GET", target));
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        match passes {
            Some(_) => assert_eq!(status, "200", "{target}: {answer}"),
            None => assert!(matches!(status.as_str(), "400" | "403"), "{target}: {answer}"),
        }
    }
    let seen = far.witness.targets();
    let wanted: Vec<_> = TARGETS.iter().filter_map(|(_, passes)| *passes).collect();
    assert_eq!(seen[before..], wanted);
}

#[test]
fn no_spelling_of_a_path_gets_round_a_rule() {
    let far = far_with_rules();
    check(&far, |request| through_both(&far, request));
}

#[test]
fn no_spelling_gets_round_a_rule_without_an_agent() {
    let far = far_with_rules();
    let rogue = Rogue::new(Some(&far.leaf("client")));
    check(&far, |request| straight(&far, &rogue, request));
}

#[test]
fn a_denial_names_its_rule() {
    let far = far_with_rules();
    let rogue = Rogue::new(Some(&far.leaf("client")));
    let asks: [&dyn Fn(&str) -> String; 2] =
        [&|request| through_both(&far, request), &|request| straight(&far, &rogue, request)];
    for ask in asks {
        for (method, target, rule) in [
            ("GET", "/public/private/a", "static/not-private/private"),
            ("GET", "/public/x/..//private/a", "static/not-private/private"),
            ("GET", "/secret", "static/public-only"),
            ("POST", "/public/a", "static/public-only"),
        ] {
            let answer = ask(&request(method, target));
            assert!(answer.starts_with("HTTP/1.1 403"), "{target}: {answer}");
            assert!(answer.contains("x-weft-fault: denied"), "{target}: {answer}");
            assert!(answer.contains(&format!("x-weft-rule: {rule}\r\n")), "{target}: {answer}");
        }
    }
    assert_eq!(far.witness.connections(), 0);
    assert!(through_both(&far, &request("GET", "/public/a")).starts_with("HTTP/1.1 200"));
}

#[test]
fn opaque_bytes_do_not_get_round_a_rule() {
    let far = far_with_rules();
    let rogue = Rogue::speaking(Some(&far.leaf("client")), &["weft-tcp/1"]);
    let bytes = Hello::new(ServiceName::new("bytes.default").unwrap(), 9);
    for (identity, hello) in [(identity("echo"), far.hello()), (identity("bytes"), bytes)] {
        let mut tunnel = rogue.dial(far.mesh.inbound("far"), &identity).unwrap();
        let got = tunnel.barge(&hello, "GET /secret HTTP/1.1\r\nhost: echo\r\n\r\n");
        assert_eq!(got, Answer::WrongFraming { using: Framing::Http2 }.encode(), "{identity}");
    }
    assert_eq!(far.witness.connections(), 0);
    far.mesh.ask("far", "status");
    let good = straight(&far, &Rogue::new(Some(&far.leaf("client"))), &request("GET", "/public/a"));
    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
}
