//! What the hub's admin sockets answer.

mod metrics;

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::Method;
use weft_core::{
    flow::{FlowHandle, Status},
    merge::Snapshot,
    publish::Reader,
};

use super::{
    announced::Announcements,
    authority::AuthorityFolder,
    office::Office,
    operator::{
        OperatorError, TokenWish, create_token, list_nodes, list_tokens, remove_node, revoke_token, roots,
    },
    roster::Roster,
    store::StoreError,
};
use crate::{
    admin::{Answer, Handler, pages, word},
    view::{Version, hub::HubStatus},
};

/// What everyone may ask.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) folder: AuthorityFolder,
    pub(super) office: Arc<Office>,
    pub(super) roster: Arc<Roster>,
    /// None where nodes may announce nothing.
    pub(super) announcements: Option<Arc<Announcements>>,
    /// Whether other hubs may have the same nodes.
    pub(super) shares_store: bool,
    pub(super) statuses: Reader<Status>,
    pub(super) snapshots: Reader<Snapshot>,
    pub(super) flow: FlowHandle,
    pub(super) began: Instant,
}

/// What the operator may ask: all of it.
#[derive(Clone, Debug)]
pub(super) struct Operator(pub(super) Arc<Page>);

impl Page {
    fn missing(&self) -> Vec<String> {
        self.statuses.load().missing().map(|name| format!("registry {name}")).collect()
    }
}

impl Handler for Page {
    fn answer(&self, method: &Method, path: &str, _query: &str) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            return Answer::not_found();
        }
        match path {
            "/livez" => Answer::text("ok\n"),
            "/readyz" => Answer::ready_unless(&self.missing()),
            "/version" => Answer::json(&Version::current()),
            "/metrics" => Answer::text(metrics::render(self)),
            _ => Answer::not_found(),
        }
    }
}

impl Handler for Operator {
    fn answer(&self, method: &Method, path: &str, query: &str) -> Answer {
        let (this, query) = (self.clone(), query.to_owned());
        let records = || this.0.office.records().clone();
        match (method.as_str(), path) {
            ("POST", "/tokens") => Answer::later(async move { this.create(&query).await }),
            ("GET", "/tokens") => {
                let records = records();
                Answer::later(async move { said(list_tokens(&records).await) })
            }
            ("POST", "/tokens/revoke") => {
                let records = records();
                Answer::later(async move {
                    said(async { revoke_token(&records, argument(&query, "id")?).await }.await)
                })
            }
            ("GET", "/nodes") => Answer::later(async move { said(this.nodes(SystemTime::now()).await) }),
            ("POST", "/nodes/remove") => {
                Answer::later(
                    async move { said(async { this.remove(argument(&query, "name")?).await }.await) },
                )
            }
            ("GET", "/status") => Answer::later(async move { said(this.status().await) }),
            _ => word::answer(&self.0.flow, method, path, &query)
                .unwrap_or_else(|| self.0.answer(method, path, &query)),
        }
    }
}

impl Operator {
    async fn create(&self, query: &str) -> Answer {
        let office = &self.0.office;
        let authority = office.authority();
        let root = authority.roots().first().map(|root| root.to_vec()).unwrap_or_default();
        let made = match TokenWish::from_query(query) {
            Ok(wish) => create_token(office.records(), authority.trust_domain(), &root, &wish).await,
            Err(fault) => Err(fault),
        };
        match made {
            Ok(token) => Answer::json(&serde_json::json!({ "token": token.to_text() })),
            Err(fault) => Answer::error(fault.status(), fault),
        }
    }

    /// Every node, with whether it is connected.
    async fn nodes(&self, now: SystemTime) -> Result<Vec<crate::view::hub::Node>, StoreError> {
        let mut nodes = list_nodes(self.0.office.records(), now).await?;
        let connected = self.0.roster.connected();
        for node in &mut nodes {
            node.elsewhere = match &self.0.announcements {
                Some(announcements) => Some(announcements.is_elsewhere(&node.name)),
                None => (!self.0.shares_store).then_some(false),
            };
            if let Some(stream) = connected.get(&node.name) {
                node.from = Some(stream.from);
                node.connected_for_s = now.duration_since(stream.since).ok().map(|since| since.as_secs());
            }
        }
        Ok(nodes)
    }

    /// The records first: a stream that begins behind that is refused.
    async fn remove(&self, name: &str) -> Result<String, OperatorError> {
        let removed = remove_node(self.0.office.records(), name).await?;
        self.0.roster.end(name);
        Ok(removed)
    }

    async fn status(&self) -> Result<HubStatus, OperatorError> {
        let page = &self.0;
        let (authority, now) = (page.office.authority(), SystemTime::now());
        // Without the store there is all the more to be seen.
        let (nodes, fault) = match self.nodes(now).await {
            Ok(nodes) => (nodes, None),
            Err(fault) => (Vec::new(), Some(format!("the nodes are not known: {fault}"))),
        };
        let (folder, held) = (page.folder.clone(), authority.clone());
        let roots = tokio::task::spawn_blocking(move || roots(&folder, &held, now)).await;
        let roots = roots.map_err(|fault| StoreError::Failed(fault.to_string()))??;
        let announced = page.announcements.as_ref().map(|it| it.diagnostics()).unwrap_or_default();
        let announced = announced.into_iter().map(|what| format!("announcements: {what}"));
        let (status, snapshot) = (page.statuses.load_full(), page.snapshots.load_full());
        let diagnostics = status.diagnostics.iter().map(ToString::to_string);
        Ok(HubStatus {
            version: Version::current().version,
            pid: std::process::id(),
            uptime_s: page.began.elapsed().as_secs(),
            trust_domain: authority.trust_domain().to_string(),
            intermediate_ends_in_s: pages::seconds_until(authority.intermediate_ends(), now),
            roots,
            missing: page.missing(),
            registries: pages::registries(&status, &pages::counts(&snapshot)),
            nodes,
            diagnostics: diagnostics.chain(announced).chain(fault).collect(),
        })
    }
}

/// The one argument of a request. Names and digests hold nothing that needs escaping.
fn argument<'q>(query: &'q str, key: &str) -> Result<&'q str, OperatorError> {
    let value = query.split_once('=').filter(|(found, _)| *found == key).map(|(_, value)| value);
    value.ok_or_else(|| OperatorError::Query(format!("expected {key}=…")))
}

fn said<T: serde::Serialize>(outcome: Result<T, impl Into<OperatorError>>) -> Answer {
    match outcome.map_err(Into::into) {
        Ok(value) => Answer::json(&value),
        Err(fault) => Answer::error(fault.status(), fault),
    }
}
