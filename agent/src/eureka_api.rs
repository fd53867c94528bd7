//! The sockets of Eureka's API: HTTP/1.1 on the control runtime, bounded, answered by [`weft_registries::eureka::api`].
//!
//! Without proof of who asks, like Eureka: whoever can connect reads all services. So it listens on this host alone unless
//! the file says otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use weft_core::{flow, merge::Snapshot, name::RegistryName, publish::Reader, table::Table};
use weft_registries::{
    Plan,
    eureka::api::{Api, Leads, Listeners, MAX_BODY, Moment, Question, Reply, Source},
};

use self::unread::Unread;
use crate::config::{AgentConfig, Allowed, ListenAddress, WorkloadConfig};

mod unread;

/// How many connections are served at a time; the others wait. Eureka's clients keep one or two each.
const MAX_CONNECTIONS: usize = 1024;
/// How long a client may take for the head of a request, and how long a connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a client may take for its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a registry that fails is waited for from the start on: the applications that live have missed a heartbeat then,
/// and have registered here.
const AWAITED: Duration = Duration::from_secs(90);
/// How long the accept loop waits after the kernel ran out of something.
const RESOURCE_PAUSE: Duration = Duration::from_millis(200);

/// What of the configuration the answers depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The registries that are Eureka's own.
    pub eureka: BTreeSet<RegistryName>,
    /// The agent's own listeners that clients can reach, by the service that each leads to.
    pub listeners: Listeners,
}

impl Surroundings {
    /// Of a hub, which has no listeners for services.
    #[must_use]
    pub fn of_registries(plans: &[Plan]) -> Self {
        let eureka = plans.iter().filter(|plan| plan.kind == "eureka");
        let eureka = eureka.map(|plan| plan.name.value.clone()).collect();
        Self { eureka, listeners: Listeners::new() }
    }

    /// Of an agent. A listener is listed instead of a service's instances only where all who may ask may use it: no other
    /// workload has one for the service, and clients on other hosts are let in. One on loopback is of use only to clients
    /// on this very host, and those alone ask an API on loopback.
    #[must_use]
    pub fn of_agent(config: &AgentConfig) -> Self {
        let local = config.eureka_api.is_some_and(|api| api.listen.ip().is_loopback());
        let mut by_service: BTreeMap<_, Vec<(&WorkloadConfig, &ListenAddress)>> = BTreeMap::new();
        for workload in &config.workloads {
            for upstream in &workload.upstreams {
                by_service.entry(&upstream.service).or_default().push((workload, &upstream.listen));
            }
        }
        let reachable = |(workload, listen): &(&WorkloadConfig, &ListenAddress)| match listen {
            ListenAddress::Tcp(address) if address.port() == 0 || address.ip().is_unspecified() => None,
            ListenAddress::Tcp(address) if local => Some(*address),
            ListenAddress::Tcp(address) => {
                let lets_in = workload.allowed == Some(Allowed::AnyLocal) && !address.ip().is_loopback();
                lets_in.then_some(*address)
            }
            ListenAddress::Unix(_) => None,
        };
        let chosen = by_service.into_iter().filter_map(|(service, all)| {
            let (first, _) = all.first()?;
            let is_only = all.iter().all(|(workload, _)| std::ptr::eq(*workload, *first));
            let listener = all.iter().find_map(reachable).filter(|_| is_only)?;
            Some((service.clone(), listener))
        });
        Self { listeners: chosen.collect(), ..Self::of_registries(&config.registries) }
    }
}

/// What the registries say, and what was made of it.
#[derive(Clone, Debug)]
pub struct Said {
    /// What each registry says.
    pub snapshots: Reader<Snapshot>,
    /// How the registries are.
    pub statuses: Reader<flow::Status>,
    /// Where each name leads.
    pub tables: Reader<Table>,
}

/// The served API. Dropping it closes its socket and every connection.
#[derive(Debug)]
pub struct EurekaApi {
    address: SocketAddr,
    surroundings: watch::Sender<Surroundings>,
    task: JoinHandle<()>,
}

impl EurekaApi {
    /// Serves what the registries say.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve(listen: SocketAddr, said: Said, surroundings: Surroundings) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (surroundings, followed) = watch::channel(surroundings);
        let served = Served {
            api: Api::default(),
            said,
            surroundings: followed,
            turns: Semaphore::new(1),
            began: Instant::now(),
        };
        let task = tokio::spawn(accept(listener, Arc::new(served)));
        tracing::info!(%address, "Eureka's API is served");
        Ok(Self { address, surroundings, task })
    }

    /// Where it listens; of use with port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes over a new configuration.
    pub fn surround(&self, surroundings: Surroundings) {
        self.surroundings.send_replace(surroundings);
    }
}

impl Drop for EurekaApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Served {
    api: Api,
    said: Said,
    surroundings: watch::Receiver<Surroundings>,
    /// One answer is made at a time: making one may take a processor, and those that wait then share it.
    turns: Semaphore,
    began: Instant,
}

/// A request that has come whole.
struct Asked {
    head: http::request::Parts,
    body: Bytes,
}

impl Served {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return status(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => return status(StatusCode::REQUEST_TIMEOUT),
        };
        // The semaphore is never closed, and answering does not panic.
        let Ok(_turn) = self.turns.acquire().await else { return status(StatusCode::SERVICE_UNAVAILABLE) };
        let (served, asked) = (self.clone(), Asked { head, body });
        let reply = spawn_blocking(move || served.reply(&asked)).await;
        reply.map_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR), written)
    }

    /// May take a processor for as long as a long list takes to be written.
    fn reply(&self, Asked { head, body }: &Asked) -> Reply {
        let question = Question {
            method: &head.method,
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            accept: text(&head.headers, header::ACCEPT),
            content_type: text(&head.headers, header::CONTENT_TYPE),
            body,
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Moment { wall: millis(wall), steady: millis(self.began.elapsed()) };
        let (snapshot, status) = (self.said.snapshots.load_full(), self.said.statuses.load_full());
        let surroundings = self.surroundings.borrow().clone();
        let table = self.said.tables.load_full();
        let source = Source {
            snapshot: &snapshot,
            order: &status.precedence,
            joins: &status.joins,
            leads: Leads(&|host| Some(table.destination(host)?.key.clone())),
            eureka: &surroundings.eureka,
            listeners: &surroundings.listeners,
            lacks: status.registries.iter().any(|registry| !registry.ready),
        };
        let waits = status.registries.iter().any(|registry| is_awaited(registry, self.began.elapsed()));
        self.api.answer(question, (!waits).then_some(&source), now)
    }
}

/// Whether a registry that has not spoken may do so any moment. It may hold what clients call: no list is better than one
/// without it. But when it is gone for long, what all others have is better than no list.
fn is_awaited(registry: &flow::RegistryStatus, since_start: Duration) -> bool {
    let counters = &registry.counters;
    let has_failed = counters.disconnects + counters.failed_attempts > 0;
    !registry.ready && (!has_failed || since_start < AWAITED)
}

fn written(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    if let Some(kind) = reply.content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Connections are tasks of this one: they end with it.
async fn accept(listener: TcpListener, served: Arc<Served>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = served.clone();
                connections.spawn(async move {
                    let _slot = slot;
                    serve(stream, served).await;
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "the socket of Eureka's API cannot accept");
                tokio::time::sleep(RESOURCE_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, served: Arc<Served>) {
    let service = hyper::service::service_fn(move |request| {
        let served = served.clone();
        async move { Ok::<_, Infallible>(served.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(Unread::new(stream, UNREAD_TIMEOUT)), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to Eureka's API ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_was_never_heard_is_not_waited_for_for_ever() {
        let counters = |failed_attempts| {
            let mut counters = weft_core::driver::Counters::default();
            counters.failed_attempts = failed_attempts;
            counters
        };
        let registry = |ready, failed_attempts| flow::RegistryStatus {
            is_relay: false,
            name: "eureka".parse().unwrap(),
            connected: ready,
            carries_configuration: false,
            ready,
            restored_age: None,
            last_error: None,
            down_since: None,
            state_error: None,
            counters: counters(failed_attempts),
            scopes: Vec::new(),
        };
        let late = AWAITED * 2;
        assert!(is_awaited(&registry(false, 0), late), "it is being read");
        assert!(is_awaited(&registry(false, 3), AWAITED / 2), "it may have failed by chance");
        assert!(!is_awaited(&registry(false, 3), late));
        assert!(!is_awaited(&registry(true, 3), Duration::ZERO));
    }
}
