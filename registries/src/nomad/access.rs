//! What the token may read, and so whether what is missing from a list is gone or hidden.
//!
//! Nomad answers a question about all namespaces with what the asker may read, and with an empty list and status 200 who
//! may read nothing. It answers a question about one namespace with 403, whether or not there is such a namespace: so
//! who may read a namespace that nobody has made may read all.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use weft_core::registry::{Completeness, RegistryError};

use super::{catalog::Name, client::Client, settings::Namespaces};

/// Nobody calls a namespace so.
const NO_NAMESPACE: &str = "weft-asks-whether-all-may-be-read";
/// How many namespaces are asked for at once.
const AT_ONCE: usize = 4;

/// The names of all services, as far as they may be read.
pub(super) struct Names {
    pub(super) services: BTreeSet<Name>,
    /// Of all services of the cluster.
    pub(super) index: u64,
    /// Namespaces that the file names and the token may not read.
    pub(super) denied: Vec<String>,
}

/// Lists the names.
pub(super) async fn list(client: &Client, namespaces: &Namespaces) -> Result<Names, RegistryError> {
    let Namespaces::These(wanted) = namespaces else {
        let listed = client.services("*").await?;
        return Ok(Names { services: names(listed.value), index: listed.index, denied: Vec::new() });
    };
    let client = client.clone();
    let asked = wanted.clone().into_iter().map(move |namespace| {
        let client = client.clone();
        Box::pin(async move {
            let answer = client.services(&namespace).await;
            (namespace, answer)
        })
    });
    let mut answers = stream::iter(asked).buffered(AT_ONCE);
    let (mut services, mut index, mut denied, mut refusal) = (BTreeSet::new(), None::<u64>, Vec::new(), None);
    while let Some((namespace, answer)) = answers.next().await {
        match answer {
            Ok(listed) => {
                services.extend(names(listed.value));
                index = Some(index.map_or(listed.index, |index| index.min(listed.index)));
            }
            Err(error @ RegistryError::Denied(_)) => {
                denied.push(namespace);
                refusal = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match (index, refusal) {
        (Some(index), _) => Ok(Names { services, index, denied }),
        (None, Some(refusal)) => Err(refusal),
        (None, None) => Err(RegistryError::Malformed("no namespace is followed".into())),
    }
}

fn names(listed: Vec<super::objects::NamespaceServices>) -> BTreeSet<Name> {
    let of = |list: super::objects::NamespaceServices| {
        let namespace = list.namespace;
        list.services.into_iter().map(move |service| (namespace.clone(), service.service_name))
    };
    listed.into_iter().flat_map(of).collect()
}

/// Whether the names are all there are, with what hides some where they are not. `before` are the namespaces that had
/// services the last time.
pub(super) async fn completeness(
    client: &Client,
    namespaces: &Namespaces,
    names: &Names,
    before: &BTreeSet<String>,
) -> Result<(Completeness, Option<String>), RegistryError> {
    if let Namespaces::These(_) = namespaces {
        if names.denied.is_empty() {
            return Ok((Completeness::Full, None));
        }
        let hidden = names.denied.iter().map(|namespace| right(namespace)).collect::<Vec<_>>().join(", ");
        return Ok((Completeness::Filtered, Some(format!("the token lacks {hidden}"))));
    }
    let all = may_read_all(client).await?;
    if !all && names.services.is_empty() && client.namespaces().await?.is_empty() {
        let who = match client.who().await? {
            Some(token) => format!("the token {:?} ({})", token.name, token.accessor_id),
            None => "this client".into(),
        };
        let message = format!("{who} may read no namespace; it needs {}", right("*"));
        return Err(RegistryError::Denied(message));
    }
    if !all {
        let message = format!(
            "the token lacks {}: what it may not read is hidden, so what is missing is kept for a while; name the \
             namespaces that it may read (namespaces = […]), or give it that right",
            right("*")
        );
        return Ok((Completeness::Filtered, Some(message)));
    }
    // A rule for one namespace comes before the one for all.
    let seen: BTreeSet<&String> = names.services.iter().map(|(namespace, _)| namespace).collect();
    let missing: Vec<&String> = before.iter().filter(|namespace| !seen.contains(namespace)).collect();
    for namespace in missing {
        if !client.may_read_services(namespace).await? {
            return Ok((Completeness::Filtered, Some(format!("the token lacks {}", right(namespace)))));
        }
    }
    Ok((Completeness::Full, None))
}

/// Whether the services of every namespace may be read, but for those that a rule of their own hides.
pub(super) async fn may_read_all(client: &Client) -> Result<bool, RegistryError> {
    client.may_read_services(NO_NAMESPACE).await
}

/// What a token needs to follow a namespace, in Nomad's words.
pub(super) fn right(namespace: &str) -> String {
    format!("namespace \"{namespace}\" {{ capabilities = [\"read-job\"] }}")
}
