//! What the token may read, and so whether what is missing from a list is gone or hidden.
//!
//! Nomad answers a question about all namespaces with what the asker may read, and with an empty list and status 200 who
//! may read nothing. It answers a question about one namespace with 403, whether or not there is such a namespace: so
//! who may read a namespace that nobody has made may read all, but for those that a rule of their own hides. Which rules
//! there are the token may read: they are its own.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{StreamExt, stream};
use weft_core::registry::{Completeness, RegistryError};

use super::{
    catalog::Name,
    client::Client,
    objects::{Elements, NamespaceServices, ServiceStub},
    settings::Namespaces,
};
use crate::names::quoted;

/// Nobody calls a namespace so.
const NO_NAMESPACE: &str = "weft-asks-whether-all-may-be-read";
/// How many things that make no sense are told one by one, and how many characters of each.
const MOST_TOLD: usize = 5;
const MAX_WHY: usize = 200;
/// How many namespaces are asked for at once.
const AT_ONCE: usize = 4;

/// The names of all services, as far as they may be read.
pub(super) struct Names {
    pub(super) services: BTreeSet<Name>,
    /// Of all services of the cluster.
    pub(super) index: u64,
    /// Namespaces that the file names and the token may not read.
    pub(super) denied: Vec<String>,
    /// What in the list makes no sense: any service may be meant by it.
    pub(super) odd: Vec<String>,
}

impl Names {
    fn namespaces(&self) -> BTreeSet<&str> {
        self.services.iter().map(|name| name.0.as_str()).collect()
    }
}

/// Lists the names.
pub(super) async fn list(client: &Client, namespaces: &Namespaces) -> Result<Names, RegistryError> {
    let Namespaces::These(wanted) = namespaces else {
        let listed = refused(client, client.services("*").await).await?;
        let (services, odd) = names(&listed.value);
        return Ok(Names { services, index: listed.index, denied: Vec::new(), odd });
    };
    let asking = client.clone();
    let asked = wanted.clone().into_iter().map(move |namespace| {
        let client = asking.clone();
        Box::pin(async move {
            let answer = client.services(&namespace).await;
            (namespace, answer)
        })
    });
    let mut answers = stream::iter(asked).buffered(AT_ONCE);
    let (mut services, mut index, mut denied, mut refusal) = (BTreeSet::new(), None::<u64>, Vec::new(), None);
    let mut odd = Vec::new();
    while let Some((namespace, answer)) = answers.next().await {
        match answer {
            Ok(listed) => {
                let read = names(&listed.value);
                services.extend(read.0);
                odd.extend(read.1);
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
        (Some(index), _) => Ok(Names { services, index, denied, odd }),
        (None, Some(refusal)) => refused(client, Err(refusal)).await,
        (None, None) => Err(RegistryError::Malformed("no namespace is followed".into())),
    }
}

/// Says of a refusal whether it is the token itself that is refused.
async fn refused<T>(client: &Client, answer: Result<T, RegistryError>) -> Result<T, RegistryError> {
    if matches!(answer, Err(RegistryError::Denied(_))) {
        client.check_token().await?;
    }
    answer
}

/// The names of a list, and what in it makes no sense.
fn names(listed: &Elements) -> (BTreeSet<Name>, Vec<String>) {
    let (mut names, mut odd) = (BTreeSet::new(), Vec::new());
    for element in listed {
        let NamespaceServices { namespace, services } = match serde_json::from_str(element.get()) {
            Ok(list) => list,
            Err(error) => {
                odd.push(shortened(&error.to_string()));
                continue;
            }
        };
        for service in services {
            match serde_json::from_str::<ServiceStub>(service.get()) {
                Ok(service) if !service.service_name.is_empty() => {
                    names.insert((namespace.clone(), service.service_name).into());
                }
                Ok(_) => odd.push(format!("a service of the namespace {} has no name", quoted(&namespace))),
                Err(error) => {
                    let why = shortened(&error.to_string());
                    odd.push(format!("a service of the namespace {}: {why}", quoted(&namespace)));
                }
            }
        }
    }
    (names, odd)
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_WHY).collect()
}

/// Namespaces that had services the last time all were seen, and those that showed some since. Clones are one: whatever
/// follows anew, after an error, still knows what should be there.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<BTreeSet<String>>>);

impl Seen {
    fn take(&self, names: &Names, completeness: Completeness) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What is hidden is asked for until it is seen again.
        if completeness == Completeness::Full {
            seen.clear();
        }
        seen.extend(names.namespaces().into_iter().map(str::to_owned));
    }

    /// Adds a namespace of which a service was read: no later list may lack it unasked.
    pub(super) fn add(&self, namespace: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(namespace) {
            seen.insert(namespace.to_owned());
        }
    }

    /// Whether just these namespaces have services, as before.
    pub(super) fn is(&self, names: &Names) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(String::as_str).eq(names.namespaces())
    }

    fn without(&self, names: &Names) -> Vec<String> {
        let (seen, shown) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), names.namespaces());
        seen.iter().filter(|namespace| !shown.contains(namespace.as_str())).cloned().collect()
    }
}

/// Whether the names are all there are, with what hides some where they are not, or with what is odd about it. `before`
/// are the namespaces that had services the last time.
pub(super) async fn judge(
    client: &Client,
    namespaces: &Namespaces,
    names: &Names,
    before: &Seen,
) -> Result<(Completeness, Option<String>), RegistryError> {
    let judged = match namespaces {
        Namespaces::These(wanted) => judge_these(client, wanted, names).await?,
        Namespaces::All => judge_all(client, names, before).await?,
    };
    let judged = doubted(judged, &names.odd);
    before.take(names, judged.0);
    Ok(judged)
}

/// What makes no sense in the list may be whatever is missing from it.
fn doubted(
    (completeness, told): (Completeness, Option<String>),
    odd: &[String],
) -> (Completeness, Option<String>) {
    if odd.is_empty() {
        return (completeness, told);
    }
    let more = odd.len().saturating_sub(MOST_TOLD);
    let mut all = odd[..odd.len() - more].join("; ");
    if more > 0 {
        all += &format!("; and {more} more");
    }
    let message = format!(
        "the list of services has what makes no sense, so what is missing is kept for a while: {all}"
    );
    (Completeness::Filtered, Some(told.into_iter().chain([message]).collect::<Vec<_>>().join("; ")))
}

async fn judge_these(
    client: &Client,
    wanted: &[String],
    names: &Names,
) -> Result<(Completeness, Option<String>), RegistryError> {
    if !names.denied.is_empty() {
        return Ok((Completeness::Filtered, Some(lacks(names.denied.iter()))));
    }
    let shown = names.namespaces();
    let mut absent = Vec::new();
    for namespace in wanted.iter().filter(|namespace| !shown.contains(namespace.as_str())) {
        if !client.has_namespace(namespace).await? {
            absent.push(format!("\"{namespace}\""));
        }
    }
    let absent = (!absent.is_empty()).then(|| format!("there is no namespace {}", absent.join(", ")));
    Ok((Completeness::Full, absent))
}

async fn judge_all(
    client: &Client,
    names: &Names,
    before: &Seen,
) -> Result<(Completeness, Option<String>), RegistryError> {
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
    let mut hidden = hidden(client).await?;
    // Where rules cannot be read, what vanished tells.
    for namespace in before.without(names) {
        if !hidden.contains(&namespace) && !client.may_read_services(&namespace).await? {
            hidden.push(namespace);
        }
    }
    if hidden.is_empty() {
        return Ok((Completeness::Full, None));
    }
    let message = format!(
        "{}: a rule for one namespace goes before the one for all, so what is missing is kept for a while; give it that \
         right, or name the namespaces that it may read (namespaces = […])",
        lacks(hidden.iter())
    );
    Ok((Completeness::Filtered, Some(message)))
}

fn lacks<'n>(namespaces: impl Iterator<Item = &'n String>) -> String {
    let rights: Vec<String> = namespaces.map(|namespace| right(namespace)).collect();
    format!("the token lacks {}", rights.join(", "))
}

/// Namespaces, or patterns of them, whose services the token may not read although it may read those of all: a rule that
/// names one goes before the one for all, and whatever it does not give is taken away. Such as there are none of are left
/// out.
pub(super) async fn hidden(client: &Client) -> Result<Vec<String>, RegistryError> {
    let mut hidden = Vec::new();
    for rule in client.ruled_namespaces().await? {
        let is_pattern = rule.contains('*');
        let asked = if is_pattern { rule.replace('*', NO_NAMESPACE) } else { rule.clone() };
        if !client.may_read_services(&asked).await? && (is_pattern || client.has_namespace(&rule).await?) {
            hidden.push(rule);
        }
    }
    Ok(hidden)
}

/// Whether the services of every namespace may be read, but for those that a rule of their own hides.
pub(super) async fn may_read_all(client: &Client) -> Result<bool, RegistryError> {
    client.may_read_services(NO_NAMESPACE).await
}

/// What a token needs to follow a namespace, in Nomad's words.
pub(super) fn right(namespace: &str) -> String {
    format!("namespace \"{namespace}\" {{ capabilities = [\"read-job\"] }}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_in_the_list_costs_no_other_service_and_is_told() {
        let listed = r#"[
            {"Namespace": "default", "Services": [{"ServiceName": "web", "Tags": ["a"]}, {"ServiceName": 7}, [], {}]},
            {"Namespace": 5, "Services": [{"ServiceName": "lost"}]}, null, "x", {"Namespace": "none", "Services": null},
            {"Namespace": "odd", "Services": 3}, {"Namespace": "shop", "Services": [null, {"ServiceName": "cart"}]}
        ]"#;
        let (read, odd) = names(&serde_json::from_str(listed).unwrap());
        let read: Vec<String> = read.iter().map(|name| format!("{}/{}", name.0, name.1)).collect();
        assert_eq!(read, ["default/web", "shop/cart"]);
        assert_eq!(odd.len(), 8, "{odd:?}");
        assert!(odd[0].contains("\"default\"") && odd[0].contains("integer `7`"), "{odd:?}");
        assert_eq!(doubted((Completeness::Full, None), &[]), (Completeness::Full, None));
        let (completeness, told) = doubted((Completeness::Full, Some("first".into())), &odd);
        let told = told.unwrap();
        assert_eq!(completeness, Completeness::Filtered, "any of them may be a service that is missing");
        assert!(
            told.starts_with("first; ") && told.contains("integer `7`") && told.ends_with("and 3 more"),
            "{told}"
        );
    }
}
