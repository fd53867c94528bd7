//! Every refusal can be asked for afterwards: one line of access log and one count, on each side that knows of it, with
//! the fault and the rule.

use std::fs;

use serde_json::Value;

use crate::{
    callers::Far,
    paths::{RULES, request, through_both},
    support::{client, until},
};

/// Lines of an agent's access log.
fn lines(far: &Far, host: &str) -> Vec<Value> {
    let text = fs::read_to_string(far.mesh.sandbox.path(&format!("{host}/access.log"))).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// How many requests an agent counted with this status and these flags.
fn counted(far: &Far, host: &str, reporter: &str, status: u16, flags: &str) -> u64 {
    let page = client::get(far.mesh.admin(host), "weft", "/metrics").unwrap().body;
    let wanted = [
        format!("reporter=\"{reporter}\""),
        format!("response_code=\"{status}\""),
        format!("response_flags=\"{flags}\""),
    ];
    let series = page.lines().filter(|line| line.starts_with("weft_requests_total{"));
    let series = series.filter(|line| wanted.iter().all(|label| line.contains(label)));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// A request, and what both agents must say of it.
struct Case {
    target: &'static str,
    status: u16,
    fault: &'static str,
    rule: Option<&'static str>,
}

const CASES: [Case; 4] = [
    Case {
        target: "/public/private/a",
        status: 403,
        fault: "denied",
        rule: Some("static/not-private/private"),
    },
    Case {
        target: "/public/x/../private/a",
        status: 403,
        fault: "denied",
        rule: Some("static/not-private/private"),
    },
    Case { target: "/secret", status: 403, fault: "denied", rule: Some("static/public-only") },
    Case { target: "/public/%2e%2e/secret", status: 403, fault: "denied", rule: Some("static/public-only") },
];

#[test]
fn each_denial_has_a_line_and_a_count_on_both_sides() {
    let mut far = Far::described(|mesh| {
        mesh.caller("near", "client");
        mesh.resource("policy.toml", RULES);
    });
    far.mesh.write();
    for host in ["near", "far"] {
        let log = far.mesh.sandbox.path(&format!("{host}/access.log"));
        far.mesh.write_config(host, &format!("\n[access_log]\npath = {log:?}\n"));
        far.mesh.spawn(host);
    }
    ["near", "far"].iter().for_each(|host| far.mesh.ready(host));
    for (number, case) in CASES.iter().enumerate() {
        let answer = through_both(&far, &request("GET", case.target));
        assert!(answer.starts_with(&format!("HTTP/1.1 {}", case.status)), "{}: {answer}", case.target);
        for (host, reporter) in [("near", "source"), ("far", "destination")] {
            let line =
                until(&format!("{host} logs {}", case.target), || lines(&far, host).get(number).cloned());
            let said = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            assert_eq!(said("reporter"), reporter, "{line}");
            assert_eq!(line["response.code"], case.status, "{line}");
            assert_eq!(said("response.fault"), case.fault, "{line}");
            assert_eq!(line["policy.rule"].as_str(), case.rule, "{line}");
            assert_eq!(said("source.principal"), "spiffe://test.mesh/ns/default/sa/client", "{line}");
            assert!(!said("request.path").contains(".."), "{line}");
        }
    }
    let denied = u64::try_from(CASES.len()).unwrap();
    for (host, reporter) in [("near", "source"), ("far", "destination")] {
        until(&format!("{host} counts them"), || {
            let page = client::get(far.mesh.admin(host), "weft", "/metrics").unwrap().body;
            let count = counted(&far, host, reporter, 403, "-");
            assert!(count <= denied, "{page}");
            (count == denied).then_some(())
        });
        assert_eq!(lines(&far, host).len(), CASES.len(), "{host}: one line each");
    }
    assert_eq!(far.witness.connections(), 0);
}
