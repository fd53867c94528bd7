//! What an operator asks of a hub: tokens, nodes, roots, and what is known.
//!
//! The store has one owner. While a hub runs it is the owner, and the operator's verbs reach it through its socket in the
//! state directory; while none runs they open the store themselves. Both ways end in the same functions.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use weft_core::{
    control::{HeldCertificate, node_account},
    identity::{SYSTEM_NAMESPACE, SpiffeId, TrustDomain},
    name::NameError,
};

use super::{
    authority::{Authority, AuthorityFolder, FolderError},
    records::{KnownNode, Records, SecretHash, TokenRecord},
    store::StoreError,
    token::{Token, sha256},
};
use crate::{admin::pages::seconds_until, view::hub as view};

/// How long a token is good for, unless said otherwise.
pub const DEFAULT_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// A wish for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWish {
    /// The identities that the node may ask certificates for.
    pub identities: Vec<SpiffeId>,
    /// The only node that may use it.
    pub node: Option<String>,
    /// For how long it can be used.
    pub lifetime: Duration,
    /// Where the joining host finds the hub; empty when it is told otherwise.
    pub hub: String,
}

/// Why no node can be called so.
#[derive(Debug, thiserror::Error)]
pub enum NodeNameError {
    /// No identity can hold it.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What one node announces could be another one's.
    #[error("{0:?}: a node's name holds no dot; take its first part")]
    Dot(String),
}

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum TokenWishError {
    /// An identity of another mesh.
    #[error("{0} is not of this mesh's trust domain {1}")]
    TrustDomain(SpiffeId, TrustDomain),
    /// An identity of Weft's own.
    #[error("{0} is in the namespace weft-system, which is Weft's own")]
    System(SpiffeId),
    /// A name that no node can have.
    #[error("the node's name: {0}")]
    Node(#[from] NodeNameError),
    /// It would outlast the calendar.
    #[error("the token's lifetime is too long")]
    Lifetime,
    /// The wish cannot be read.
    #[error("cannot read the request: {0}")]
    Query(String),
    /// The store failed.
    #[error("{}{}", .0, advice_on(.0))]
    Store(#[from] StoreError),
}

/// Why a hub does not do what its operator asks.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The request cannot be read.
    #[error("cannot read the request: {0}")]
    Query(String),
    /// No such node.
    #[error("no node {0} has joined here; `weft ca node list` names those that have")]
    NoNode(String),
    /// No such token.
    #[error("no token begins with {0:?}; `weft ca token list` names those that there are")]
    NoToken(String),
    /// Several such tokens.
    #[error("{1} tokens begin with {0:?}; give more of it")]
    ManyTokens(String, usize),
    /// The store failed.
    #[error("{}{}", .0, advice_on(.0))]
    Store(#[from] StoreError),
    /// The authority's files.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl TokenWishError {
    /// As the hub's socket says it: whose fault it is.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Store(fault) => status_of(fault),
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl OperatorError {
    /// As the hub's socket says it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Query(_) | Self::ManyTokens(..) => StatusCode::BAD_REQUEST,
            Self::NoNode(_) | Self::NoToken(_) => StatusCode::NOT_FOUND,
            Self::Store(fault) => status_of(fault),
            Self::Folder(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What does not answer now may answer later.
fn status_of(fault: &StoreError) -> StatusCode {
    match fault {
        StoreError::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn advice_on(fault: &StoreError) -> &'static str {
    match fault {
        StoreError::Unreachable(_) => "; try again when it answers",
        _ => "",
    }
}

/// A token as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// The first digits of its hash, to tell it by.
    pub id: String,
    /// What it grants.
    pub identities: Vec<SpiffeId>,
    /// The only node that may use it.
    pub node: Option<String>,
    /// Seconds until it ends; negative when it has.
    pub ends_in_s: i64,
    /// The node that used it.
    pub used_by: Option<String>,
}

/// The identity of a node.
///
/// # Errors
/// When no identity can hold the name: up to 123 of `[A-Za-z0-9._-]`.
pub fn node_identity(trust_domain: &TrustDomain, node: &str) -> Result<SpiffeId, NameError> {
    SpiffeId::new(trust_domain, SYSTEM_NAMESPACE, &node_account(node))
}

/// The identity of a node that is to join. The names of its instances begin with its own and a dot, so its own holds none.
///
/// # Errors
/// When no node can be called so.
pub fn new_node_identity(trust_domain: &TrustDomain, node: &str) -> Result<SpiffeId, NodeNameError> {
    if node.contains('.') {
        return Err(NodeNameError::Dot(node.chars().take(80).collect()));
    }
    Ok(node_identity(trust_domain, node)?)
}

/// Makes a token and keeps what must be kept of it.
///
/// # Errors
/// When an identity is not one that a token can grant, or the store fails.
pub async fn create_token(
    records: &Records,
    trust_domain: &TrustDomain,
    root: &[u8],
    wish: &TokenWish,
) -> Result<Token, TokenWishError> {
    for identity in &wish.identities {
        if identity.trust_domain_str() != trust_domain.as_str() {
            return Err(TokenWishError::TrustDomain(identity.clone(), trust_domain.clone()));
        }
        if identity.namespace() == SYSTEM_NAMESPACE {
            return Err(TokenWishError::System(identity.clone()));
        }
    }
    if let Some(node) = &wish.node {
        new_node_identity(trust_domain, node)?;
    }
    let token = Token::new(&wish.hub, wish.node.as_deref(), trust_domain, root);
    let record = TokenRecord {
        identities: wish.identities.clone(),
        node: wish.node.clone(),
        expires: SystemTime::now().checked_add(wish.lifetime).ok_or(TokenWishError::Lifetime)?,
        bound: None,
    };
    records.add_token(token.secret_hash(), &record).await?;
    Ok(token)
}

/// All tokens that the store keeps.
///
/// # Errors
/// When the store fails.
pub async fn list_tokens(records: &Records) -> Result<Vec<TokenView>, StoreError> {
    let now = SystemTime::now();
    let signed = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let view = |(hash, record): ([u8; 32], TokenRecord)| TokenView {
        id: token_id(&hash),
        identities: record.identities,
        node: record.node,
        ends_in_s: record.expires.duration_since(now).map_or_else(|past| -signed(past.duration()), signed),
        used_by: record.bound.map(|binding| binding.node),
    };
    Ok(records.tokens().await?.into_iter().map(view).collect())
}

/// Makes a token worthless: the one whose identifier begins with `id`. Gives its whole identifier.
///
/// # Errors
/// When there is not exactly one, or the store fails.
pub async fn revoke_token(records: &Records, id: &str) -> Result<String, OperatorError> {
    let tokens = records.tokens().await?;
    let named = tokens.iter().map(|(hash, _)| hash).filter(|hash| token_id(hash).starts_with(id));
    let named: Vec<_> = if id.is_empty() { Vec::new() } else { named.collect() };
    match named[..] {
        [] => Err(OperatorError::NoToken(id.to_owned())),
        [hash] => {
            records.remove_token(*hash).await?;
            Ok(token_id(hash))
        }
        [..] => Err(OperatorError::ManyTokens(id.to_owned(), named.len())),
    }
}

/// By what a token is told: the first digits of its secret's hash.
fn token_id(hash: &SecretHash) -> String {
    data_encoding::HEXLOWER.encode(&hash[..8])
}

/// Every host that joined, with what it told of itself, as of a moment.
///
/// # Errors
/// When the store fails.
pub async fn list_nodes(records: &Records, now: SystemTime) -> Result<Vec<view::Node>, StoreError> {
    Ok(records.nodes().await?.into_iter().map(|node| node_view(node, now)).collect())
}

fn node_view(node: KnownNode, now: SystemTime) -> view::Node {
    let hex = |digest: &[u8; 32]| data_encoding::HEXLOWER.encode(digest);
    let certificate = |held: &HeldCertificate| view::Held {
        identity: held.identity.to_string(),
        serial: held.serial.clone(),
        ends_in_s: seconds_until(held.not_after, now),
        root: held.root.as_ref().map(hex),
    };
    let last = node.last;
    let report = last.as_ref().map(|last| &last.report);
    view::Node {
        name: node.name,
        granted: node.record.identities.iter().map(ToString::to_string).collect(),
        from: None,
        connected_for_s: None,
        elsewhere: None,
        heard_ago_s: last.as_ref().map(|last| now.duration_since(last.at).unwrap_or_default().as_secs()),
        trusts: report.map(|report| report.roots.iter().map(hex).collect()).unwrap_or_default(),
        certificates: report.map(|r| r.certificates.iter().map(certificate).collect()).unwrap_or_default(),
        software: last.map(|last| last.software).unwrap_or_default(),
    }
}

/// Forgets a host: it gets no certificate any more. Gives its name.
///
/// # Errors
/// When it is not known, or the store fails.
pub async fn remove_node(records: &Records, name: &str) -> Result<String, OperatorError> {
    if records.remove_node(name).await? {
        Ok(name.to_owned())
    } else {
        Err(OperatorError::NoNode(name.to_owned()))
    }
}

/// The roots that the mesh trusts, the one that signs first.
///
/// # Errors
/// When the authority's files are wrong.
pub fn roots(
    folder: &AuthorityFolder,
    authority: &Authority,
    now: SystemTime,
) -> Result<Vec<view::Root>, FolderError> {
    let old = folder.rotation()?.and_then(|rotation| rotation.old);
    let root = |(index, root): (usize, &CertificateDer<'static>)| view::Root {
        sha256: data_encoding::HEXLOWER.encode(&sha256(root)),
        ends_in_s: AuthorityFolder::ends(root).map_or(0, |ends| seconds_until(ends, now)),
        signs: index == 0,
        leaves: old.as_ref() == Some(root) && index > 0,
    };
    Ok(authority.roots().iter().enumerate().map(root).collect())
}

/// What stands against withdrawing the roots other than `root` (SHA-256, hexadecimal), a line for each node.
#[must_use]
pub fn not_ready_for(root: &str, nodes: &[view::Node]) -> Vec<String> {
    nodes.iter().filter_map(|node| not_ready(root, node)).collect()
}

fn not_ready(root: &str, node: &view::Node) -> Option<String> {
    let name = &node.name;
    if node.heard_ago_s.is_none() {
        return Some(format!("node {name} has not said what it holds since it joined"));
    }
    let mut valid = node.certificates.iter().filter(|held| held.ends_in_s > 0).peekable();
    // Without a valid certificate it must join anew, whatever the roots.
    valid.peek()?;
    if !node.trusts.iter().any(|trusted| trusted == root) {
        return Some(format!("node {name} does not trust the new root yet"));
    }
    let old = valid.find(|held| held.root.as_deref() != Some(root))?;
    Some(format!("node {name} still holds a certificate of {} under another root", old.identity))
}

impl TokenWish {
    /// As the query of a request to the hub's socket. What a person wrote is escaped: a name with a `&` adds no grant.
    #[must_use]
    pub fn to_query(&self) -> String {
        let part = |key: &str, text: &str| format!("{key}={}", utf8_percent_encode(text, NON_ALPHANUMERIC));
        let mut parts: Vec<_> =
            self.identities.iter().map(|identity| part("identity", identity.as_str())).collect();
        parts.extend(self.node.iter().map(|node| part("node", node)));
        parts.push(part("ttl", &self.lifetime.as_secs().to_string()));
        parts.push(part("hub", &self.hub));
        parts.join("&")
    }

    /// Reads what [`Self::to_query`] wrote.
    ///
    /// # Errors
    /// Names the part that makes no sense.
    pub fn from_query(query: &str) -> Result<Self, TokenWishError> {
        let mut wish =
            Self { identities: Vec::new(), node: None, lifetime: DEFAULT_TOKEN_LIFETIME, hub: String::new() };
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let wrong = |fault: &dyn std::fmt::Display| TokenWishError::Query(format!("{part}: {fault}"));
            let (key, text) = part.split_once('=').unwrap_or((part, ""));
            let text = percent_decode_str(text).decode_utf8().map_err(|fault| wrong(&fault))?;
            match key {
                "identity" => {
                    wish.identities.push(SpiffeId::parse(&text).map_err(|fault| wrong(&fault))?);
                }
                "node" => wish.node = Some(text.into_owned()),
                "hub" => wish.hub = text.into_owned(),
                "ttl" => {
                    let seconds = text.parse::<u32>().map_err(|fault| wrong(&fault))?;
                    wish.lifetime = Duration::from_secs(seconds.into());
                }
                _ => return Err(wrong(&"not known here")),
            }
        }
        Ok(wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::store::EmbeddedStore;

    fn wish(identity: &str) -> TokenWish {
        TokenWish {
            identities: vec![SpiffeId::parse(identity).unwrap()],
            node: Some("one".to_owned()),
            lifetime: Duration::from_secs(60),
            hub: "127.0.0.1:15012".to_owned(),
        }
    }

    #[test]
    fn a_wish_comes_back_as_it_was() {
        let wish = wish("spiffe://demo.mesh/ns/default/sa/web");
        assert_eq!(TokenWish::from_query(&wish.to_query()).unwrap(), wish);
        assert!(TokenWish::from_query("colour=red").unwrap_err().to_string().contains("colour=red"));
        assert!(TokenWish::from_query("ttl=-1").is_err());
        let odd = TokenWish { node: Some("a b&identity=c%".to_owned()), hub: "[::1]:1 &".to_owned(), ..wish };
        assert_eq!(TokenWish::from_query(&odd.to_query()).unwrap(), odd);
    }

    #[test]
    fn a_store_that_is_away_is_nobodys_bad_request() {
        let away = || StoreError::Unreachable("connection refused".into());
        let wish = TokenWishError::from(away());
        assert_eq!(
            (wish.status(), OperatorError::from(away()).status()),
            (StatusCode::SERVICE_UNAVAILABLE, wish.status())
        );
        assert_eq!(wish.to_string(), "the store is away: connection refused; try again when it answers");
        assert_eq!(TokenWishError::Query(String::new()).status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn tokens_grant_workload_identities_of_this_mesh_only() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(std::sync::Arc::new(EmbeddedStore::open(folder.path()).unwrap()));
        let domain = TrustDomain::new("demo.mesh").unwrap();
        let make = async |wish: &TokenWish| create_token(&records, &domain, b"root", wish).await;
        let foreign = make(&wish("spiffe://other.mesh/ns/default/sa/web")).await;
        assert!(matches!(foreign, Err(TokenWishError::TrustDomain(..))));
        let system = make(&wish("spiffe://demo.mesh/ns/weft-system/sa/hub")).await;
        assert!(matches!(system, Err(TokenWishError::System(_))));
        let mut odd = wish("spiffe://demo.mesh/ns/default/sa/web");
        for name in ["a/b", "db1.example.org", "."] {
            odd.node = Some(name.to_owned());
            assert!(matches!(make(&odd).await, Err(TokenWishError::Node(_))), "{name}");
        }
        assert_eq!(list_tokens(&records).await.unwrap(), []);

        let token = make(&wish("spiffe://demo.mesh/ns/default/sa/web")).await.unwrap();
        assert_eq!(token.hub, "127.0.0.1:15012");
        let [view] = list_tokens(&records).await.unwrap().try_into().unwrap();
        assert_eq!((view.node.as_deref(), view.used_by), (Some("one"), None));
        assert!((58..=60).contains(&view.ends_in_s), "{}", view.ends_in_s);
    }
}
