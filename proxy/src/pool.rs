//! Multiplexed connections to other agents, by calling workload and endpoint, and to applications that speak h2c, by
//! address. Each worker has its own.

mod origin;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use foldhash::fast::RandomState;
use tokio::time::Instant;
use weft_core::table::{EndpointState, Upstream};

pub(crate) use origin::Origin;
use origin::Way;

use crate::{
    config::Limits,
    connections::ConnectionInfo,
    dial::{Caller, Dialer},
    http::multiplexed::{STREAM_WINDOW, STREAMS},
};

/// The longest a connection takes new requests, give or take a fifth.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The smallest window of a stream when a worker's bytes are spent.
const LEAST_WINDOW: u32 = 8 * 1024;

type Origins = Vec<Rc<Origin>>;

/// A worker's multiplexed connections.
pub(crate) struct Pool {
    shared: Rc<Shared>,
    /// By the caller's number and the address of the endpoint's state, which the origin keeps from being reused. More
    /// than one only after an endpoint was announced at another agent or as another workload: who meant the one that was
    /// there before must not get the other, nor the other way round.
    mesh: RefCell<HashMap<(u64, usize), Origins, RandomState>>,
    plain: RefCell<HashMap<SocketAddr, Rc<Origin>, RandomState>>,
}

/// What all origins of a worker share.
pub(crate) struct Shared {
    dialer: Dialer,
    /// Bytes that peers may still be allowed to send unread.
    window_bytes: Cell<u64>,
    /// How long what is under way with a peer that is not trusted any more may go on.
    distrusted: Duration,
}

/// What a connection's peer may send unread, set aside until this is dropped.
struct Window {
    shared: Rc<Shared>,
    /// For each stream.
    per_stream: u32,
    taken: u64,
}

impl Window {
    /// Sets a connection's window aside: what all its streams may have on their way. The less is left for the worker,
    /// the smaller is the window of a new stream.
    fn take(shared: &Rc<Shared>) -> Self {
        let left = shared.window_bytes.get();
        let per_stream = u32::try_from(left / 4 / u64::from(STREAMS)).unwrap_or(STREAM_WINDOW);
        let per_stream = per_stream.clamp(LEAST_WINDOW, STREAM_WINDOW);
        let taken = (u64::from(per_stream) * u64::from(STREAMS)).min(left);
        shared.window_bytes.set(left - taken);
        Self { shared: shared.clone(), per_stream, taken }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.shared.window_bytes.set(self.shared.window_bytes.get() + self.taken);
    }
}

impl Pool {
    /// A pool within `limits`.
    pub(crate) fn new(dialer: Dialer, limits: &Limits) -> Self {
        let (window_bytes, distrusted) = (Cell::new(limits.window_bytes), limits.distrusted);
        let shared = Shared { dialer, window_bytes, distrusted };
        Self { shared: Rc::new(shared), mesh: RefCell::default(), plain: RefCell::default() }
    }

    /// The connections of `caller` to the agent of `upstream`.
    pub(crate) fn mesh(&self, caller: &Arc<Caller>, upstream: &Arc<Upstream>) -> Rc<Origin> {
        let state: *const EndpointState = Arc::as_ptr(&upstream.state);
        let mut origins = self.mesh.borrow_mut();
        let origins = origins.entry((caller.number, state as usize)).or_default();
        if let Some(origin) = origins.iter().find(|origin| origin.follow(upstream)) {
            return origin.clone();
        }
        let way = Way::Mesh { caller: caller.clone(), upstream: RefCell::new(upstream.clone()) };
        let origin = Origin::new(self.shared.clone(), way);
        origins.push(origin.clone());
        origin
    }

    /// The connections to an application that speaks h2c.
    pub(crate) fn plain(&self, address: SocketAddr) -> Rc<Origin> {
        let mut origins = self.plain.borrow_mut();
        origins
            .entry(address)
            .or_insert_with(|| Origin::new(self.shared.clone(), Way::Plain(address)))
            .clone()
    }

    /// Our certificates or our trust changed: connections made before are decided again and replaced.
    pub(crate) fn renew(&self) {
        for origin in self.mesh.borrow().values().flatten() {
            origin.renew();
        }
    }

    /// Closes what idles, replaces what is old, forgets what is gone.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let keep = |origin: &Rc<Origin>| {
            origin.sweep(now);
            Rc::strong_count(origin) > 1 || !origin.is_empty()
        };
        self.mesh.borrow_mut().retain(|_, origins| {
            origins.retain(&keep);
            !origins.is_empty()
        });
        self.plain.borrow_mut().retain(|_, origin| keep(origin));
    }

    /// Every connection to another agent, for the operator.
    pub(crate) fn connections(&self) -> Vec<ConnectionInfo> {
        let now = Instant::now();
        self.mesh.borrow().values().flatten().flat_map(|origin| origin.infos(now)).collect()
    }
}

/// How long a connection takes new requests: 5/6 of what is left of the certificate that ends first, at most about an
/// hour.
pub(crate) fn lifetime_until(earliest: SystemTime) -> Duration {
    let left = earliest.duration_since(SystemTime::now()).unwrap_or_default();
    let jitter = 0.8 + 0.4 * fastrand::f64();
    (left * 5 / 6).min(LIFETIME.mul_f64(jitter)).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests;
