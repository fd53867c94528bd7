//! `weft ca token`: through the hub's socket while one runs, else on its store.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use weft_core::identity::SpiffeId;

use super::{ListArgs, Owner, StateOptions, node::parse_new_name as parse_node, parse_span};
use crate::{
    cli::{
        output::{OutputOptions, or_dash, print_json, span},
        table::Table,
    },
    hub::{
        authority::DEFAULT_LEAF_LIFETIME,
        operator::{TokenView, TokenWish, create_token, list_tokens, revoke_token},
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token: it lets one host join, once, as what it names
    Create(CreateArgs),
    /// List the tokens that the hub knows
    List(ListArgs),
    /// Make a token worthless
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    #[command(flatten)]
    state: StateOptions,
    /// An identity that the host may run workloads as; may be repeated
    #[arg(long = "identity", required = true, value_parser = SpiffeId::parse, value_name = "SPIFFE-ID")]
    identities: Vec<SpiffeId>,
    /// The only node that may use it; needed to replace one that joined before
    #[arg(long, value_name = "NAME", value_parser = parse_node)]
    node: Option<String>,
    /// For how long it can be used
    #[arg(long, default_value = "1h", value_parser = parse_span, value_name = "SPAN")]
    ttl: Duration,
    /// Where the host finds the hub, carried in the token
    #[arg(long, default_value = "", value_name = "HOST:PORT")]
    hub: String,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Debug, clap::Args)]
struct RevokeArgs {
    #[command(flatten)]
    state: StateOptions,
    /// The token's identifier as `list` shows it, or its first digits
    #[arg(value_name = "TOKEN", value_parser = parse_id)]
    id: String,
}

/// A new token, as the hub's socket answers it.
#[derive(Debug, Serialize, Deserialize)]
struct Created {
    token: String,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    match args.verb {
        Verb::Create(args) => create(args).await,
        Verb::List(args) => list(args).await,
        Verb::Revoke(args) => revoke(args).await,
    }
}

/// Hexadecimal digits, as many as are given.
fn parse_id(text: &str) -> Result<String, String> {
    let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("expected the first digits of an identifier, as `weft ca token list` shows it".to_owned())
    }
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let revoked: String = match args.state.owner().await? {
        Owner::Hub(hub) => hub.post(&format!("/tokens/revoke?id={}", args.id)).await?,
        Owner::Us(records) => revoke_token(&records, &args.id).await?,
    };
    Ok(writeln!(io::stdout(), "token {revoked} is worthless now")?)
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let wish = TokenWish { identities: args.identities, node: args.node, lifetime: args.ttl, hub: args.hub };
    let created = match args.state.owner().await? {
        Owner::Hub(hub) => hub.post(&format!("/tokens?{}", wish.to_query())).await?,
        Owner::Us(records) => {
            let authority = args.state.authority().open(DEFAULT_LEAF_LIFETIME, SystemTime::now())?;
            let root = authority.roots().first().map(|root| root.to_vec()).unwrap_or_default();
            let token = create_token(&records, authority.trust_domain(), &root, &wish).await?;
            Created { token: token.to_text() }
        }
    };
    if args.output.is_json() {
        print_json(&created)
    } else {
        Ok(writeln!(io::stdout(), "{}", created.token)?)
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let tokens: Vec<TokenView> = match args.state.owner().await? {
        Owner::Hub(hub) => hub.get("/tokens").await?,
        Owner::Us(records) => list_tokens(&records).await?,
    };
    args.print(&tokens, |tokens| rows(tokens), "no tokens")
}

fn rows(tokens: &[TokenView]) -> Table {
    let mut table = Table::new(&["TOKEN", "NODE", "ENDS IN", "USED BY", "IDENTITIES"]);
    for token in tokens {
        let identities: Vec<_> = token.identities.iter().map(ToString::to_string).collect();
        table.row([
            token.id.clone(),
            or_dash(token.node.as_deref()),
            span(token.ends_in_s),
            or_dash(token.used_by.as_deref()),
            identities.join(" "),
        ]);
    }
    table
}
