//! The operator's word where a registry's own is not enough: what it no longer mentions is gone indeed, and a port that
//! was once in TLS may speak plaintext again. Agents and hubs answer it alike, each for what it holds itself.

use std::fmt::Display;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use weft_core::{
    flow::FlowHandle,
    name::{PortName, RegistryName, ServiceKey},
};

use super::Answer;

/// Forgets what is unconfirmed: `POST`, with `registry=…` only of that one.
pub const FORGET: &str = "/registries/forget";
/// Allows plaintext again: `POST`, with `registry=…&service=…`, and `port=…` for only one of its ports.
pub const ALLOW_PLAINTEXT: &str = "/registries/allow-plaintext";

/// What became of [`FORGET`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// How many origins went.
    pub forgotten: usize,
}

/// What became of [`ALLOW_PLAINTEXT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// Whether any port was held to TLS.
    pub was_held: bool,
}

/// Answers either; none when something else is asked.
#[must_use]
pub fn answer(flow: &FlowHandle, method: &Method, path: &str, query: &str) -> Option<Answer> {
    if !matches!(path, FORGET | ALLOW_PLAINTEXT) {
        return None;
    }
    if method != Method::POST {
        return Some(Answer::error(StatusCode::METHOD_NOT_ALLOWED, "POST it"));
    }
    let answer = if path == FORGET { forget(flow, query) } else { allow_plaintext(flow, query) };
    Some(answer.unwrap_or_else(|fault| Answer::error(StatusCode::BAD_REQUEST, fault)))
}

fn forget(flow: &FlowHandle, query: &str) -> Result<Answer, String> {
    let registry: Option<RegistryName> = argument(query, "registry")?;
    let flow = flow.clone();
    Ok(Answer::later(async move {
        let forgotten = flow.drop_unconfirmed(registry).await;
        ended_or(forgotten.map(|forgotten| Forgotten { forgotten }))
    }))
}

fn allow_plaintext(flow: &FlowHandle, query: &str) -> Result<Answer, String> {
    let registry = argument(query, "registry")?.ok_or("expected registry=…")?;
    let service = argument(query, "service")?.ok_or("expected service=…")?;
    let port: Option<PortName> = argument(query, "port")?;
    let (flow, key) = (flow.clone(), ServiceKey { registry, service });
    Ok(Answer::later(async move {
        let held = flow.allow_plaintext(key, port).await;
        ended_or(held.map(|was_held| Allowed { was_held }))
    }))
}

fn ended_or(answer: Option<impl Serialize>) -> Answer {
    match answer {
        Some(answer) => Answer::json(&answer),
        None => Answer::error(StatusCode::SERVICE_UNAVAILABLE, "the process is ending"),
    }
}

/// One argument of a query. Names hold nothing that needs escaping.
fn argument<T: std::str::FromStr<Err: Display>>(query: &str, key: &str) -> Result<Option<T>, String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, text)) = pairs.find(|(found, _)| *found == key) else { return Ok(None) };
    text.parse().map(Some).map_err(|fault| format!("{key}={text}: {fault}"))
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc, time::Duration};

    use weft_core::{
        flow::{Flow, FlowConfig, Source, Status},
        publish::Reader,
        resource::TlsMode,
        table::Table,
    };
    use weft_registries::static_files::{StaticRegistry, StaticSettings};

    use super::*;
    use crate::admin::{Admin, Handler, client::AdminClient};

    struct Only(FlowHandle);

    impl Handler for Only {
        fn answer(&self, method: &Method, path: &str, query: &str) -> Answer {
            answer(&self.0, method, path, query).unwrap_or_else(Answer::not_found)
        }
    }

    fn put(folder: &Path, tls: &str) {
        let text = format!(
            "[[service]]\nname = \"db\"\nports = [{{ name = \"tcp\", number = 80 }}]\n\
             [[service.endpoint]]\naddress = \"10.0.0.1:80\"\n{tls}\n"
        );
        let beside = folder.join(".new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, folder.join("db.toml")).unwrap();
    }

    async fn until<T>(reader: &Reader<T>, holds: impl Fn(&T) -> bool) {
        let mut reader = reader.clone();
        let waited = async {
            while !holds(&reader.load_full()) {
                assert!(reader.changed().await);
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waited).await.expect("in time");
    }

    fn in_plaintext(table: &Table) -> bool {
        let endpoints =
            |it: &weft_core::table::Destination| it.ports[0].rules[0].targets[0].endpoints.clone();
        let found = table.destination("db").map(|it| endpoints(it));
        found.is_some_and(|set| set.all.iter().any(|it| it.endpoint.tls == TlsMode::Off))
    }

    fn unconfirmed(status: &Status) -> usize {
        status.registries[0].scopes.iter().map(|scope| scope.unconfirmed.len()).sum()
    }

    #[tokio::test]
    async fn the_operator_has_the_last_word_about_a_registry() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("mesh.d");
        std::fs::create_dir(&folder).unwrap();
        put(&folder, "mesh = \"10.0.0.1:15008\"\nidentity = \"spiffe://demo.mesh/ns/default/sa/db\"");
        let settings =
            StaticSettings { path: folder.clone(), poll: Duration::from_millis(100), allow_loopback: false };
        let registry = Arc::new(StaticRegistry::new(RegistryName::new("static").unwrap(), settings));
        let flow = Flow::new(FlowConfig::new(vec![Source::new(registry)]));
        let (tables, statuses) = (flow.tables(), flow.statuses());
        let (mut admin, socket) = (Admin::new(), parent.path().join("admin.sock"));
        admin.serve_unix(&socket, Arc::new(Only(flow.handle()))).unwrap();
        let _flow = tokio::spawn(flow.run(std::future::pending()));
        until(&statuses, Status::is_ready).await;

        put(&folder, "tls = \"off\"");
        until(&statuses, |status| !status.registries[0].scopes[0].faults.is_empty()).await;
        assert!(!in_plaintext(&tables.load()));
        let client = AdminClient::new(&socket);
        let ask = async |query: &str| {
            let answer = client.post::<Allowed>(&format!("{ALLOW_PLAINTEXT}?{query}")).await;
            answer.map(|answer| answer.was_held).map_err(|fault| fault.to_string())
        };
        assert_eq!(ask("registry=static&service=db&port=other").await, Ok(false));
        assert_eq!(ask("registry=static&service=db&port=tcp").await, Ok(true));
        until(&tables, in_plaintext).await;
        assert!(ask("registry=static").await.unwrap_err().contains("expected service"));
        assert!(ask("registry=static&service=d%20b").await.unwrap_err().contains("service=d%20b"));
        assert!(client.get::<Allowed>(ALLOW_PLAINTEXT).await.unwrap_err().to_string().contains("POST it"));

        std::fs::create_dir(parent.path().join("other")).unwrap();
        std::fs::rename(&folder, parent.path().join("away")).unwrap();
        std::fs::rename(parent.path().join("other"), &folder).unwrap();
        until(&statuses, |status| unconfirmed(status) == 1).await;
        let forget = async |query: &str| {
            client.post::<Forgotten>(&format!("{FORGET}{query}")).await.unwrap().forgotten
        };
        assert_eq!(forget("?registry=other").await, 0);
        assert_eq!(forget("").await, 1);
        assert!(tables.load().destination("db").is_none());
    }
}
