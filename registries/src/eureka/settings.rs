//! What a `kind = "eureka"` section says.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use weft_core::{
    config::{Fault, Readable, Section},
    identity::TrustDomain,
    locality::Locality,
    name::RegistryName,
    registry::Registry,
};

use super::EurekaRegistry;
use crate::{
    credential::Credential,
    http_client::{ServerSettings, ServerUrl},
    plan::{BuildError, Environment, Settings},
    speaking::Rules,
};

/// Where Eureka listens on its own machine when nobody says more.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8761/eureka";
/// How often changes are asked for. An answer without changes has eighty bytes; `pace` has the rest.
const DEFAULT_POLL: Duration = Duration::from_secs(1);
const POLL_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);

/// A registry's section, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EurekaSettings {
    /// The servers, which copy from each other: the first one is asked, the next one when it does not answer.
    pub servers: Vec<Arc<ServerSettings>>,
    /// The name for basic authentication, where the servers want one.
    pub username: Option<String>,
    /// The place of the password that goes with it.
    pub password: Credential,
    /// How often changes are asked for while there are none, before jitter.
    pub poll: Duration,
    /// The region of zones that do not say theirs.
    pub region: Option<String>,
    /// Which instances speak mesh, and as whom.
    pub rules: Rules,
    /// Completes identities that name no trust domain.
    pub trust_domain: Option<TrustDomain>,
}

/// Reads the section.
#[must_use]
pub fn read(section: &Section<'_>) -> Option<Arc<dyn Settings>> {
    let server = ServerSettings::read(section, DEFAULT_ADDRESS);
    let peers = section.list("peers", ServerUrl::read);
    let username = section.get("username").map(|value| {
        value.parse("a name without a colon", |text| {
            let fits = |c: char| !c.is_control() && c != ':';
            let good = !text.is_empty() && text.len() <= 256 && text.chars().all(fits);
            good.then(|| text.to_owned()).ok_or("this is no such name")
        })
    });
    let password = Credential::read_named(section, ("password_file", "password_env"), None);
    let poll = section.read_or("poll", DEFAULT_POLL);
    let region = section.get("region").map(|value| {
        value.parse("a region, such as \"eu\"", |text| match Locality::new(text) {
            Ok(locality) if !text.is_empty() && locality.region() == text => Ok(text.to_owned()),
            Ok(_) => Err("it is no region alone".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    });
    let rules = Rules::read(section, &[]);
    if !POLL_RANGE.contains(&poll) {
        let fault = Fault::error(section.key_place("poll"), "the poll interval is out of range");
        section.report(fault.expected("expected a duration from \"100ms\" to \"5m\""));
        return None;
    }
    let lone = match (username.is_some(), password != Some(Credential::None)) {
        (true, false) => Some(("username", "`username` without a password")),
        (false, true) if section.has("password_file") => {
            Some(("password_file", "a password without `username`"))
        }
        (false, true) if section.has("password_env") => {
            Some(("password_env", "a password without `username`"))
        }
        _ => None,
    };
    if let Some((key, message)) = lone {
        let fault = Fault::error(section.key_place(key), message);
        section.report(fault.expected("expected `username` with one of `password_file`, `password_env`"));
        return None;
    }
    let server = server?;
    let others: Vec<ServerSettings> =
        peers?.into_iter().map(|url| ServerSettings { url, ..server.clone() }).collect();
    let servers: Vec<ServerSettings> = [server].into_iter().chain(others).collect();
    if username.is_some() {
        let keys = ["password_file", "password_env"];
        ServerSettings::warn_of_overheard(section, &servers, &keys, "password");
    }
    Some(Arc::new(EurekaSettings {
        servers: servers.into_iter().map(Arc::new).collect(),
        username: match username {
            Some(username) => Some(username?),
            None => None,
        },
        password: password?,
        poll,
        region: match region {
            Some(region) => Some(region?),
            None => None,
        },
        rules: rules?,
        trust_domain: None,
    }))
}

impl Settings for EurekaSettings {
    fn takes_announcements(&self) -> bool {
        true
    }

    fn build(&self, name: &RegistryName, environment: &Environment) -> Result<Arc<dyn Registry>, BuildError> {
        let trust_domain = environment.trust_domain.clone();
        let settings = Self { trust_domain, ..self.clone() };
        Ok(Arc::new(EurekaRegistry::new(name.clone(), settings)))
    }
}
