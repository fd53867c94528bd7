//! `weft services`.

use std::process::ExitCode;

use super::{
    output::{ReadOptions, ServiceFilter, print_json},
    table::Table,
};
use crate::view::Service;

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
    let mut table = Table::new(&["SERVICE", "REGISTRY", "PORTS", "HEALTHY", "HOSTS"]);
    for service in services {
        table.row([
            service.name,
            service.registry,
            service.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            format!("{}/{}", service.healthy, service.endpoints),
            service.hosts.join(","),
        ]);
    }
    table.print("no services: no registry has said anything yet (see weft status)")?;
    Ok(ExitCode::SUCCESS)
}
