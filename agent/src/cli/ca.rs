//! `weft ca`: the mesh's authority, kept in a hub's state directory.

mod hub;
mod issue;
mod node;
mod rotate;
mod show;
mod token;

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use clap::Subcommand;
use serde::Serialize;
use weft_core::identity::TrustDomain;

use crate::{
    admin::client::AdminClient,
    cli::{
        output::{OutputOptions, print_json},
        table::Table,
    },
    config::operator_socket,
    files::make_private_folder,
    hub::{
        authority::{AuthorityFolder, random_trust_domain},
        file::{FileFault, HubFile},
        records::Records,
        store::EmbeddedStore,
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the root, once, and this hub's intermediate
    Init(InitArgs),
    /// Make a new intermediate for this hub; needs the root's key
    Intermediate(StateOptions),
    /// Further hubs of this mesh
    Hub(hub::Args),
    /// Replace the root while everything runs: from here on the new one signs, and both are trusted
    Rotate(rotate::Args),
    /// Withdraw the root that another one has replaced
    Retire(rotate::RetireArgs),
    /// Make a key and a certificate for one identity, as files
    Issue(issue::Args),
    /// One-time tokens by which hosts join
    Token(token::Args),
    /// The hosts that joined
    Node(node::Args),
    /// Say whose authority this is and until when it is valid
    Show(ListArgs),
}

/// Where the hub keeps its state.
#[derive(Debug, clap::Args)]
struct StateOptions {
    /// The hub's state directory
    #[arg(long, env = "WEFT_HUB_STATE_DIR", default_value = "/var/lib/weft/hub", value_name = "FOLDER")]
    state_dir: PathBuf,
}

impl StateOptions {
    fn authority(&self) -> AuthorityFolder {
        AuthorityFolder::of_state(&self.state_dir)
    }

    /// Whoever owns the records: the hub that runs there, or this process where they lie in the hub's own file. A hub that is
    /// starting has the file before it answers, so it is waited for.
    async fn owner(&self) -> anyhow::Result<Owner> {
        let socket = operator_socket(&self.state_dir);
        let deadline = Instant::now() + HUB_STARTS_WITHIN;
        let mut said = false;
        let mut wait = async |why: String| {
            if !std::mem::replace(&mut said, true) {
                tracing::info!("{why}: waiting for the hub that is starting");
            }
            tokio::time::sleep(LOOK).await;
        };
        let mut elsewhere = None;
        loop {
            if UnixStream::connect(&socket).is_ok() {
                return Ok(Owner::Hub(AdminClient::of_hub(&socket)));
            }
            let is_late = Instant::now() >= deadline;
            if let Some(place) = &elsewhere {
                let why = format!("the records of this hub are kept in {place}");
                anyhow::ensure!(!is_late, "{why}; they are reached through a hub that runs");
                wait(why).await;
                continue;
            }
            match HubFile::open(&self.state_dir) {
                Err(FileFault::InUse(_)) if !is_late => wait("the store is in use".to_owned()).await,
                file => {
                    let file = file?;
                    elsewhere = file.shared()?;
                    if elsewhere.is_none() {
                        let store = EmbeddedStore::in_file(Arc::new(file))?;
                        return Ok(Owner::Us(Records::new(Arc::new(store))));
                    }
                }
            }
        }
    }
}

/// What a verb is asked with that lists what a hub keeps.
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    state: StateOptions,
    #[command(flatten)]
    output: OutputOptions,
}

impl ListArgs {
    /// Prints the rows for programs, or for people as the table that they make.
    fn print<T: Serialize>(
        &self,
        rows: &T,
        table: impl FnOnce(&T) -> Table,
        when_empty: &str,
    ) -> anyhow::Result<()> {
        if self.output.is_json() {
            return print_json(rows);
        }
        Ok(table(rows).print(when_empty)?)
    }
}

/// How long a hub may take from opening its store to answering its operator.
const HUB_STARTS_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Who owns a hub's store.
enum Owner {
    /// The hub that runs.
    Hub(AdminClient),
    /// This process, for as long as it holds it.
    Us(Records),
}

#[derive(Debug, clap::Args)]
struct InitArgs {
    #[command(flatten)]
    state: StateOptions,
    /// The mesh's trust domain; made at random when not given, so that two meshes can meet later
    #[arg(long, value_parser = TrustDomain::new, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Init(args) => init(args)?,
        Verb::Hub(args) => hub::run(&args)?,
        Verb::Intermediate(state) => state.authority().renew_intermediate(SystemTime::now())?,
        Verb::Rotate(args) => rotate::run(&args)?,
        Verb::Retire(args) => rotate::retire(&args).await?,
        Verb::Issue(args) => issue::run(&args)?,
        Verb::Token(args) => token::run(args).await?,
        Verb::Node(args) => node::run(args).await?,
        Verb::Show(args) => show::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn init(args: InitArgs) -> anyhow::Result<()> {
    let trust_domain = args.trust_domain.unwrap_or_else(random_trust_domain);
    make_private_folder(&args.state.state_dir)?;
    let folder = args.state.authority();
    folder.initialise(&trust_domain, SystemTime::now())?;
    let mut out = io::stdout().lock();
    writeln!(out, "trust domain {trust_domain}, authority in {}", folder.path().display())?;
    writeln!(
        out,
        "keep {} safe; only a new hub and a new root need it",
        folder.path().join("root.key").display()
    )?;
    Ok(())
}

/// Reads `90s`, `15m`, `24h` or `7d`.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a span of time such as 90s, 15m, 24h or 7d");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_a_number_and_a_unit() {
        assert_eq!(parse_span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_span("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "s", "1", "1w", "-1s", "99999999999s", "1.5h"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}
