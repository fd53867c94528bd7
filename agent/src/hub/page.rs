//! What the hub's admin sockets answer.

mod metrics;

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{Method, StatusCode};
use weft_core::{
    flow::{FlowHandle, Status},
    publish::Reader,
    table::Table,
};

use super::{
    authority::AuthorityFolder,
    office::Office,
    operator::{
        OperatorError, TokenWish, create_token, list_nodes, list_tokens, remove_node, revoke_token, roots,
    },
    roster::Roster,
    store::Store,
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
    pub(super) statuses: Reader<Status>,
    pub(super) tables: Reader<Table>,
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

type Question = fn(&Operator, &str) -> Answer;

impl Handler for Operator {
    /// What needs the store waits for the disk, so it is answered on a thread that may.
    fn answer(&self, method: &Method, path: &str, query: &str) -> Answer {
        let question: Question = match (method.as_str(), path) {
            ("POST", "/tokens") => Self::create,
            ("GET", "/tokens") => |this, _| said(list_tokens(this.store())),
            ("POST", "/tokens/revoke") => {
                |this, query| said(argument(query, "id").and_then(|id| revoke_token(this.store(), id)))
            }
            ("GET", "/nodes") => {
                |this, _| said(list_nodes(this.store(), SystemTime::now()).map(|nodes| this.present(nodes)))
            }
            ("POST", "/nodes/remove") => {
                |this, query| said(argument(query, "name").and_then(|name| this.remove(name)))
            }
            ("GET", "/status") => |this, _| said(this.status()),
            _ => {
                return word::answer(&self.0.flow, method, path, query)
                    .unwrap_or_else(|| self.0.answer(method, path, query));
            }
        };
        let (this, query) = (self.clone(), query.to_owned());
        let answer = tokio::task::spawn_blocking(move || question(&this, &query));
        Answer::later(async move {
            let failed = |error| Answer::error(StatusCode::INTERNAL_SERVER_ERROR, error);
            answer.await.unwrap_or_else(failed)
        })
    }
}

impl Operator {
    fn store(&self) -> &dyn Store {
        &**self.0.office.store()
    }

    fn create(&self, query: &str) -> Answer {
        let office = &self.0.office;
        let authority = office.authority();
        let root = authority.roots().first().map(|root| root.to_vec()).unwrap_or_default();
        let made = TokenWish::from_query(query)
            .and_then(|wish| create_token(&**office.store(), authority.trust_domain(), &root, &wish));
        match made {
            Ok(token) => Answer::json(&serde_json::json!({ "token": token.to_text() })),
            Err(fault) => Answer::error(StatusCode::BAD_REQUEST, fault),
        }
    }

    /// Adds to each node whether it is connected.
    fn present(&self, mut nodes: Vec<crate::view::hub::Node>) -> Vec<crate::view::hub::Node> {
        let (connected, now) = (self.0.roster.connected(), SystemTime::now());
        for node in &mut nodes {
            if let Some(stream) = connected.get(&node.name) {
                node.from = Some(stream.from);
                node.connected_for_s = now.duration_since(stream.since).ok().map(|since| since.as_secs());
            }
        }
        nodes
    }

    /// The store first: a stream that begins behind that is refused.
    fn remove(&self, name: &str) -> Result<String, OperatorError> {
        let removed = remove_node(&**self.0.office.store(), name)?;
        self.0.roster.end(name);
        Ok(removed)
    }

    fn status(&self) -> Result<HubStatus, OperatorError> {
        let page = &self.0;
        let (authority, now) = (page.office.authority(), SystemTime::now());
        let (status, table) = (page.statuses.load_full(), page.tables.load_full());
        Ok(HubStatus {
            version: Version::current().version,
            pid: std::process::id(),
            uptime_s: page.began.elapsed().as_secs(),
            trust_domain: authority.trust_domain().to_string(),
            intermediate_ends_in_s: pages::seconds_until(authority.intermediate_ends(), now),
            roots: roots(&page.folder, &authority, now)?,
            missing: page.missing(),
            registries: pages::registries(&status, &pages::counts(&table)),
            nodes: self.present(list_nodes(&**page.office.store(), now)?),
            diagnostics: status.diagnostics.iter().map(ToString::to_string).collect(),
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
