//! What a `kind = "consul"` section says.

use std::{env, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use weft_core::{
    config::{Fault, Readable, Section, Value},
    name::{HostName, RegistryName},
    registry::Registry,
};

use super::ConsulRegistry;
use crate::{
    credential::Credential,
    http_client::{ServerSettings, ServerUrl},
    plan::{BuildError, Environment, Settings},
    speaking::Rules,
};

/// Where Consul's own tools look when nobody says where the server is.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8500";
/// Where Consul's own tools find out where the server is when nobody says more.
const ADDRESS_VARIABLE: &str = "CONSUL_HTTP_ADDR";
/// Where they find a token then.
const TOKEN_VARIABLE: &str = "CONSUL_HTTP_TOKEN";
/// Names a file that holds the token. It comes before the variable that is the token.
const TOKEN_FILE_VARIABLE: &str = "CONSUL_HTTP_TOKEN_FILE";
/// How long a question waits for a change, before jitter. Consul allows ten minutes; a question that is answered twice a
/// minute shows an outage that the server hides, and costs eight answers a minute for all four.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// What a rule's template may name.
const WORDS: [&str; 2] = ["node", "datacenter"];

/// A registry's section, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulSettings {
    /// The agent or server that is asked.
    pub server: Arc<ServerSettings>,
    /// The token's place.
    pub credential: Credential,
    /// How a token is got where none is given.
    pub login: Option<LoginSettings>,
    /// Another datacenter than the server's own.
    pub datacenter: Option<String>,
    /// A peer, whose exported services are followed.
    pub peer: Option<String>,
    /// The domain of the platform's host names, `consul` unless the servers were told otherwise.
    pub domain: HostName,
    /// How long a question waits for a change.
    pub wait: Duration,
    /// Whether config entries and keys below `weft/` are read as routes and policies.
    pub configuration: bool,
    /// Whether who no intention mentions may call; what Consul says where nobody says.
    pub default_intention: Option<bool>,
    /// Which instances speak mesh, and as whom.
    pub rules: Rules,
}

/// How to log in by an auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSettings {
    /// The auth method's name.
    pub method: String,
    /// The file of what proves who we are to it, such as a JSON web token; read again for every login.
    pub token_file: PathBuf,
}

/// A name that goes into a query: what Consul calls a datacenter or a peer.
struct Word(String);

impl Readable for Word {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.parse("a name of letters, digits, '-' and '_'", |text| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            let good = !text.is_empty() && text.len() <= 63 && text.bytes().all(fits);
            good.then(|| Self(text.to_owned())).ok_or("this is no such name")
        })
    }
}

/// Reads the section.
#[must_use]
pub fn read(section: &Section<'_>) -> Option<Arc<dyn Settings>> {
    let server = ServerSettings::read_or_from(section, ADDRESS_VARIABLE, &default_address());
    let login = section.get("login").map(|value| LoginSettings::read(&value));
    let credential = credential(section);
    let datacenter = section.read("datacenter").map(|Word(word)| word);
    let peer = section.read("peer").map(|Word(word)| word);
    let domain = section.get("domain").map(|value| {
        value.parse("the domain of Consul's host names, such as \"consul\"", |text| {
            HostName::new(text.trim_end_matches('.'))
        })
    });
    let wait = section.read_or("wait", DEFAULT_WAIT);
    let configuration = section.read_or("configuration", false);
    let default_intention =
        section.get("default_intention").map(|value| value.word(&[("allow", true), ("deny", false)]));
    let rules = Rules::read(section, &WORDS);
    if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&wait) {
        let fault = Fault::error(section.key_place("wait"), "the wait is out of range");
        section.report(fault.expected("expected a duration from \"1s\" to \"60s\""));
        return None;
    }
    if login.is_some() && (section.has("token_file") || section.has("token_env")) {
        let fault = Fault::error(section.key_place("login"), "`login` beside a token");
        section.report(fault.expected("expected at most one of `login`, `token_file`, `token_env`"));
        return None;
    }
    if configuration && section.has("peer") {
        let fault = Fault::error(section.key_place("configuration"), "`configuration` beside `peer`");
        section
            .report(fault.expected("a peer exports services and no configuration: leave one of the two out"));
        return None;
    }
    if section.has("default_intention") && !configuration {
        let fault =
            Fault::error(section.key_place("default_intention"), "`default_intention` without intentions");
        section.report(fault.expected("expected `configuration = true` beside it"));
        return None;
    }
    if let Some(server) = &server
        && (login.is_some() || credential.as_ref().is_some_and(|it| *it != Credential::None))
    {
        let keys = ["login", "token_file", "token_env"];
        ServerSettings::warn_of_overheard(section, [server], &keys, TOKEN_VARIABLE);
    }
    let (login, default_intention) = match (login, default_intention) {
        (Some(None), _) | (_, Some(None)) => return None,
        (login, default) => (login.flatten(), default.flatten()),
    };
    let consul = || HostName::new("consul").ok();
    Some(Arc::new(ConsulSettings {
        server: Arc::new(server?),
        credential: if login.is_some() { Credential::None } else { credential? },
        login,
        datacenter,
        peer,
        domain: domain.unwrap_or_else(consul)?,
        wait,
        configuration,
        default_intention,
        rules: rules?,
    }))
}

/// The variable may lack the scheme, which `CONSUL_HTTP_SSL` then decides.
fn default_address() -> String {
    let secure = env::var("CONSUL_HTTP_SSL").is_ok_and(|text| text == "true" || text == "1");
    ServerUrl::from_variable(&env::var(ADDRESS_VARIABLE).unwrap_or_default(), secure, DEFAULT_ADDRESS)
}

/// Reads `token_file` and `token_env`; where neither is written, Consul's own variables say where the token is.
#[must_use]
pub fn credential(section: &Section<'_>) -> Option<Credential> {
    let is_written = section.has("token_file") || section.has("token_env");
    let file = env::var_os(TOKEN_FILE_VARIABLE).filter(|_| !is_written);
    Credential::read(section, TOKEN_VARIABLE).map(|credential| in_file(file, credential))
}

/// The token in the file that a variable names, else the other one.
fn in_file(file: Option<OsString>, other: Credential) -> Credential {
    file.filter(|path| !path.is_empty()).map_or(other, |path| Credential::File(path.into()))
}

impl LoginSettings {
    fn read(value: &Value<'_>) -> Option<Self> {
        let section =
            Section::open(value, "how to log in, such as { method = \"jwt\", token_file = \"…\" }")?;
        let method: Option<Word> = section.require("method", "the auth method's name");
        let token_file = section.require("token_file", "the file of the token that the method takes");
        Some(Self { method: method?.0, token_file: token_file? })
    }
}

impl Settings for ConsulSettings {
    /// Those of the own cluster alone: the agent that is asked keeps no other's.
    fn takes_announcements(&self) -> bool {
        self.peer.is_none()
    }

    fn build(&self, name: &RegistryName, environment: &Environment) -> Result<Arc<dyn Registry>, BuildError> {
        Ok(Arc::new(ConsulRegistry::new(name.clone(), Arc::new(self.clone()), environment)))
    }
}

#[cfg(test)]
mod tests {
    use weft_core::config::{SourceFile, read as read_file};

    use super::*;

    #[test]
    fn the_file_that_a_variable_names_comes_before_the_token_in_one() {
        let variable = || Credential::Variable(TOKEN_VARIABLE.into());
        assert_eq!(in_file(Some("/run/token".into()), variable()), Credential::File("/run/token".into()));
        assert_eq!(in_file(Some("".into()), variable()), variable());
        assert_eq!(in_file(None, Credential::None), Credential::None);
    }

    #[test]
    fn a_token_that_others_can_read_is_warned_of() {
        for (text, key) in [
            ("token_file = \"/t\"", "token_file"),
            ("login = { method = \"weft\", token_file = \"/t\" }", "login"),
        ] {
            let with = |address: &str| {
                let text = format!("address = \"{address}\"\n{text}\n");
                read_file(&SourceFile::new("weft.toml", text), |root| read(root)).faults
            };
            let faults = with("http://consul.example:8500");
            assert!(faults.len() == 1 && faults[0].message.contains(&format!("`{key}`")), "{faults:?}");
            assert!(!faults[0].is_error() && with("http://127.0.0.1:8500").is_empty());
        }
    }
}
