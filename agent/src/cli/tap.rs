//! `weft tap`.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use serde_json::Value;

use super::output::ReadOptions;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only requests to this service (name.namespace)
    #[arg(long)]
    service: Option<String>,
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
        let Some(line) = lines.next().await? else { break };
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
    let named =
        args.service.as_ref().is_none_or(|name| service == *name || service == format!("{name}.default"));
    named && (!args.failed || is_failure(request))
}

fn is_failure(request: &Value) -> bool {
    let status = request.pointer("/verdict/status").and_then(Value::as_u64).unwrap_or(0);
    status >= 500 || request.pointer("/verdict/fault").is_some_and(|fault| !fault.is_null())
}

/// One request as a line: who called whom, how it went and how long it took.
fn sentence(request: &Value, colour: bool) -> String {
    let status = request.pointer("/verdict/status").and_then(Value::as_u64).unwrap_or(0);
    let verdict = match (status, text(request, "/verdict/fault")) {
        (0, fault) if fault.is_empty() => "closed".to_owned(),
        (status, fault) if fault.is_empty() => status.to_string(),
        (status, fault) => format!("{status} {fault}"),
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
        "{:<11} {} -> {} {} {}{verdict} {:.2}ms {security}",
        text(request, "/reporter"),
        text(request, "/source/identity"),
        text(request, "/destination/service/service"),
        text(request, "/destination/instance"),
        asked(request),
        milliseconds(request),
    );
    for (name, value) in [("route", route), ("rule", rule), ("flags", text(request, "/verdict/flags"))] {
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

fn milliseconds(request: &Value) -> f64 {
    let part = |name: &str| request.pointer(name).and_then(Value::as_f64).unwrap_or(0.0);
    part("/duration/secs") * 1e3 + part("/duration/nanos") / 1e6
}

fn text(request: &Value, pointer: &str) -> String {
    request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_line_says_who_called_whom_and_how_it_went() {
        let request = json!({
            "reporter": "destination",
            "source": { "identity": "spiffe://demo.mesh/ns/default/sa/web" },
            "destination": { "service": { "registry": "static", "service": "reviews.default" }, "instance": "r-1" },
            "mutual_tls": true, "route": null,
            "request": { "method": "POST", "path": "/a" },
            "verdict": { "status": 403, "flags": "", "fault": "denied", "rule": "static/only-web/0" },
            "duration": { "secs": 0, "nanos": 1_500_000 },
        });
        assert_eq!(
            super::sentence(&request, false),
            "destination spiffe://demo.mesh/ns/default/sa/web -> reviews.default r-1 POST /a 403 denied 1.50ms mTLS \
             rule=static/only-web/0"
        );
    }
}
