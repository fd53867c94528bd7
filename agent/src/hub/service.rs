//! The gRPC service of one connection: which calls there are and who may make them.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use futures_core::Stream;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tonic::{
    Status, Streaming,
    body::Body,
    server::{Grpc, StreamingService, UnaryService},
};
use tonic_prost::ProstCodec;
use weft_core::control::{
    CONNECT_PATH, JOIN_PATH, MAX_MESSAGE, VERSIONS, common_version,
    message::{ClientMessage, JoinRequest, JoinResponse, ServerMessage},
};

use super::{
    office::{JoinRefusal, Office},
    records::ClaimError,
    stream::{self, Node, OUTGOING, Shared, bundles_of},
};

/// The largest request to join, in bytes.
const MAX_JOIN: usize = 16 * 1024;

/// Answers one call. `node` is who the connection's certificate names; none where none was shown.
pub(super) async fn answer(
    shared: Shared,
    node: Option<Node>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        CONNECT_PATH => {
            let codec = ProstCodec::<ServerMessage, ClientMessage>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
            grpc.streaming(Connect { shared, node }, request).await
        }
        JOIN_PATH => {
            let codec = ProstCodec::<JoinResponse, JoinRequest>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_JOIN);
            grpc.unary(Join(shared.office), request).await
        }
        path => Status::unimplemented(format!("no call {path}")).into_http(),
    })
}

type Answering<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

struct Connect {
    shared: Shared,
    node: Option<Node>,
}

impl StreamingService<ClientMessage> for Connect {
    type Response = ServerMessage;
    type ResponseStream = Outgoing;
    type Future = Answering<Outgoing>;

    fn call(&mut self, request: tonic::Request<Streaming<ClientMessage>>) -> Self::Future {
        let (shared, node) = (self.shared.clone(), self.node.clone());
        Box::pin(async move {
            let node =
                node.ok_or_else(|| Status::unauthenticated("a node certificate is needed; join first"))?;
            let (sender, receiver) = mpsc::channel(OUTGOING);
            tokio::spawn(stream::serve(shared, node, request.into_inner(), sender));
            Ok(tonic::Response::new(Outgoing(receiver)))
        })
    }
}

/// What a stream's task wants to say.
struct Outgoing(mpsc::Receiver<Result<ServerMessage, Status>>);

impl Stream for Outgoing {
    type Item = Result<ServerMessage, Status>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
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
