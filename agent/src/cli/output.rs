//! What all reading verbs share: whom to ask, and how to answer.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::ValueEnum;
use serde::Serialize;

use weft_core::name::DEFAULT_NAMESPACE;

use crate::{admin::client::AdminClient, view::Service};

/// The form of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned, for people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// `-o`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OutputOptions {
    /// The form of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Format,
}

/// `-o` and the process to ask.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReadOptions {
    #[command(flatten)]
    pub(super) format: OutputOptions,
    /// The admin socket of the process to ask
    #[arg(long, env = "WEFT_SOCKET", default_value = "/run/weft/admin.sock", value_name = "PATH")]
    pub(super) socket: PathBuf,
}

impl ReadOptions {
    pub(super) fn client(&self) -> AdminClient {
        AdminClient::new(&self.socket)
    }

    pub(super) fn is_json(&self) -> bool {
        self.format.is_json()
    }
}

impl OutputOptions {
    pub(super) fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}

/// A service that an operator names.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServiceFilter {
    /// Only this service (`name.namespace`; the namespace may be missing where it is `default`)
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

impl ServiceFilter {
    /// Whether `service` is the one that was named; every one is when none was.
    pub(super) fn takes(&self, service: &str) -> bool {
        let Some(wanted) = &self.service else { return true };
        service == wanted || service.strip_suffix(".default") == Some(wanted)
    }

    /// Whether any of these texts, in whatever terms, speaks of the service that was named; every text does when none was.
    /// Platforms without namespaces do not name the usual one.
    pub(super) fn is_about(&self, texts: &[&str]) -> bool {
        let Some(wanted) = &self.service else { return true };
        let (label, namespace) = wanted.split_once('.').unwrap_or((wanted, DEFAULT_NAMESPACE));
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let says =
            |text: &str, what: &str| text.split(|c| !is_word(c)).any(|word| word.eq_ignore_ascii_case(what));
        let is_named =
            |text: &&str| says(text, label) && (namespace == DEFAULT_NAMESPACE || says(text, namespace));
        texts.iter().any(is_named)
    }

    /// Keeps the rows of the service that was named.
    ///
    /// # Errors
    /// When the agent knows no service of that name.
    pub(super) async fn keep<T>(
        &self,
        client: &AdminClient,
        rows: &mut Vec<T>,
        service_of: impl Fn(&T) -> &str,
    ) -> anyhow::Result<()> {
        rows.retain(|row| self.takes(service_of(row)));
        let Some(wanted) = self.service.as_ref().filter(|_| rows.is_empty()) else { return Ok(()) };
        let known: Vec<Service> = client.get("/services").await?;
        if known.iter().any(|service| self.takes(&service.name)) {
            return Ok(());
        }
        anyhow::bail!("no service {wanted} is known here; `weft services` lists those that are")
    }
}

/// Prints `value` as indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

/// A number with what it counts, a plural that ends in `s`.
pub(super) fn counted(count: u64, plural: &str) -> String {
    let noun = if count == 1 { plural.strip_suffix('s').unwrap_or(plural) } else { plural };
    format!("{count} {noun}")
}

/// A span of time for people: the two largest units.
pub(super) fn span(seconds: i64) -> String {
    if seconds < 0 {
        return format!("-{}", span(-seconds));
    }
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// `or` when `text` is missing or empty.
pub(super) fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::{ServiceFilter, counted, span};

    #[test]
    fn one_of_a_kind_is_no_plural() {
        assert_eq!(
            [0, 1, 2].map(|count| counted(count, "services")),
            ["0 services", "1 service", "2 services"]
        );
    }

    #[test]
    fn spans_name_their_two_largest_units() {
        let cases = [(0, "0s"), (59, "59s"), (61, "1m1s"), (3_700, "1h1m"), (90_000, "1d1h"), (-5, "-5s")];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn what_is_about_a_service_names_its_namespace_unless_that_is_the_usual_one() {
        let is_about =
            |service: &str, text: &str| ServiceFilter { service: Some(service.to_owned()) }.is_about(&[text]);
        let about = [
            ("web", "service default/web"),
            ("web.default", "WEB"),
            ("web.shop", "shop/web-x7k2 of service shop/web"),
        ];
        assert!(about.iter().all(|(service, text)| is_about(service, text)));
        let beside = [("web", "default/web-2"), ("web.shpo", "shop/web"), ("web.shop", "default/web")];
        assert!(!beside.iter().any(|(service, text)| is_about(service, text)));
        assert!(ServiceFilter { service: None }.is_about(&["anything"]));
    }
}
