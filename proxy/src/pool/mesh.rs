//! Multiplexed connections to other agents, by calling workload and endpoint.
//!
//! An origin is one workload's view of one endpoint: its connections, and at most one dial under way that all who need
//! it wait for. The next connection is opened when the last has used 80 % of its streams. A connection that is to go
//! (renewed certificate, age) is *replaceable*: it serves until its successor is there, then finishes what it has.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::Instant};
use weft_core::{
    table::{EndpointState, Upstream},
    wire::Framing,
    workload::Workload,
};

use super::multiplexed::{Lease, Multiplexed, Phase, STREAM_WINDOW, STREAMS};
use crate::{
    connections::ConnectionInfo,
    dial::{self, Dialled},
    executor::LocalExecutor,
    fault::Fault,
    worker::Worker,
};

/// How long a connection may have nothing to do.
const IDLE: Duration = Duration::from_secs(90);
/// The longest a connection takes new requests, give or take a fifth.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The smallest window of a stream when a worker's bytes are spent.
const LEAST_WINDOW: u32 = 8 * 1024;

/// The local workload in whose name connections are made. Its number is unique in the process.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Tells pools of workloads apart; never reused.
    pub(crate) number: u64,
    /// Who it is.
    pub(crate) workload: Arc<Workload>,
}

/// All of a worker's connections to other agents.
pub(crate) struct MeshPool {
    origins: RefCell<HashMap<(u64, usize), Rc<Origin>, foldhash::fast::RandomState>>,
    /// Bytes that peers may still be allowed to send unread.
    window_bytes: Rc<Cell<u64>>,
}

/// One workload's connections to one endpoint.
pub(crate) struct Origin {
    caller: Arc<Caller>,
    upstream: RefCell<Arc<Upstream>>,
    /// Keeps the address that is the key of the map from being used for another.
    _state: Arc<EndpointState>,
    connections: RefCell<Vec<Pooled>>,
    dial: RefCell<Option<Rc<Dial>>>,
}

struct Pooled {
    connection: Rc<Multiplexed>,
    own_serial: String,
    peer: weft_core::tls::Peer,
    replace_at: Instant,
    window_bytes: u64,
}

/// A dial that several requests may wait for.
#[derive(Default)]
struct Dial {
    done: Notify,
    outcome: Cell<Option<Result<(), Fault>>>,
}

impl MeshPool {
    /// A pool whose peers may send `window_bytes` unread.
    pub(crate) fn new(window_bytes: u64) -> Self {
        Self { origins: RefCell::default(), window_bytes: Rc::new(Cell::new(window_bytes)) }
    }

    /// The connections of `caller` to `upstream`.
    pub(crate) fn origin(&self, caller: &Arc<Caller>, upstream: &Arc<Upstream>) -> Rc<Origin> {
        let key = (caller.number, Arc::as_ptr(&upstream.state) as usize);
        let mut origins = self.origins.borrow_mut();
        let origin = origins.entry(key).or_insert_with(|| {
            Rc::new(Origin {
                caller: caller.clone(),
                upstream: RefCell::new(upstream.clone()),
                _state: upstream.state.clone(),
                connections: RefCell::default(),
                dial: RefCell::default(),
            })
        });
        if !Arc::ptr_eq(&origin.upstream.borrow(), upstream) {
            origin.follow(upstream);
        }
        origin.clone()
    }

    /// Begins to replace connections whose certificate, ours, is no longer the one in force.
    pub(crate) fn renew(&self, worker: &Rc<Worker>) {
        let credentials = worker.credentials.load_full();
        for origin in self.origins.borrow().values() {
            let current = credentials.identity(&origin.caller.workload.identity);
            let current = current.map(|certificate| certificate.leaf().serial.clone());
            let stale = |pooled: &Pooled| {
                current.as_ref().is_some_and(|serial| *serial != pooled.own_serial)
                    || pooled.peer.trust_generation != credentials.trust_generation()
            };
            let mut any = false;
            for pooled in origin.connections.borrow().iter().filter(|pooled| stale(pooled)) {
                pooled.connection.demote(Phase::Replaceable);
                any = true;
            }
            if any {
                origin.start_dial(worker, Duration::from_secs(5));
            }
        }
    }

    /// Closes what idles, replaces what is old, forgets what is gone.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.origins.borrow_mut().retain(|_, origin| {
            for pooled in origin.connections.borrow().iter() {
                if now >= pooled.replace_at {
                    pooled.connection.demote(Phase::Replaceable);
                }
                if pooled.connection.idle_for(now).is_some_and(|idle| idle > IDLE) {
                    pooled.connection.demote(Phase::Retired);
                }
            }
            self.forget_dead(origin);
            Rc::strong_count(origin) > 1 || !origin.connections.borrow().is_empty()
        });
    }

    fn forget_dead(&self, origin: &Origin) {
        origin.connections.borrow_mut().retain(|pooled| {
            let dead = pooled.connection.phase() == Phase::Dead;
            if dead {
                self.window_bytes.set(self.window_bytes.get() + pooled.window_bytes);
            }
            !dead
        });
    }

    /// Every connection, for the operator.
    pub(crate) fn connections(&self) -> Vec<ConnectionInfo> {
        let now = Instant::now();
        let origins = self.origins.borrow();
        let all = origins.values().flat_map(|origin| {
            let upstream = origin.upstream.borrow().clone();
            let source = origin.caller.workload.identity.clone();
            let connections = origin.connections.borrow();
            let infos = connections.iter().map(|pooled| pooled.info(&source, &upstream, now));
            infos.collect::<Vec<_>>()
        });
        all.collect()
    }
}

impl Pooled {
    fn info(
        &self,
        source: &weft_core::identity::SpiffeId,
        upstream: &Upstream,
        now: Instant,
    ) -> ConnectionInfo {
        let endpoint = &upstream.endpoint;
        ConnectionInfo {
            source: source.clone(),
            own_serial: self.own_serial.clone(),
            service: weft_core::name::ServiceKey {
                registry: upstream.registry.clone(),
                service: endpoint.service.clone(),
            },
            instance: endpoint.instance.clone(),
            address: endpoint.mesh_address.unwrap_or(endpoint.address),
            peer: self.peer.identity.clone(),
            peer_serial: self.peer.serial.clone(),
            streams: self.connection.streams(),
            state: match self.connection.phase() {
                Phase::Open => "open",
                Phase::Replaceable => "replaceable",
                Phase::Retired => "retired",
                Phase::Dead => "dead",
            },
            age: self.connection.age(now),
        }
    }
}

impl Origin {
    /// A place on a connection; dials when there is none, and ahead when the last is nearly full.
    ///
    /// # Errors
    /// Why no connection could be made within `limit`.
    pub(crate) async fn lease(self: &Rc<Self>, worker: &Rc<Worker>, limit: Duration) -> Result<Lease, Fault> {
        loop {
            let best = self.best();
            if let Some((connection, wanting)) = best {
                if wanting {
                    self.start_dial(worker, limit);
                }
                return Ok(connection.lease());
            }
            let dial = self.start_dial(worker, limit);
            let waiting = dial.done.notified();
            if dial.outcome.get().is_none() {
                waiting.await;
            }
            if let Some(Err(fault)) = dial.outcome.get() {
                return Err(fault);
            }
        }
    }

    /// The connection with the fewest streams that has room, and whether another is wanted soon.
    fn best(&self) -> Option<(Rc<Multiplexed>, bool)> {
        let connections = self.connections.borrow();
        let rank = |pooled: &&Pooled| (pooled.connection.phase() as u8, pooled.connection.streams());
        let usable = |pooled: &&Pooled| {
            matches!(pooled.connection.phase(), Phase::Open | Phase::Replaceable)
                && pooled.connection.streams() < pooled.connection.capacity()
        };
        let best = connections.iter().filter(usable).min_by_key(rank)?;
        let connection = best.connection.clone();
        let nearly_full = (connection.streams() + 1) * 5 > connection.capacity() * 4;
        let wanting = nearly_full || connection.phase() == Phase::Replaceable;
        Some((connection, wanting))
    }

    /// Takes note of an endpoint that was announced anew; another address or identity needs other connections.
    fn follow(&self, upstream: &Arc<Upstream>) {
        let before = self.upstream.replace(upstream.clone());
        let same = before.endpoint.mesh_address == upstream.endpoint.mesh_address
            && before.endpoint.identity == upstream.endpoint.identity;
        if !same {
            for pooled in self.connections.borrow().iter() {
                pooled.connection.demote(Phase::Retired);
            }
        }
    }

    /// The dial under way, begun if there was none.
    fn start_dial(self: &Rc<Self>, worker: &Rc<Worker>, limit: Duration) -> Rc<Dial> {
        if let Some(dial) = &*self.dial.borrow() {
            return dial.clone();
        }
        let dial = Rc::new(Dial::default());
        *self.dial.borrow_mut() = Some(dial.clone());
        let (origin, worker, under_way) = (self.clone(), worker.clone(), dial.clone());
        LocalExecutor.spawn(async move {
            let outcome = match tokio::time::timeout(limit, origin.dial(&worker)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Fault::ConnectTimeout),
            };
            under_way.outcome.set(Some(outcome));
            *origin.dial.borrow_mut() = None;
            under_way.done.notify_waiters();
        });
        dial
    }

    async fn dial(&self, worker: &Rc<Worker>) -> Result<(), Fault> {
        let upstream = self.upstream.borrow().clone();
        let Dialled { stream, peer, own_serial, .. } =
            dial::dial(worker, &self.caller, &upstream, Framing::Http2, None).await?;
        let left = &worker.mesh.window_bytes;
        let per_stream = u32::try_from(left.get() / 4 / u64::from(STREAMS)).unwrap_or(STREAM_WINDOW);
        let window = per_stream.clamp(LEAST_WINDOW, STREAM_WINDOW);
        let connection = Multiplexed::open(stream, window).await.map_err(|_| Fault::ConnectFailed)?;
        let window_bytes = (u64::from(window) * u64::from(STREAMS)).min(left.get());
        left.set(left.get() - window_bytes);
        let replace_at = Instant::now() + lifetime(&peer, worker, &self.caller);
        for older in self.connections.borrow().iter() {
            if older.connection.phase() == Phase::Replaceable {
                older.connection.demote(Phase::Retired);
            }
        }
        worker.mesh.forget_dead(self);
        self.connections.borrow_mut().push(Pooled { connection, own_serial, peer, replace_at, window_bytes });
        Ok(())
    }
}

/// How long a connection takes new requests: 5/6 of what is left of the certificate that ends first, at most about an
/// hour.
pub(crate) fn lifetime_until(earliest: SystemTime) -> Duration {
    let left = earliest.duration_since(SystemTime::now()).unwrap_or_default();
    let jitter = 0.8 + 0.4 * fastrand::f64();
    (left * 5 / 6).min(LIFETIME.mul_f64(jitter)).max(Duration::from_secs(1))
}

fn lifetime(peer: &weft_core::tls::Peer, worker: &Worker, caller: &Caller) -> Duration {
    let credentials = worker.credentials.load();
    let own = credentials.identity(&caller.workload.identity);
    let own = own.map_or(peer.not_after, |certificate| certificate.leaf().validity.not_after);
    lifetime_until(own.min(peer.not_after))
}
