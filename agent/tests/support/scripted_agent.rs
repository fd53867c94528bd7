//! An agent's end of the control stream that says what a test wants, and nothing by itself.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream;
use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    Streaming,
    body::Body,
    client::{Grpc, GrpcService},
};
use tonic_prost::ProstCodec;
use weft_core::{
    control::{
        CONNECT_PATH, MAX_MESSAGE, VERSIONS,
        message::{ClientMessage, ClientWord, Discovery, Hello, ServerMessage, ServerWord},
    },
    identity::SpiffeId,
};
use weft_registries::hub::LinkConfig;

/// How long the hub may take to its next word.
const DEADLINE: Duration = Duration::from_secs(20);

/// The stream of one agent.
pub(crate) struct ScriptedAgent {
    words: mpsc::Sender<ClientMessage>,
    heard: Streaming<ServerMessage>,
}

impl ScriptedAgent {
    /// Connects, and says hello.
    pub(crate) async fn open(config: &LinkConfig) -> Self {
        let tls = config.tls.hub_client_config(&config.node).unwrap();
        let tcp = TcpStream::connect(&config.addresses[0]).await.unwrap();
        let name = ServerName::try_from(SpiffeId::hub(&config.node.trust_domain()).server_name()).unwrap();
        let tls = TlsConnector::from(tls).connect(name, tcp).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let mut client = Grpc::with_origin(Channel(sender), Uri::from_static("https://hub"))
            .max_decoding_message_size(MAX_MESSAGE);
        client.ready().await.unwrap();
        let (words, mut said) = mpsc::channel(16);
        let hello = Hello {
            node: config.node_name.clone(),
            lowest_version: VERSIONS.0,
            highest_version: VERSIONS.1,
            software: "a script".to_owned(),
        };
        words.try_send(ClientMessage { word: Some(ClientWord::Hello(hello)) }).unwrap();
        let codec = ProstCodec::<ClientMessage, ServerMessage>::default();
        let path = PathAndQuery::from_static(CONNECT_PATH);
        let said = tonic::Request::new(stream::poll_fn(move |context| said.poll_recv(context)));
        let heard = client.streaming(said, path, codec).await.unwrap().into_inner();
        Self { words, heard }
    }

    /// Says a word.
    pub(crate) async fn say(&self, word: ClientWord) {
        self.words.send(ClientMessage { word: Some(word) }).await.unwrap();
    }

    /// The next batch of discovery with its number; other words pass.
    pub(crate) async fn batch(&mut self) -> (u64, Discovery) {
        loop {
            let message = timeout(DEADLINE, self.heard.message()).await.expect("a word in time").unwrap();
            let message = message.expect("the stream goes on");
            if let Some(ServerWord::Discovery(batch)) = message.word {
                return (message.sequence, batch);
            }
        }
    }
}

struct Channel(http2::SendRequest<Body>);

impl GrpcService<Body> for Channel {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
