//! `weft tap`.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::bail;
use serde_json::Value;

use super::output::{ReadOptions, ServiceFilter, or_dash};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    service: ServiceFilter,
    /// Only requests that failed or were refused
    #[arg(long)]
    failed: bool,
    /// End after so many requests
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    #[command(flatten)]
    read: ReadOptions,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut lines = args.read.client().lines("/tap").await?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(line) = lines.next().await? else {
            bail!("the process at {} has ended", args.read.socket.display())
        };
        let Ok(request) = serde_json::from_str::<Value>(&line) else { continue };
        if let Some(missed) = request.get("missed") {
            eprintln!("weft: {missed} requests came too fast to be shown");
            continue;
        }
        if !wanted(&args, &request) {
            continue;
        }
        left -= 1;
        let mut out = io::stdout().lock();
        if args.read.is_json() {
            writeln!(out, "{line}")?;
        } else {
            let colour = out.is_terminal();
            writeln!(out, "{}", sentence(&request, colour))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn wanted(args: &Args, request: &Value) -> bool {
    let service = text(request, "/destination/service/service");
    args.service.takes(&service) && (!args.failed || is_failure(request))
}

/// A fault of the mesh, a server's error, or a gRPC status other than OK.
fn is_failure(request: &Value) -> bool {
    let fault = request.pointer("/verdict/fault").is_some_and(|fault| !fault.is_null());
    fault || number(request, "/verdict/status") >= 500 || number(request, "/verdict/grpc_status") != 0
}

/// One request as a line: who called whom, how it went and how long it took.
fn sentence(request: &Value, colour: bool) -> String {
    let verdict = match (number(request, "/verdict/status"), text(request, "/verdict/fault")) {
        (0, fault) if fault.is_empty() => "closed".to_owned(),
        (status, fault) if fault.is_empty() => status.to_string(),
        (status, fault) => format!("{status} {fault}"),
    };
    let verdict = match request.pointer("/verdict/grpc_status").and_then(Value::as_u64) {
        Some(status) => format!("{verdict} grpc={status}"),
        None => verdict,
    };
    let verdict = match (colour, is_failure(request)) {
        (true, true) => format!("\x1b[31m{verdict}\x1b[0m"),
        (true, false) => format!("\x1b[32m{verdict}\x1b[0m"),
        _ => verdict,
    };
    let security =
        if request.pointer("/mutual_tls").and_then(Value::as_bool) == Some(true) { "mTLS" } else { "plain" };
    let rule = text(request, "/verdict/rule");
    let route = text(request, "/route");
    let mut line = format!(
        "{:<11} {} -> {} {}{}{verdict} {:.2}ms {security}",
        text(request, "/reporter"),
        text(request, "/source/identity"),
        or_dash(Some(&text(request, "/destination/service/service"))),
        with_blank(&text(request, "/destination/instance")),
        asked(request),
        number(request, "/duration_us") as f64 / 1e3,
    );
    let known = request.pointer("/destination").is_some_and(|destination| !destination.is_null());
    let host = if known { String::new() } else { text(request, "/request/authority") };
    let flags = text(request, "/verdict/flags");
    for (name, value) in [("host", host), ("route", route), ("rule", rule), ("flags", flags)] {
        if !value.is_empty() {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    line
}

/// The method and path with a blank behind; nothing for opaque bytes.
fn asked(request: &Value) -> String {
    let (method, path) = (text(request, "/request/method"), text(request, "/request/path"));
    if method.is_empty() { String::new() } else { format!("{method} {path} ") }
}

/// `text` with a blank behind; nothing when there is none, as with the instance on the called side.
fn with_blank(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{text} ") }
}

fn number(request: &Value, pointer: &str) -> u64 {
    request.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn text(request: &Value, pointer: &str) -> String {
    request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn request(reporter: &str, instance: Option<&str>, verdict: Value) -> Value {
        json!({
            "reporter": reporter,
            "source": { "identity": "spiffe://demo.mesh/ns/default/sa/web" },
            "destination": {
                "service": { "registry": "static", "service": "reviews.default" }, "instance": instance,
            },
            "mutual_tls": true, "route": null,
            "request": { "method": "POST", "path": "/a" },
            "verdict": verdict,
            "duration_us": 1_500,
        })
    }

    #[test]
    fn a_line_says_who_called_whom_and_how_it_went() {
        let denied = json!({ "status": 403, "flags": "", "fault": "denied", "rule": "static/only-web/0" });
        assert_eq!(
            super::sentence(&request("destination", None, denied), false),
            "destination spiffe://demo.mesh/ns/default/sa/web -> reviews.default POST /a 403 denied 1.50ms mTLS \
             rule=static/only-web/0"
        );
        let failed = json!({ "status": 200, "flags": "", "fault": null, "grpc_status": 14 });
        assert_eq!(
            super::sentence(&request("source", Some("r-1"), failed), false),
            "source      spiffe://demo.mesh/ns/default/sa/web -> reviews.default r-1 POST /a 200 grpc=14 1.50ms mTLS"
        );
    }

    #[test]
    fn a_call_to_nowhere_says_where_it_wanted_to_go() {
        let verdict = json!({ "status": 404, "flags": "NR", "fault": "no_destination" });
        let mut lost = request("source", None, verdict);
        lost["destination"] = Value::Null;
        lost["request"]["authority"] = "reviewz.default".into();
        assert_eq!(
            super::sentence(&lost, false),
            "source      spiffe://demo.mesh/ns/default/sa/web -> - POST /a 404 no_destination 1.50ms mTLS \
             host=reviewz.default flags=NR"
        );
    }

    #[test]
    fn a_call_has_failed_by_its_status_its_grpc_status_or_a_fault() {
        let judge = |verdict: Value| super::is_failure(&request("source", None, verdict));
        for failed in [
            json!({ "status": 503, "fault": null }),
            json!({ "status": 200, "fault": null, "grpc_status": 14 }),
            json!({ "status": 403, "fault": "denied" }),
            json!({ "status": 0, "fault": "connection_lost" }),
        ] {
            assert!(judge(failed.clone()), "{failed}");
        }
        for fine in [
            json!({ "status": 200, "fault": null, "grpc_status": 0 }),
            json!({ "status": 404, "fault": null, "grpc_status": null }),
            json!({ "status": 0, "fault": null }),
        ] {
            assert!(!judge(fine.clone()), "{fine}");
        }
    }
}
