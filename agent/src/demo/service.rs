//! The sample services: plain HTTP/1.1 servers that know nothing of Weft.
//!
//! Each answers with its name and version; one that calls another asks it for each request, and answers with what it said too,
//! under the other's name.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::client::Client;

/// What one sample service is.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// What to call itself
    #[arg(long)]
    name: String,
    /// Its version
    #[arg(long, default_value = "v1")]
    version: String,
    /// The address to call for every request
    #[arg(long)]
    calls: Option<SocketAddr>,
    /// The host to name when calling
    #[arg(long, default_value = "reviews.default.mesh")]
    host: String,
}

/// A sample service that is to run.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) listen: SocketAddr,
    /// Where it calls, and the host that it names.
    pub(super) calls: Option<(SocketAddr, String)>,
}

impl Sample {
    /// The command line of the binary that runs it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let listen = self.listen.to_string();
        let options = ["demo-service", "--name", self.name, "--version", self.version, "--listen", &listen];
        let mut arguments = options.map(str::to_owned).to_vec();
        if let Some((address, host)) = &self.calls {
            arguments.extend(["--calls".into(), address.to_string(), "--host".into(), host.clone()]);
        }
        arguments
    }

    /// Its name among `others`: with the version where the name alone is not its own.
    pub(super) fn title(&self, others: &[Self]) -> String {
        let alone = others.iter().filter(|other| other.name == self.name).count() == 1;
        if alone { self.name.to_owned() } else { format!("{} {}", self.name, self.version) }
    }
}

/// Serves for ever.
///
/// # Errors
/// When the address cannot be bound, or accepting fails.
pub async fn serve(options: Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let called = options.host.split('.').next().unwrap_or_default().to_owned();
    let upstream = options.calls.map(|address| (called, Client::new(address, &options.host)));
    let service = Arc::new(Service { name: options.name, version: options.version, upstream });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service.clone();
        let answer = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.answer(&request).await) }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

struct Service {
    name: String,
    version: String,
    /// Whom it calls, by name.
    upstream: Option<(String, Client)>,
}

impl Service {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut page = json!({ "service": self.name, "version": self.version, "path": request.uri().path() });
        let mut status = StatusCode::OK;
        if let Some((name, upstream)) = &self.upstream {
            let called = call(name, upstream).await;
            if called.get("error").is_some() {
                status = StatusCode::BAD_GATEWAY;
            }
            page[name.as_str()] = called;
        }
        let mut response = Response::new(Full::new(Bytes::from(page.to_string())));
        *response.status_mut() = status;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

async fn call(name: &str, upstream: &Client) -> Value {
    match upstream.get(&format!("/{name}/1")).await {
        Ok(answer) if answer.status.is_success() => {
            serde_json::from_slice(&answer.body).unwrap_or_else(|error| json!({ "error": error.to_string() }))
        }
        Ok(answer) => json!({
            "error": format!("status {}", answer.status),
            "fault": answer.headers.get("x-weft-fault").and_then(|fault| fault.to_str().ok()),
        }),
        Err(error) => json!({ "error": format!("{error:#}") }),
    }
}
