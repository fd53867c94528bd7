//! `weft endpoints`.

use std::process::ExitCode;

use super::{
    output::{ReadOptions, ServiceFilter, or_dash, print_json, span},
    table::Table,
};
use crate::view::{Endpoint, LeftOut};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    service: ServiceFilter,
    /// Say of each endpoint which registry tells of it and how long ago, who said how it is reached, and why no calls go to it;
    /// and what registries say that was left out
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    read: ReadOptions,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = args.read.client();
    let mut endpoints: Vec<Endpoint> = client.get("/endpoints").await?;
    let left_out: Vec<LeftOut> = if args.explain { client.get("/left-out").await? } else { Vec::new() };
    let left_out: Vec<_> =
        left_out.into_iter().filter(|it| args.service.is_about(&[&it.origin, &it.place])).collect();
    // A service of which nothing was taken over is known by what was left out.
    if left_out.is_empty() {
        args.service.keep(&client, &mut endpoints, |endpoint| &endpoint.service).await?;
    } else {
        endpoints.retain(|endpoint| args.service.takes(&endpoint.service));
    }
    if args.read.is_json() {
        let rows =
            endpoints.iter().map(serde_json::to_value).chain(left_out.iter().map(serde_json::to_value));
        print_json(&rows.collect::<Result<Vec<_>, _>>()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let table = if args.explain { explained(endpoints) } else { listed(endpoints) };
    table.print("no endpoints")?;
    if !left_out.is_empty() {
        println!("\nnot taken over, or not as it is said:");
        faults(left_out).print("")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn faults(left_out: Vec<LeftOut>) -> Table {
    let mut table = Table::new(&["REGISTRY", "SAID BY", "WHAT", "FAULT"]);
    for LeftOut { registry, origin, place, reason, .. } in left_out {
        table.row([registry, origin, place, reason]);
    }
    table
}

fn listed(endpoints: Vec<Endpoint>) -> Table {
    let mut table = Table::new(&[
        "SERVICE",
        "PORT",
        "INSTANCE",
        "HEALTH",
        "APPLICATION",
        "MESH",
        "IDENTITY",
        "LABELS",
        "BUSY",
    ]);
    for endpoint in endpoints {
        let health = match endpoint.ejected_for_s {
            Some(seconds) => format!("{} (ejected {seconds:.0}s)", endpoint.health),
            None => endpoint.health,
        };
        let labels: Vec<String> =
            endpoint.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        table.row([
            endpoint.service,
            endpoint.port,
            endpoint.instance,
            health,
            endpoint.address.to_string(),
            or_dash(endpoint.mesh_address.map(|address| address.to_string()).as_deref()),
            or_dash(endpoint.identity.as_deref()),
            labels.join(","),
            endpoint.in_flight.to_string(),
        ]);
    }
    table
}

fn explained(endpoints: Vec<Endpoint>) -> Table {
    let mut table = Table::new(&[
        "REGISTRY",
        "SERVICE",
        "PORT",
        "INSTANCE",
        "HEALTH",
        "REACHED AT",
        "TLS",
        "IDENTITY",
        "SAID BY",
        "LOCALITY",
        "AGE",
        "CALLED",
    ]);
    for endpoint in endpoints {
        let reached = endpoint.mesh_address.unwrap_or(endpoint.address);
        let said_by = said_by(&endpoint);
        table.row([
            endpoint.registry,
            endpoint.service,
            endpoint.port,
            endpoint.instance,
            endpoint.health,
            reached.to_string(),
            if endpoint.tls_stays { format!("{}, as before", endpoint.tls) } else { endpoint.tls },
            or_dash(endpoint.identity.as_deref()),
            said_by,
            or_dash(Some(&endpoint.locality)),
            endpoint.age_s.map_or_else(|| "-".into(), |age| span(i64::try_from(age).unwrap_or(i64::MAX))),
            match endpoint.reason {
                None => "yes".into(),
                Some(reason) if endpoint.last_resort => format!("as nothing better is left: {reason}"),
                Some(reason) => format!("no: {reason}"),
            },
        ]);
    }
    table
}

/// Who said how an endpoint is reached: one name where all was said by one.
fn said_by(endpoint: &Endpoint) -> String {
    let said = [
        ("identity", endpoint.identity_from.as_deref()),
        ("mesh port", endpoint.mesh_address_from.as_deref()),
        ("tls", Some(&*endpoint.tls_from).filter(|text| !text.is_empty())),
    ];
    let said = said.into_iter().filter_map(|(what, sayer)| Some((what, sayer?)));
    let Some((_, first)) = said.clone().next() else { return or_dash(None) };
    if said.clone().all(|(_, sayer)| sayer == first) {
        return first.to_owned();
    }
    said.map(|(what, sayer)| format!("{what}: {sayer}")).collect::<Vec<_>>().join(", ")
}
