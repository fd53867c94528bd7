//! `weft routes`.

use std::process::ExitCode;

use super::{
    output::{ReadOptions, ServiceFilter, print_json},
    table::Table,
};
use crate::view::Route;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    service: ServiceFilter,
    #[command(flatten)]
    read: ReadOptions,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = args.read.client();
    let mut routes: Vec<Route> = client.get("/routes").await?;
    args.service.keep(&client, &mut routes, |route| &route.service).await?;
    if args.read.is_json() {
        print_json(&routes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["SERVICE", "PORT", "RULE", "WHEN", "TO", "TIMEOUT", "RETRIES"]);
    for route in routes {
        let when = if route.matches.is_empty() { "always".into() } else { route.matches.join(" or ") };
        let targets: Vec<String> = route
            .targets
            .iter()
            .map(|target| {
                format!("{:.0}% {} [{}]", target.percent, target.service, target.instances.join(" "))
            })
            .collect();
        let to = if targets.is_empty() { "nowhere (503)".into() } else { targets.join(", ") };
        let timeout =
            route.request_timeout_ms.map_or_else(|| "none".into(), |ms| format!("{}s", ms as f64 / 1000.0));
        table.row([route.service, route.port, route.rule, when, to, timeout, route.retries.to_string()]);
    }
    table.print("no routes")?;
    Ok(ExitCode::SUCCESS)
}
