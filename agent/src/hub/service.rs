//! The gRPC service of one connection: which calls there are and who may make them.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tonic::{
    Status, Streaming,
    body::Body,
    codec::BufferSettings,
    server::{Grpc, UnaryService},
};
use tonic_prost::ProstCodec;
use weft_core::control::{
    CONNECT_PATH, JOIN_PATH, MAX_MESSAGE, VERSIONS, common_version,
    message::{ClientMessage, JoinRequest, JoinResponse, ServerMessage},
};

use super::{
    office::{JoinRefusal, Office},
    outgoing::Outgoing,
    records::ClaimError,
    stream::{self, Node, OUTGOING, Shared, bundles_of},
};

/// The largest request to join, in bytes.
const MAX_JOIN: usize = 16 * 1024;
/// What an agent says fits this many bytes but for its announcements and requests for certificates; more room is made then.
const HEARING: usize = 1024;

/// Answers one call. `node` is who the connection's certificate names; none where none was shown.
pub(super) async fn answer(
    shared: Shared,
    node: Option<Node>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        CONNECT_PATH => connect(shared, node, request),
        JOIN_PATH => {
            let codec = ProstCodec::<JoinResponse, JoinRequest>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_JOIN);
            grpc.unary(Join(shared.office), request).await
        }
        path => Status::unimplemented(format!("no call {path}")).into_http(),
    })
}

type Answering<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

/// An agent's stream.
fn connect(shared: Shared, node: Option<Node>, request: Request<Incoming>) -> Response<Body> {
    let Some(node) = node else {
        return Status::unauthenticated("a node certificate is needed; join first").into_http();
    };
    let decoder =
        ProstCodec::<ServerMessage, ClientMessage>::raw_decoder(BufferSettings::new(HEARING, HEARING));
    let incoming = Streaming::new_request(decoder, request.into_body(), None, Some(MAX_MESSAGE));
    let (sender, receiver) = mpsc::channel(OUTGOING);
    tokio::spawn(stream::serve(shared, node, incoming, sender));
    Outgoing::answer(receiver)
}

struct Join(Arc<Office>);

impl UnaryService<JoinRequest> for Join {
    type Response = JoinResponse;
    type Future = Answering<JoinResponse>;

    fn call(&mut self, request: tonic::Request<JoinRequest>) -> Self::Future {
        let office = self.0.clone();
        Box::pin(async move {
            let joined = join(&office, &request.into_inner()).await;
            if let Err(status) = &joined {
                tracing::warn!(fault = %status.message(), "a join was refused");
            }
            joined.map(tonic::Response::new)
        })
    }
}

async fn join(office: &Office, request: &JoinRequest) -> Result<JoinResponse, Status> {
    let theirs = (request.lowest_version, request.highest_version);
    if common_version(VERSIONS, theirs).is_none() {
        let message = format!("this hub speaks versions {VERSIONS:?}, the agent {theirs:?}");
        return Err(Status::failed_precondition(message));
    }
    let joined = office.join(&request.secret, &request.node, &request.signing_request, SystemTime::now());
    let joined = joined.await.map_err(|fault| join_status(&fault))?;
    let mut bundles = bundles_of(&office.authority()).bundles;
    Ok(JoinResponse {
        chain: joined.certificate.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
        bundle: bundles.pop(),
        granted: joined.granted.iter().map(ToString::to_string).collect(),
    })
}

fn join_status(fault: &JoinRefusal) -> Status {
    let message = fault.to_string();
    match fault {
        JoinRefusal::Claim(ClaimError::Store(_)) => Status::unavailable(message),
        JoinRefusal::Claim(_) => Status::permission_denied(message),
        JoinRefusal::Node(_) => Status::invalid_argument(message),
        JoinRefusal::Issue(fault) => match fault {
            super::authority::IssueError::Request(_) | super::authority::IssueError::Key => {
                Status::invalid_argument(message)
            }
            _ => Status::unavailable(message),
        },
    }
}
