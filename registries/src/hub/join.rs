//! Joining: the one call that a host makes before it has a certificate.

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;
use weft_core::{
    control::{
        JOIN_PATH,
        message::{JoinRequest, JoinResponse},
    },
    identity::TrustDomain,
    tls::{RootPin, pinned_hub_client_config},
};

use super::transport::connect;

/// How long the hub may think.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a host did not join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The hub cannot be reached, or is not the one that the token names. The token is as good as before.
    #[error("cannot reach the hub: {0}")]
    Unreachable(String),
    /// The hub says no; asking again with this token is of no use.
    #[error("the hub refuses: {0}")]
    Refused(String),
    /// The hub cannot answer now, or the answer was lost. The same key may ask again for ten minutes.
    #[error("the hub did not answer: {0}")]
    Unanswered(String),
}

/// Joins the mesh of `trust_domain` through the hub at `address`, which must prove to chain to the pinned root before
/// the token's secret is sent.
///
/// # Errors
/// Told apart by what is to be done about them.
pub async fn join(
    address: &str,
    pin: RootPin,
    trust_domain: &TrustDomain,
    request: JoinRequest,
) -> Result<JoinResponse, JoinError> {
    let tls = pinned_hub_client_config(pin, trust_domain);
    let mut client = connect(address, tls, trust_domain).await.map_err(JoinError::Unreachable)?;
    client.ready().await.map_err(|fault| JoinError::Unreachable(fault.to_string()))?;
    let codec = ProstCodec::<JoinRequest, JoinResponse>::default();
    let path = PathAndQuery::from_static(JOIN_PATH);
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.unary(Request::new(request), path, codec)).await;
    let answer = answer
        .map_err(|_| JoinError::Unanswered(format!("nothing came within {} s", ANSWER_TIMEOUT.as_secs())))?;
    answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
        Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition => {
            JoinError::Refused(status.message().to_owned())
        }
        _ => JoinError::Unanswered(status.message().to_owned()),
    })
}
