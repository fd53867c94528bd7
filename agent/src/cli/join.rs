//! `weft join`.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::json;
use weft_registries::hub::JoinError;

use super::output::{OutputOptions, print_json};
use crate::{
    hub::token::Token,
    identity::join::{JoiningError, join},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The agent's state directory
    #[arg(long, env = "WEFT_STATE_DIR", default_value = "/var/lib/weft", value_name = "FOLDER")]
    state_dir: PathBuf,
    /// The hub's address; where the token says it when not given
    #[arg(long, value_name = "HOST:PORT")]
    hub: Option<String>,
    /// The token, or `-` to read it from standard input
    #[arg(long, env = "WEFT_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: String,
    /// This host's name in the mesh; the token's or the host's own when not given
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    output: OutputOptions,
}

/// How long a hub that cannot be reached is tried again.
const HUB_ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut text = args.token;
    if text == "-" {
        text.clear();
        io::stdin().read_to_string(&mut text)?;
    }
    let token = Token::parse(&text)?;
    let (deadline, mut said) = (Instant::now() + HUB_ANSWERS_WITHIN, false);
    let joined = loop {
        match join(&args.state_dir, &token, args.hub.as_deref(), args.node.as_deref()).await {
            // A hub that is starting, or restarting.
            Err(JoiningError::Hub(JoinError::Unreachable(fault))) if Instant::now() < deadline => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!(%fault, "the hub cannot be reached yet: trying again");
                }
                tokio::time::sleep(PAUSE).await;
            }
            joined => break joined?,
        }
    };
    if args.output.is_json() {
        let node = joined.node;
        let trust_domain = node.trust_domain;
        print_json(&json!({ "node": node.node, "trust_domain": trust_domain, "granted": joined.granted }))?;
    } else {
        let granted = joined.granted.join(", ");
        let node = joined.node;
        writeln!(io::stdout(), "joined {} as node {}; may be {granted}", node.trust_domain, node.node)?;
    }
    Ok(ExitCode::SUCCESS)
}
