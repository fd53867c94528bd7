//! `weft registry`: the operator's word where a registry's own is not enough.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::Subcommand;
use weft_core::name::{PortName, RegistryName, ServiceKey, ServiceName};

use super::output::{ReadOptions, print_json};
use crate::admin::{
    client::AdminClient,
    word::{ALLOW_PLAINTEXT, Allowed, FORGET, Forgotten},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Forget what is unconfirmed: it is gone, though its registry may have been unable to say so; and the names that
    /// services keep whose last instance is gone
    Forget {
        /// Only of this registry
        registry: Option<RegistryName>,
        #[command(flatten)]
        whom: Whom,
    },
    /// Let a service that was once in TLS only speak plaintext again, where its registry says so
    AllowPlaintext {
        /// The service, as `weft services` names it: registry and name
        #[arg(value_name = "REGISTRY/SERVICE")]
        service: String,
        /// Only at this port, by its name
        #[arg(long, value_name = "NAME")]
        port: Option<PortName>,
        #[command(flatten)]
        whom: Whom,
    },
}

#[derive(Debug, clap::Args)]
struct Whom {
    #[command(flatten)]
    read: ReadOptions,
    /// Ask the hub on this host, by its admin socket, instead of the agent
    #[arg(
        long,
        value_name = "PATH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "/run/weft/hub/admin.sock"
    )]
    hub: Option<PathBuf>,
}

impl Whom {
    fn client(&self) -> AdminClient {
        self.hub.as_deref().map_or_else(|| self.read.client(), AdminClient::of_hub)
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Forget { registry, whom } => forget(registry.as_ref(), &whom).await,
        Verb::AllowPlaintext { service, port, whom } => allow_plaintext(&service, port.as_ref(), &whom).await,
    }
}

async fn forget(registry: Option<&RegistryName>, whom: &Whom) -> anyhow::Result<ExitCode> {
    let query = registry.map(|name| format!("?registry={name}")).unwrap_or_default();
    let answer: Forgotten = whom.client().post(&format!("{FORGET}{query}")).await?;
    if whom.read.is_json() {
        print_json(&answer)?;
    } else {
        match answer.forgotten {
            0 => {
                writeln!(io::stdout(), "nothing is unconfirmed, and no service that is gone keeps its names")?
            }
            1 => writeln!(io::stdout(), "1 origin is forgotten")?,
            many => writeln!(io::stdout(), "{many} origins are forgotten")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Exits with 1 when there was nothing to allow: a slip of the pen must not look like leave.
async fn allow_plaintext(service: &str, port: Option<&PortName>, whom: &Whom) -> anyhow::Result<ExitCode> {
    let key = service_key(service)?;
    let mut path = format!("{ALLOW_PLAINTEXT}?registry={}&service={}", key.registry, key.service);
    if let Some(port) = port {
        path.push_str(&format!("&port={port}"));
    }
    let answer: Allowed = whom.client().post(&path).await?;
    if whom.read.is_json() {
        print_json(&answer)?;
    } else if answer.was_held {
        writeln!(io::stdout(), "{key} may speak plaintext again where its registry says so")?;
    } else {
        writeln!(io::stderr(), "{key} was not held to TLS there: nothing changed")?;
    }
    Ok(if answer.was_held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn service_key(text: &str) -> anyhow::Result<ServiceKey> {
    let (registry, service) =
        text.split_once('/').context("expected registry/service, such as static/web")?;
    let registry = registry.parse().with_context(|| format!("the registry of {text}"))?;
    let service: ServiceName = service.parse().with_context(|| format!("the service of {text}"))?;
    Ok(ServiceKey { registry, service })
}
