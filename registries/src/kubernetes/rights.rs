//! The rights that are needed, asked for one by one: does the API server allow us this verb on this resource?

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use http::Request;
use kube::core::{Request as Path, params::PostParams};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use weft_core::registry::{RegistryError, Right};

use super::{
    client::{Client, connect},
    feed::{Feed, Selector},
    objects::{Kind, Place},
    settings::KubernetesSettings,
};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// Reviews under way at a time.
const AT_ONCE: usize = 4;
/// So many services of a namespace are asked for by name, each by a watch, which is a connection, for a question can name
/// but one. More are picked from all of the namespace.
const MAX_NAMED: usize = 16;

/// Everything that is followed.
pub(super) fn feeds(settings: &KubernetesSettings) -> Vec<Feed> {
    let (streams_lists, is_back) = (Arc::new(AtomicBool::new(true)), Arc::<Notify>::default());
    let mut feeds = Vec::new();
    let mut add = |place: Place, labels: Option<String>| {
        let fields = match (&place.name, place.kind) {
            (Some(name), _) => Some(format!("metadata.name={name}")),
            // A pod that has run to its end is no endpoint.
            (None, Kind::Pods) => Some("status.phase!=Succeeded,status.phase!=Failed".to_owned()),
            (None, _) => None,
        };
        feeds.push(Feed {
            place,
            selector: Selector { labels, fields },
            streams_lists: streams_lists.clone(),
            is_back: is_back.clone(),
        });
    };
    add(Place::all(Kind::Nodes, None), None);
    match &settings.narrow {
        None => {
            for kind in [Kind::Services, Kind::Slices, Kind::Pods] {
                add(Place::all(kind, None), None);
            }
        }
        Some(narrow) => {
            for (namespace, services) in narrow.parts() {
                let all = |kind| Place::all(kind, Some(namespace));
                let named = services.filter(|names| names.len() <= MAX_NAMED);
                match named {
                    None => add(all(Kind::Services), None),
                    Some(names) => names.iter().for_each(|name| {
                        add(Place { name: Some(name.clone()), ..all(Kind::Services) }, None);
                    }),
                }
                let names =
                    services.map(|names| names.iter().map(String::as_str).collect::<Vec<_>>().join(","));
                add(all(Kind::Slices), names.map(|names| format!("kubernetes.io/service-name in ({names})")));
                // Which pods are a service's is said by its slices, and other ones with every roll-out.
                add(all(Kind::Pods), None);
            }
        }
    }
    if settings.configuration {
        let places: BTreeSet<Option<&str>> = match &settings.narrow {
            None => [None].into(),
            // What holds for the whole mesh holds for a part of it too.
            Some(narrow) => {
                let parts = narrow.parts().map(|(namespace, _)| Some(namespace));
                parts.chain([Some(settings.root_namespace.as_str())]).collect()
            }
        };
        for (place, kind) in places.into_iter().flat_map(|it| [(it, Kind::Routes), (it, Kind::Policies)]) {
            add(Place::all(kind, place), None);
        }
    }
    feeds
}

/// Asks for all of them.
pub(super) async fn ask(settings: &KubernetesSettings) -> Result<Vec<Right>, RegistryError> {
    let client = connect(&settings.access()).await?;
    let feeds = feeds(settings);
    let verbs = |kind: Kind| -> &[(&'static str, &'static str)] {
        if kind.is_configuration() && settings.write_status {
            &[("list", ""), ("watch", ""), ("patch", "status")]
        } else {
            &[("list", ""), ("watch", "")]
        }
    };
    let wanted = feeds.iter().flat_map(|feed| {
        verbs(feed.place.kind).iter().map(|(verb, subresource)| (feed.place.clone(), *verb, *subresource))
    });
    let asked = wanted.map(|(place, verb, subresource)| review(&client, place, verb, subresource));
    stream::iter(asked.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await
}

async fn review(
    client: &Client,
    place: Place,
    verb: &str,
    subresource: &str,
) -> Result<Right, RegistryError> {
    let given = match client.short("review our rights", question(&place, verb, subresource)?).await {
        Ok(answer) => serde_json::from_slice::<Review>(&answer).ok().map(|review| review.status.allowed),
        // Whoever may not ask is told nothing; the list itself will tell.
        Err(RegistryError::Denied(_) | RegistryError::Malformed(_)) => None,
        Err(error) => return Err(error),
    };
    let slash = if subresource.is_empty() { "" } else { "/" };
    let what = format!("{verb} {}{slash}{subresource}", place.resource());
    let name = match &place.namespace {
        Some(namespace) => format!("{what} in namespace {namespace}"),
        None => what,
    };
    // Without nodes all else is followed. Conditions are asked for by who has them written.
    let optional = place.kind == Kind::Nodes;
    let needed_for = if subresource.is_empty() { needed_for(place.kind) } else { "conditions in objects" };
    Ok(Right { name, given, needed_for: needed_for.into(), optional })
}

fn question(place: &Place, verb: &str, subresource: &str) -> Result<Request<Vec<u8>>, RegistryError> {
    let attributes = json!({
        "verb": verb,
        "group": place.kind.group(),
        "resource": place.kind.plural(),
        "subresource": subresource,
        "namespace": place.namespace.as_deref().unwrap_or_default(),
        "name": place.name.as_deref().unwrap_or_default(),
    });
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": attributes },
    });
    let body = serde_json::to_vec(&review).map_err(|error| RegistryError::Malformed(error.to_string()))?;
    let request = Path::new(REVIEWS).create(&PostParams::default(), body);
    request.map_err(|error| RegistryError::Malformed(error.to_string()))
}

fn needed_for(kind: Kind) -> &'static str {
    match kind {
        Kind::Services => "services and their ports",
        Kind::Slices => "endpoints and their health",
        Kind::Pods => "labels, mesh ports and identities of endpoints",
        Kind::Nodes => "regions, and zones that slices do not name",
        Kind::Routes => "routes",
        Kind::Policies => "policies",
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Answer,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    allowed: bool,
}
