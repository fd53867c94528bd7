//! What a `kind = "nomad"` section says.

use std::{env, sync::Arc, time::Duration};

use weft_core::{
    config::{Fault, Readable, Section, Value},
    identity::TrustDomain,
    name::RegistryName,
    registry::Registry,
};

use super::NomadRegistry;
use crate::{
    credential::Credential,
    http_client::{ServerSettings, ServerUrl},
    plan::{BuildError, Environment, Settings},
    speaking::Rules,
};

/// Where Nomad's own tools find out where the server is when nobody says more.
const ADDRESS_VARIABLE: &str = "NOMAD_ADDR";
/// Where they find a token then.
const TOKEN_VARIABLE: &str = "NOMAD_TOKEN";
/// Where Nomad's own tools look when nobody says where the server is.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:4646";
/// How often a check's result is asked for when the file does not say.
const DEFAULT_HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// What a rule's identity may name, beside `service` and `namespace`.
const WORDS: [&str; 5] = ["job", "group", "task", "node", "datacenter"];

/// Which namespaces are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// All that the token may read.
    All,
    /// These, each of which it must be able to read.
    These(Vec<String>),
}

/// What the section says.
#[derive(Clone, Debug)]
pub struct NomadSettings {
    /// Where the server is.
    pub server: Arc<ServerSettings>,
    /// Who asks.
    pub credential: Credential,
    /// What is followed.
    pub namespaces: Namespaces,
    /// The region that is asked for; none means the server's own.
    pub region: Option<String>,
    /// How often a check's result is asked for.
    pub health_interval: Duration,
    /// The folder of Nomad Variables that hold routes and policies, and its namespace; none means that none are read.
    pub variables: Option<Variables>,
    /// Which endpoints speak mesh, and as whom.
    pub rules: Rules,
    /// Completes identities that name none.
    pub trust_domain: Option<TrustDomain>,
}

/// Where routes and policies are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variables {
    /// Ends with a slash.
    pub prefix: String,
    /// The one namespace whose writers are trusted with them.
    pub namespace: String,
}

/// A namespace's name.
struct NamespaceName(String);

impl Readable for NamespaceName {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.parse("a namespace of Nomad, such as \"default\"", |text| {
            let fits = (1..=128).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if fits { Ok(Self(text.to_owned())) } else { Err("this cannot be the name of a namespace") }
        })
    }
}

/// Reads the section.
#[must_use]
pub fn read(section: &Section<'_>) -> Option<Arc<dyn Settings>> {
    let server = ServerSettings::read_or_from(section, ADDRESS_VARIABLE, &default_address());
    let credential = Credential::read(section, TOKEN_VARIABLE);
    if let (Some(server), Some(Credential::File(_) | Credential::Variable(_))) = (&server, &credential) {
        let keys = ["token_file", "token_env"];
        ServerSettings::warn_of_overheard(section, [server], &keys, TOKEN_VARIABLE);
    }
    let namespaces = namespaces(section);
    let region = match section.get("region") {
        Some(value) => Some(value.parse("a region, such as \"global\"", |text| {
            if text.is_empty() { Err("it is empty") } else { Ok(text.to_owned()) }
        })?),
        None => env::var("NOMAD_REGION").ok().filter(|region| !region.is_empty()),
    };
    let health_interval = section.read_or("health_interval", DEFAULT_HEALTH_INTERVAL);
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&health_interval) {
        let fault = Fault::error(section.key_place("health_interval"), "the interval is out of range");
        section.report(fault.expected("expected a duration from \"1s\" to \"1h\""));
    }
    let variables = variables(section);
    let rules = Rules::read(section, &WORDS);
    Some(Arc::new(NomadSettings {
        server: Arc::new(server?),
        credential: credential?,
        namespaces: namespaces?,
        region,
        health_interval,
        variables: variables?,
        rules: rules?,
        trust_domain: None,
    }))
}

/// The variable may lack the scheme, as Consul's may.
fn default_address() -> String {
    ServerUrl::from_variable(&env::var(ADDRESS_VARIABLE).unwrap_or_default(), false, DEFAULT_ADDRESS)
}

/// Where routes and policies are: the outer none where that is wrong, the inner one where there are none.
fn variables(section: &Section<'_>) -> Option<Option<Variables>> {
    let path = section.get("variables").map(|value| {
        value.parse("a path of Nomad Variables, such as \"weft\"", |text| {
            let text = text.trim_end_matches('/');
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~/".contains(&byte);
            let is_path = !text.is_empty() && text.len() <= 100 && text.bytes().all(fits);
            let has_empty_parts = text.split('/').any(str::is_empty);
            if is_path && !has_empty_parts {
                Ok(format!("{text}/"))
            } else {
                Err("this is no path of variables")
            }
        })
    });
    let namespace = section.get("variables_namespace").map(|value| NamespaceName::read(&value));
    if path.is_none() && namespace.is_some() {
        let fault = Fault::error(
            section.key_place("variables_namespace"),
            "`variables_namespace` without `variables`",
        );
        section.report(fault.expected("expected both, or `variables` alone"));
    }
    let namespace = match namespace {
        None => "default".to_owned(),
        Some(namespace) => namespace.map(|NamespaceName(name)| name)?,
    };
    match path {
        None => Some(None),
        Some(prefix) => Some(Some(Variables { prefix: prefix?, namespace })),
    }
}

fn namespaces(section: &Section<'_>) -> Option<Namespaces> {
    let Some(value) = section.get("namespaces") else { return Some(Namespaces::All) };
    let single = [value];
    let list = value.as_list().unwrap_or_else(|| single.to_vec());
    if matches!(&list[..], [only] if only.as_text() == Some("*")) {
        return Some(Namespaces::All);
    }
    if list.is_empty() {
        value.reject("no namespace is named", "expected \"*\" for all, or at least one");
        return None;
    }
    let names: Vec<Option<NamespaceName>> = list.iter().map(NamespaceName::read).collect();
    let mut names: Vec<String> =
        names.into_iter().map(|name| name.map(|NamespaceName(name)| name)).collect::<Option<_>>()?;
    names.sort();
    names.dedup();
    Some(Namespaces::These(names))
}

impl Settings for NomadSettings {
    fn build(&self, name: &RegistryName, environment: &Environment) -> Result<Arc<dyn Registry>, BuildError> {
        let trust_domain = environment.trust_domain.clone();
        Ok(Arc::new(NomadRegistry::new(name.clone(), Self { trust_domain, ..self.clone() })))
    }
}

#[cfg(test)]
mod tests {
    use weft_core::config::{SourceFile, read as read_file};

    use super::*;

    fn read_text(text: &str) -> Result<String, Vec<String>> {
        let source = SourceFile::new("weft.toml", text.to_owned());
        let outcome = read_file(&source, |root| read(root));
        match outcome.value {
            Some(settings) => Ok(format!("{settings:?}")),
            None => Err(outcome.faults.iter().map(|fault| fault.message.clone()).collect()),
        }
    }

    #[test]
    fn a_section_is_read() {
        let shown = read_text("").unwrap();
        assert!(shown.contains("namespaces: All") && shown.contains("health_interval: 10s"), "{shown}");
        let shown = read_text(
            "namespaces = [\"b\", \"a\", \"b\"]\nregion = \"eu\"\naddress = \"https://nomad:4646\"",
        );
        let shown = shown.unwrap();
        assert!(shown.contains("These([\"a\", \"b\"])") && shown.contains("https://nomad:4646"), "{shown}");
        let shown = read_text("variables = \"weft/mesh/\"\nvariables_namespace = \"ops\"").unwrap();
        assert!(shown.contains("\"weft/mesh/\"") && shown.contains("\"ops\""), "{shown}");
        assert!(read_text("namespaces = \"*\"").unwrap().contains("All"));
        assert!(read_text("identity = \"ns/{namespace}/sa/{job}\"").is_ok());
    }

    #[test]
    fn a_token_that_others_can_read_is_warned_of() {
        let source =
            SourceFile::new("weft.toml", "address = \"http://nomad.example:4646\"\ntoken_env = \"T\"\n");
        let faults = read_file(&source, |root| read(root)).faults;
        assert!(faults[0].message.contains("`token_env`") && !faults[0].is_error(), "{faults:?}");
    }

    #[test]
    fn what_cannot_be_is_told() {
        for text in [
            "namespaces = [\"*\", \"a\"]",
            "namespaces = []",
            "namespaces = \"a/b\"",
            "region = \"\"",
            "variables = \"\"",
            "variables = \"a//b\"",
            "variables_namespace = \"ops\"",
            "health_interval = \"10ms\"",
            "identity = \"ns/{namespace}/sa/{pod}\"",
            "address = \"nomad:4646\"",
        ] {
            let faults = read_text(text).unwrap_err();
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        }
    }
}
