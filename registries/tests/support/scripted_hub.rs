//! A hub without a mind of its own: it lets agents in, and what it says on a stream is the test's to say.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream as Words, stream};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tonic::{
    Status, Streaming,
    body::Body,
    server::{Grpc, StreamingService},
};
use tonic_prost::ProstCodec;
use weft_core::{
    control::{
        CONNECT_PATH, JOIN_PATH, NodeReport, VERSIONS,
        message::{ClientMessage, ClientWord, ServerMessage, ServerWord, Welcome},
    },
    identity::{SpiffeId, TrustDomain},
    publish::Publisher,
    tls::{Credentials, RootPin, TlsContext},
};
use weft_registries::hub::{HubLink, LinkConfig};
use weft_testbed::Port;

use crate::authority::Authority;

/// How long anything may take: more than any time that a test lets pass at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Where there ever was a hub: nobody else is to answer there.
static PORTS: Mutex<Vec<Port>> = Mutex::new(Vec::new());

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::new("td.mesh").unwrap()
}

/// Who is who.
pub(crate) struct Mesh {
    authority: Authority,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::new("td") }
    }

    /// The root that a token would name.
    pub(crate) fn pin(&self) -> RootPin {
        RootPin::of(&self.authority.root())
    }

    pub(crate) async fn hub(&self) -> Hub {
        let port = Port::free().unwrap();
        let address = format!("127.0.0.1:{}", port.number());
        PORTS.lock().unwrap().push(port);
        self.hub_at(&address).await
    }

    pub(crate) async fn hub_at(&self, address: &str) -> Hub {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let who = SpiffeId::hub(&domain());
        let tls = self.tls(&who).hub_server_config(&who);
        let (report, calls) = mpsc::channel(16);
        Hub { address, calls, task: tokio::spawn(serve(listener, tls, report)) }
    }

    /// A link of node `one` to the hub there.
    pub(crate) fn link(&self, address: &str) -> HubLink {
        self.link_to(&[address])
    }

    /// A link of node `one` to one of the hubs there.
    pub(crate) fn link_to(&self, addresses: &[&str]) -> HubLink {
        let node = SpiffeId::new(&domain(), "weft-system", "node-one").unwrap();
        HubLink::start(LinkConfig {
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
            tls: Arc::new(self.tls(&node)),
            node,
            node_name: "one".to_owned(),
            report: Some(watch::channel(NodeReport::default()).1),
        })
    }

    fn tls(&self, who: &SpiffeId) -> TlsContext {
        let credentials = Credentials::default()
            .with_bundle(self.authority.bundle("td.mesh"))
            .with_identity(self.authority.certificate(who));
        TlsContext::new(Publisher::new(credentials).reader())
    }
}

/// A hub that listens.
pub(crate) struct Hub {
    pub(crate) address: String,
    calls: mpsc::Receiver<Call>,
    task: JoinHandle<()>,
}

/// What somebody asked of the hub.
pub(crate) enum Call {
    /// To join, which is never answered.
    Join,
    /// To be served.
    Connect(Box<Stream>),
}

impl Hub {
    /// The next call.
    pub(crate) async fn call(&mut self) -> Call {
        timeout(DEADLINE, self.calls.recv()).await.expect("a call in time").unwrap()
    }

    /// The next stream.
    pub(crate) async fn stream(&mut self) -> Stream {
        match self.call().await {
            Call::Connect(stream) => *stream,
            Call::Join => panic!("somebody wants to join"),
        }
    }

    /// Whether nobody has called whom the test did not ask about.
    pub(crate) fn is_alone(&mut self) -> bool {
        self.calls.try_recv().is_err()
    }

    /// Listens no more; gives the address, where now nobody answers.
    pub(crate) async fn close(self) -> String {
        self.task.abort();
        // It was ended just now.
        let _ended = self.task.await;
        self.address
    }
}

/// The hub's end of a stream.
pub(crate) struct Stream {
    heard: Streaming<ClientMessage>,
    words: mpsc::Sender<Result<ServerMessage, Status>>,
    sequence: u64,
}

impl Stream {
    /// Says a word; gives its number.
    pub(crate) async fn say(&mut self, word: ServerWord) -> u64 {
        self.sequence += 1;
        let message = ServerMessage { sequence: self.sequence, word: Some(word) };
        self.words.send(Ok(message)).await.unwrap();
        self.sequence
    }

    pub(crate) async fn welcome(&mut self) {
        let (epoch, registries) = (Bytes::from_static(b"epoch"), vec!["static".to_owned()]);
        self.say(ServerWord::Welcome(Welcome {
            version: VERSIONS.1,
            epoch,
            granted: Vec::new(),
            registries,
            life: Bytes::from_static(b"life"),
        }))
        .await;
    }

    /// The next word that is `wanted`; others pass.
    pub(crate) async fn hear<T>(&mut self, wanted: impl Fn(ClientWord) -> Option<T>) -> T {
        loop {
            let message = timeout(DEADLINE, self.heard.message()).await.expect("a word in time").unwrap();
            if let Some(found) = message.expect("the stream goes on").word.and_then(&wanted) {
                return found;
            }
        }
    }
}

async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, report: mpsc::Sender<Call>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(converse(stream, TlsAcceptor::from(tls.clone()), report.clone()));
    }
}

/// Serves one connection; it answers pings whatever the test says.
async fn converse(stream: TcpStream, tls: TlsAcceptor, report: mpsc::Sender<Call>) {
    let stream = TokioIo::new(tls.accept(stream).await.unwrap());
    let service = service_fn(|request| answer(request, report.clone()));
    // However it ends, the test sees it on the stream.
    let _ended = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
}

async fn answer(
    request: Request<Incoming>,
    report: mpsc::Sender<Call>,
) -> Result<Response<Body>, Infallible> {
    match request.uri().path() {
        JOIN_PATH => {
            // The test may be over.
            let _heard = report.try_send(Call::Join);
            std::future::pending().await
        }
        CONNECT_PATH => {
            let codec = ProstCodec::<ServerMessage, ClientMessage>::default();
            Ok(Grpc::new(codec).streaming(Connect(report), request).await)
        }
        path => panic!("no call {path}"),
    }
}

struct Connect(mpsc::Sender<Call>);

impl StreamingService<ClientMessage> for Connect {
    type Response = ServerMessage;
    type ResponseStream = Pin<Box<dyn Words<Item = Result<ServerMessage, Status>> + Send>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<ClientMessage>>) -> Self::Future {
        let (words, mut said) = mpsc::channel(16);
        let stream = Stream { heard: request.into_inner(), words, sequence: 0 };
        // The test may be over.
        let _heard = self.0.try_send(Call::Connect(stream.into()));
        let said = stream::poll_fn(move |cx| said.poll_recv(cx));
        std::future::ready(Ok(tonic::Response::new(Box::pin(said))))
    }
}
