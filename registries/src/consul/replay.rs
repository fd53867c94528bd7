//! What Consul said, read without a server: for recorded answers and for fuzzing.

use serde::Deserialize;
use serde_json::Value;
use weft_core::{identity::TrustDomain, name::HostName};

use super::{
    configuration::Part,
    configured::Configured,
    convert::{self, Surroundings},
    known::{self, Known},
    objects::Entry,
};
use crate::{speaking::Rules, told::Listing};

/// A line of what was said: the instances of a service, or a list of configuration by its path.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Service(String, Vec<Entry>),
    Configuration(String, Vec<Value>),
    DefaultDeny(bool),
}

/// Reads lines such as `{"service":["web",[…]]}`, the answer to `/v1/health/service/web`, and
/// `{"configuration":["/v1/config/service-router",[…]]}`. Lines that cannot be read are passed over.
#[must_use]
pub fn replay(text: &str, trust_domain: &TrustDomain) -> Listing {
    let Ok(domain) = HostName::new("consul") else { return Listing::new() };
    let around = Surroundings {
        rules: Rules::default(),
        trust_domain: Some(trust_domain.clone()),
        may_name: None,
        domain,
        datacenter: None,
        peer: None,
    };
    let lines: Vec<Line> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let (mut known, mut configured) = (Known::default(), Configured::default());
    let (mut services, mut default_deny) = (Vec::new(), false);
    for line in lines {
        match line {
            Line::Service(name, entries) => services.push((known::service_name(&name), entries)),
            Line::DefaultDeny(denies) => default_deny = denies,
            Line::Configuration(path, list) => {
                if let Some(part) = Part::ALL.into_iter().find(|part| part.path() == path) {
                    configured.hear(part, list, default_deny, &mut known);
                }
            }
        }
    }
    let mut listing = Listing::new();
    for (name, entries) in services {
        let words = match convert::checked_name(&name) {
            Ok(service) => convert::service(&service, &entries, configured.protocol(&name), &around),
            Err(words) => words,
        };
        configured.note(&name, Some(&words));
        listing.insert(convert::origin(&name), words);
    }
    listing.extend(configured.tell(Some(trust_domain)).0);
    listing
}
