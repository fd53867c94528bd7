//! What an operator asks of a hub: tokens, and what is known.
//!
//! The store has one owner. While a hub runs it is the owner, and the operator's verbs reach it through its socket in the
//! state directory; while none runs they open the store themselves. Both ways end in the same functions.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use weft_core::{
    control::node_account,
    identity::{SYSTEM_NAMESPACE, SpiffeId, TrustDomain},
    name::NameError,
};

use super::{
    store::{Store, StoreError, TokenRecord},
    token::Token,
};

/// How long a token is good for, unless said otherwise.
pub const DEFAULT_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// The operator's socket of the hub that owns a state directory.
#[must_use]
pub fn socket_of(state_dir: &Path) -> PathBuf {
    state_dir.join("hub.sock")
}

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
    Node(#[from] NameError),
    /// The wish cannot be read.
    #[error("cannot read the request: {0}")]
    Query(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// Seconds until it expires; negative when it has.
    pub expires_in_s: i64,
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

/// Makes a token and keeps what must be kept of it.
///
/// # Errors
/// When an identity is not one that a token can grant, or the store fails.
pub fn create_token(
    store: &dyn Store,
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
        node_identity(trust_domain, node)?;
    }
    let token = Token::new(&wish.hub, wish.node.as_deref(), trust_domain, root);
    let record = TokenRecord {
        identities: wish.identities.clone(),
        node: wish.node.clone(),
        expires: SystemTime::now() + wish.lifetime,
        bound: None,
    };
    store.add_token(token.secret_hash(), &record)?;
    Ok(token)
}

/// All tokens that the store keeps.
///
/// # Errors
/// When the store fails.
pub fn list_tokens(store: &dyn Store) -> Result<Vec<TokenView>, StoreError> {
    let now = SystemTime::now();
    let signed = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let view = |(hash, record): ([u8; 32], TokenRecord)| TokenView {
        id: data_encoding::HEXLOWER.encode(&hash[..4]),
        identities: record.identities,
        node: record.node,
        expires_in_s: record.expires.duration_since(now).map_or_else(|past| -signed(past.duration()), signed),
        used_by: record.bound.map(|binding| binding.node),
    };
    Ok(store.tokens()?.into_iter().map(view).collect())
}

impl TokenWish {
    /// As the query of a request to the hub's socket. Nothing in it needs escaping: names and addresses hold no `&`,
    /// `=` or `%`.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut parts: Vec<_> =
            self.identities.iter().map(|identity| format!("identity={identity}")).collect();
        parts.extend(self.node.iter().map(|node| format!("node={node}")));
        parts.push(format!("ttl={}", self.lifetime.as_secs()));
        parts.push(format!("hub={}", self.hub));
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
            match part.split_once('=') {
                Some(("identity", text)) => {
                    wish.identities.push(SpiffeId::parse(text).map_err(|fault| wrong(&fault))?);
                }
                Some(("node", text)) => wish.node = Some(text.to_owned()),
                Some(("hub", text)) => wish.hub = text.to_owned(),
                Some(("ttl", text)) => {
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
    }

    #[test]
    fn tokens_grant_workload_identities_of_this_mesh_only() {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path()).unwrap();
        let domain = TrustDomain::new("demo.mesh").unwrap();
        let make = |wish: &TokenWish| create_token(&store, &domain, b"root", wish);
        let foreign = make(&wish("spiffe://other.mesh/ns/default/sa/web"));
        assert!(matches!(foreign, Err(TokenWishError::TrustDomain(..))));
        let system = make(&wish("spiffe://demo.mesh/ns/weft-system/sa/hub"));
        assert!(matches!(system, Err(TokenWishError::System(_))));
        let mut odd = wish("spiffe://demo.mesh/ns/default/sa/web");
        odd.node = Some("a/b".to_owned());
        assert!(matches!(make(&odd), Err(TokenWishError::Node(_))));
        assert_eq!(list_tokens(&store).unwrap(), []);

        let token = make(&wish("spiffe://demo.mesh/ns/default/sa/web")).unwrap();
        assert_eq!(token.hub, "127.0.0.1:15012");
        let [view] = list_tokens(&store).unwrap().try_into().unwrap();
        assert_eq!((view.node.as_deref(), view.used_by), (Some("one"), None));
        assert!((58..=60).contains(&view.expires_in_s), "{}", view.expires_in_s);
    }
}
