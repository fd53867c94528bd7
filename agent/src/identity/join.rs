//! Joining a mesh: a token becomes this host's own certificate.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use weft_core::{
    control::{VERSIONS, message::JoinRequest},
    identity::{SpiffeId, TrustDomain},
    tls::{Bundle, BundleError, CertificateError, RootPin},
};
use weft_registries::hub::{self, JoinError};

use super::state::{NodeState, StateError, StateFolder};
use crate::hub::{operator::node_identity, token::Token};

/// Why this host did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoiningError {
    /// It has joined before.
    #[error("this host has joined before, as {0}; its state directory must be removed to join anew")]
    Joined(String),
    /// Neither the command line nor the token says where the hub is.
    #[error("the token does not say where the hub is; give its address with --hub")]
    NoAddress,
    /// The token names another node.
    #[error("the token is for the node {token}, not {wanted}")]
    OtherNode {
        /// As the token says.
        token: String,
        /// As was asked.
        wanted: String,
    },
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The hub.
    #[error(transparent)]
    Hub(#[from] JoinError),
    /// The key cannot be used.
    #[error("the key for joining")]
    Key(#[from] rcgen::Error),
    /// The hub's answer is not a certificate for our key.
    #[error("the certificate that the hub sent")]
    Certificate(#[from] CertificateError),
    /// The hub's answer holds no usable roots.
    #[error("the bundle that the hub sent")]
    Bundle(#[from] BundleError),
    /// The hub's answer is for somebody else.
    #[error("the hub sent a certificate of {0}")]
    WrongIdentity(SpiffeId),
    /// The hub's answer does not hold what the token promised.
    #[error("the hub's answer does not hold the root that the token names")]
    WrongRoot,
}

/// A host that joined.
#[derive(Debug)]
pub struct Joined {
    /// What the host is from here on.
    pub node: NodeState,
    /// The SPIFFE URIs that its workloads may have.
    pub granted: Vec<String>,
}

/// Joins with a token and writes what the agent needs. May be called again after a failure.
///
/// # Errors
/// When the token, the hub or the state directory does not allow it; see each.
pub async fn join(
    state_dir: &Path,
    token: &Token,
    hub_address: Option<&str>,
    node: Option<&str>,
) -> Result<Joined, JoiningError> {
    let folder = StateFolder::of(state_dir);
    if folder.has_joined() {
        return Err(JoiningError::Joined(folder.restore()?.node.node));
    }
    let address = hub_address.unwrap_or(&token.hub);
    if address.is_empty() {
        return Err(JoiningError::NoAddress);
    }
    let node = name(token, node)?;
    let key = folder.joining_key(&token.secret_hash())?;
    let request = JoinRequest {
        secret: token.secret.to_vec().into(),
        node: node.clone(),
        signing_request: key.signing_request()?,
        lowest_version: VERSIONS.0,
        highest_version: VERSIONS.1,
    };
    let answer = hub::join(address, RootPin::from(token.root_pin), &token.trust_domain, request).await?;
    let (certificate, pem) = key.with_chain(&answer.chain)?;
    if node_identity(&token.trust_domain, &node).ok().as_ref() != Some(certificate.identity()) {
        return Err(JoiningError::WrongIdentity(certificate.identity().clone()));
    }
    let bundle = read_bundle(token, &token.trust_domain, answer.bundle)?;
    let node = NodeState { node, trust_domain: token.trust_domain.clone(), hub: address.to_owned() };
    folder.write_joined(&node, &pem, &bundle)?;
    folder.forget_joining_key(&token.secret_hash());
    Ok(Joined { node, granted: answer.granted })
}

fn name(token: &Token, wanted: Option<&str>) -> Result<String, JoiningError> {
    match (&token.node, wanted) {
        (Some(token), Some(wanted)) if token != wanted => {
            Err(JoiningError::OtherNode { token: token.clone(), wanted: wanted.to_owned() })
        }
        (Some(name), _) => Ok(name.clone()),
        (None, Some(name)) => Ok(name.to_owned()),
        (None, None) => Ok(first_label(&rustix::system::uname().nodename().to_string_lossy())),
    }
}

/// A host may call itself by its whole name; a node's holds no dot.
fn first_label(host: &str) -> String {
    host.split('.').next().unwrap_or_default().to_owned()
}

/// The roots to trust from here on: the hub may know more than the token, never less.
fn read_bundle(
    token: &Token,
    trust_domain: &TrustDomain,
    bundle: Option<weft_core::control::message::Bundle>,
) -> Result<Bundle, JoiningError> {
    let roots = bundle.map(|bundle| bundle.roots).unwrap_or_default();
    let roots = roots.into_iter().map(|root| CertificateDer::from(root.to_vec()));
    let bundle = Bundle::new(trust_domain.clone(), roots)?;
    if bundle.roots().iter().any(|root| root.fingerprint() == token.root_pin) {
        Ok(bundle)
    } else {
        Err(JoiningError::WrongRoot)
    }
}
