//! `weft services`.

use std::{collections::BTreeSet, process::ExitCode};

use serde::Deserialize;

use super::{
    output::{ReadOptions, ServiceFilter, print_json, span},
    table::Table,
};
use crate::{
    admin::client::AdminClient,
    view::{Registry, Service},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    service: ServiceFilter,
    #[command(flatten)]
    read: ReadOptions,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = args.read.client();
    let mut services: Vec<Service> = client.get("/services").await?;
    args.service.keep(&client, &mut services, |service| &service.name).await?;
    if args.read.is_json() {
        print_json(&services)?;
        return Ok(ExitCode::SUCCESS);
    }
    let note = if services.is_empty() { nothing(&client).await? } else { String::new() };
    let mut table = Table::new(&["SERVICE", "REGISTRY", "PORTS", "HEALTHY", "HOSTS"]);
    for service in services {
        table.row([
            service.name,
            service.registry,
            service.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            match service.gone_s {
                _ if service.held => "waits for a registry before its own".to_owned(),
                Some(ago) => format!("gone {} ago", span(i64::try_from(ago).unwrap_or(i64::MAX))),
                None => format!("{}/{}", service.healthy, service.endpoints),
            },
            service.hosts.join(","),
        ]);
    }
    table.print(&note)?;
    Ok(ExitCode::SUCCESS)
}

/// Who answers has registries, an agent or a hub.
#[derive(Deserialize)]
struct Asked {
    registries: Vec<Registry>,
}

/// Says who told of no services, and who has said nothing yet.
async fn nothing(client: &AdminClient) -> anyhow::Result<String> {
    let Asked { registries } = client.get("/status").await?;
    let name = |registry: &Registry| registry.scope.split('/').next().unwrap_or_default().to_owned();
    let of = |has_said: bool| {
        let rows = registries.iter().filter(|registry| registry.age_s.is_some() == has_said);
        rows.map(name).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    };
    let (said, silent) = (of(true), of(false));
    Ok(match (said.is_empty(), silent.is_empty()) {
        (true, true) => "no services: no registry is followed".to_owned(),
        (true, false) => "no services: no registry has said anything yet (see weft status)".to_owned(),
        (false, true) => {
            format!("no services: there are none in {said} (weft status says what was left out)")
        }
        (false, false) => {
            format!(
                "no services: there are none in {said}, and {silent} has said nothing yet (see weft status)"
            )
        }
    })
}
