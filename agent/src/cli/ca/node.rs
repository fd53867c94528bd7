//! `weft ca node`: through the hub's socket while one runs, else on its store.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use clap::Subcommand;
use weft_core::{identity::TrustDomain, name::NameError};

use super::{ListArgs, Owner, StateOptions};
use crate::{
    cli::status::hub_nodes,
    hub::operator::{NodeNameError, list_nodes, new_node_identity, node_identity, remove_node},
    view::hub::Node,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the hosts that joined, with what they hold
    List(ListArgs),
    /// Forget a host: its stream ends, and it gets no certificate any more
    Remove(RemoveArgs),
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    #[command(flatten)]
    state: StateOptions,
    /// The host's name
    #[arg(value_name = "NODE", value_parser = parse_name)]
    name: String,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    match args.verb {
        Verb::List(args) => {
            let nodes = nodes(&args.state).await?;
            args.print(&nodes, |nodes| hub_nodes(nodes), "no nodes")
        }
        Verb::Remove(args) => remove(args).await,
    }
}

/// Every host of a hub, from the hub that runs or from its store.
pub(super) async fn nodes(state: &StateOptions) -> anyhow::Result<Vec<Node>> {
    match state.owner().await? {
        Owner::Hub(hub) => hub.get("/nodes").await,
        Owner::Us(records) => Ok(list_nodes(&records, SystemTime::now()).await?),
    }
}

async fn remove(args: RemoveArgs) -> anyhow::Result<()> {
    let (name, before) = (args.name, nodes(&args.state).await?);
    let removed: String = match args.state.owner().await? {
        Owner::Hub(hub) => hub.post(&format!("/nodes/remove?name={name}")).await?,
        Owner::Us(records) => remove_node(&records, &name).await?,
    };
    let held = before.iter().filter(|node| node.name == removed).flat_map(|node| &node.certificates);
    let left = held.map(|held| held.ends_in_s).max().unwrap_or_default().max(0);
    let mut out = io::stdout().lock();
    writeln!(out, "node {removed} gets no certificate any more")?;
    if left > 0 {
        let left = crate::cli::output::span(left);
        writeln!(out, "what it holds stays valid for {left}; a policy can deny its identities at once")?;
    }
    Ok(())
}

/// A name that a node can be given.
pub(super) fn parse_new_name(text: &str) -> Result<String, NodeNameError> {
    new_node_identity(&TrustDomain::new("any")?, text).map(|_| text.to_owned())
}

/// A name that a node can have.
fn parse_name(text: &str) -> Result<String, NameError> {
    node_identity(&TrustDomain::new("any")?, text).map(|_| text.to_owned())
}
