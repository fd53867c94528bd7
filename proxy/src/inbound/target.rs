//! What a mesh connection leads to, kept up to date with tables and trust.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use rustls_pki_types::{CertificateDer, UnixTime};
use weft_core::{
    context::{PolicyInput, PolicyRequest},
    identity::SpiffeId,
    name::{RegistryName, ServiceKey, ServiceName},
    resource::AppProtocol,
    table::{Decision, InboundPort, Table, View},
    wire::Framing,
    workload::Source,
};

use crate::{
    headers::Forwarded,
    http::{application::AppPool, head::HeadWatch},
    pool::Origin,
    slots::Place,
    standing::Standing,
    worker::Worker,
};

/// In records, the registry of a service that no registry declares: Istio's word for what is not known.
const UNDECLARED: &str = "unknown";

/// What a hello asked for, and as whom we answered.
#[derive(Debug)]
pub(crate) struct Target {
    /// The identity that the caller expects.
    pub(crate) identity: SpiffeId,
    /// The service.
    pub(crate) service: ServiceName,
    /// The application's port.
    pub(crate) port: u16,
}

/// Who calls.
#[derive(Debug)]
pub(crate) struct Caller {
    /// The certified identity, and what the hello says.
    pub(crate) source: Source,
    /// The certificates it showed.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// When they were checked. A later check is for what changed in our trust; age ends nothing.
    pub(crate) checked_at: UnixTime,
    /// Under which of our trust generations.
    pub(crate) trust_generation: u64,
    /// Where the connection comes from.
    pub(crate) peer_address: SocketAddr,
    /// Where it was accepted.
    pub(crate) local_address: SocketAddr,
}

/// One connection's way to an application.
pub(crate) struct Upstream {
    pub(crate) worker: Rc<Worker>,
    pub(crate) target: Target,
    pub(crate) caller: Caller,
    pub(crate) forwarded: Forwarded,
    /// Told of every request of HTTP/1.
    pub(crate) head: Arc<HeadWatch>,
    /// The worker's decisions before the connection was admitted.
    pub(crate) decided_at: u32,
    serving: RefCell<Option<Rc<Serving>>>,
    /// The table's generation when `serving` was looked up.
    table: Cell<u64>,
    standing: Standing,
    /// The connection's place among those of the mesh port.
    pub(crate) place: OnceCell<Place>,
}

/// What serves the target now.
pub(crate) struct Serving {
    /// The port and its policy.
    pub(crate) port: Arc<InboundPort>,
    /// The local workload.
    pub(crate) view: Arc<View>,
    /// For records: the service, with the registry that declares it, or [`UNDECLARED`].
    pub(crate) service: ServiceKey,
    /// Whether a rule needs requests to be told apart.
    pub(crate) layer_7: bool,
    /// The connections to an application that speaks HTTP/1.1.
    pub(crate) pool: Rc<AppPool>,
    /// Those to one that speaks HTTP/2.
    pub(crate) plain: Option<Rc<Origin>>,
}

impl Upstream {
    /// None when nothing here serves the target.
    pub(crate) fn new(
        worker: Rc<Worker>,
        target: Target,
        caller: Caller,
        framing: Framing,
    ) -> Option<Rc<Self>> {
        let decided_at = worker.decisions.value();
        let head = if framing == Framing::Http1 { worker.watch_head() } else { Arc::default() };
        head.begin();
        let this = Self {
            forwarded: Forwarded::new(caller.peer_address.ip()),
            head,
            decided_at,
            standing: Standing::new(caller.trust_generation),
            place: OnceCell::new(),
            worker,
            target,
            caller,
            serving: RefCell::default(),
            table: Cell::new(u64::MAX),
        };
        this.serving().map(|_| Rc::new(this))
    }

    /// What serves the target by the table in force; none when that is gone.
    pub(crate) fn serving(&self) -> Option<Rc<Serving>> {
        let table = self.worker.table.load();
        if self.table.replace(table.generation) != table.generation || self.serving.borrow().is_none() {
            let found = self.find(&table);
            *self.serving.borrow_mut() = found;
        }
        self.serving.borrow().clone()
    }

    /// What policy says of a request, or of the connection as a whole.
    pub(crate) fn decide(&self, serving: &Serving, request: Option<PolicyRequest<'_>>) -> Decision {
        let identity = &self.caller.source.identity;
        serving.port.authorization.decide(&PolicyInput { identity, port: self.target.port, request })
    }

    /// Whether the caller's certificate is still borne out by our bundles.
    pub(crate) fn is_trusted(&self) -> bool {
        let dialer = &self.worker.dialer;
        let generation = dialer.credentials.load().trust_generation();
        let check = || dialer.tls.check_client(&self.caller.chain, self.caller.checked_at).is_ok();
        self.standing.is_good(generation, check)
    }

    fn find(&self, table: &Table) -> Option<Rc<Serving>> {
        let key = (self.target.service.clone(), self.target.port);
        let mut views = table.views.iter().filter(|view| view.workload.identity == self.target.identity);
        let (view, port) = views.find_map(|view| Some((view, view.inbound.get(&key)?)))?;
        let is_http2 = matches!(port.port.protocol, AppProtocol::Http2 | AppProtocol::Grpc);
        let registry = port.registry.clone().or_else(|| RegistryName::new(UNDECLARED).ok())?;
        Some(Rc::new(Serving {
            port: port.clone(),
            view: view.clone(),
            service: ServiceKey { registry, service: self.target.service.clone() },
            layer_7: port.authorization.is_layer_7(),
            pool: self.worker.app(port.port.address),
            plain: is_http2.then(|| self.worker.pool.plain(port.port.address)),
        }))
    }
}
