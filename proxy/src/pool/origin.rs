//! One way from here to one place: its connections, and at most one dial under way that all who need it wait for.
//!
//! The next connection is opened when the last has used 80 % of its streams. A connection that is to go (renewed
//! certificate, age) is *replaceable*: it serves until its successor is there, then finishes what it has.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use weft_core::{name::ServiceKey, table::Upstream, tls::Peer, wire::Framing};

use super::{LIFETIME, Shared, Window, lifetime_until};
use crate::{
    connect::connect,
    connections::ConnectionInfo,
    dial::{self, Caller, Dialled, Missed},
    executor::LocalExecutor,
    fault::Fault,
    http::multiplexed::{self, Lease, Multiplexed, Phase},
};

/// How long a connection may have nothing to do.
const IDLE: Duration = Duration::from_secs(90);
/// How long a dial may take that no request waits for.
const AHEAD: Duration = Duration::from_secs(5);
/// How often a request waits for a dial that succeeds and then finds the connection gone, or taken.
const PATIENCE: usize = 16;

/// Connections that lead to the same place in the same name.
pub(crate) struct Origin {
    shared: Rc<Shared>,
    way: Way,
    connections: RefCell<Vec<Pooled>>,
    dial: RefCell<Option<Rc<Dial>>>,
    /// Whether a connection went since the last dial.
    went: Cell<bool>,
}

/// How the place is reached.
pub(super) enum Way {
    /// Through another agent.
    Mesh {
        /// In whose name.
        caller: Arc<Caller>,
        /// Where; announced anew now and then.
        upstream: RefCell<Arc<Upstream>>,
    },
    /// Without TLS.
    Plain(SocketAddr),
}

struct Pooled {
    connection: Rc<Multiplexed>,
    /// None without TLS.
    trust: Option<Trust>,
    /// Since when it is not trusted.
    distrusted: Cell<Option<Instant>>,
    replace_at: Instant,
    _window: Window,
}

/// On what grounds the other side of a connection is believed.
struct Trust {
    own_serial: String,
    peer: Peer,
    chain: Vec<CertificateDer<'static>>,
    checked_at: UnixTime,
}

/// A dial that several requests may wait for.
#[derive(Default)]
struct Dial {
    done: Notify,
    outcome: OnceCell<Result<(), Missed>>,
}

impl Origin {
    pub(super) fn new(shared: Rc<Shared>, way: Way) -> Rc<Self> {
        Rc::new(Self {
            shared,
            way,
            connections: RefCell::default(),
            dial: RefCell::default(),
            went: Cell::default(),
        })
    }

    /// A place on a connection; dials when there is none, and ahead when the last is nearly full.
    ///
    /// # Errors
    /// Why no connection could be made within `limit`.
    pub(crate) async fn lease(self: &Rc<Self>, limit: Duration) -> Result<Lease, Missed> {
        let mut late = None;
        for _ in 0..PATIENCE {
            if let Some((connection, wanting)) = self.best() {
                if wanting {
                    self.start_dial(limit);
                }
                return Ok(connection.lease());
            }
            let dial = self.start_dial(limit);
            let done = dial.done.notified();
            if dial.outcome.get().is_none() {
                // The dial may be one that others began, with more time, and it may not be the last.
                let late = *late.get_or_insert_with(|| Instant::now() + limit);
                timeout_at(late, done).await.map_err(|_| Fault::ConnectTimeout)?;
            }
            if let Some(Err(missed)) = dial.outcome.get() {
                return Err(missed.clone());
            }
        }
        Err(Fault::NotDispatched.into())
    }

    /// The connection with the fewest streams that has room, and whether another is wanted soon.
    fn best(&self) -> Option<(Rc<Multiplexed>, bool)> {
        let connections = self.connections.borrow();
        let usable = |pooled: &&Pooled| {
            matches!(pooled.connection.phase(), Phase::Open | Phase::Replaceable)
                && pooled.connection.streams() < pooled.connection.capacity()
        };
        let rank = |pooled: &&Pooled| (pooled.connection.phase() as u8, pooled.connection.streams());
        let connection = connections.iter().filter(usable).min_by_key(rank)?.connection.clone();
        let nearly_full = (connection.streams() + 1) * 5 > connection.capacity() * 4;
        let wanting = nearly_full || connection.phase() == Phase::Replaceable;
        Some((connection, wanting))
    }

    /// The dial under way, begun if there was none.
    fn start_dial(self: &Rc<Self>, limit: Duration) -> Rc<Dial> {
        if let Some(dial) = &*self.dial.borrow() {
            return dial.clone();
        }
        let dial = Rc::new(Dial::default());
        *self.dial.borrow_mut() = Some(dial.clone());
        let (origin, under_way) = (self.clone(), dial.clone());
        LocalExecutor.spawn(async move {
            let outcome = timeout(limit, origin.dial(limit)).await;
            let outcome = outcome.unwrap_or(Err(Fault::ConnectTimeout.into()));
            let made = outcome.is_ok();
            // Nobody else sets it.
            let _ = under_way.outcome.set(outcome);
            *origin.dial.borrow_mut() = None;
            under_way.done.notify_waiters();
            if made {
                // Certificates or trust that changed during the dial were not in time for it.
                origin.renew();
            }
        });
        dial
    }

    async fn dial(&self, limit: Duration) -> Result<(), Missed> {
        let window = Window::take(&self.shared);
        let made = match &self.way {
            Way::Plain(address) => self.dial_plain(*address, window.per_stream, limit).await,
            Way::Mesh { caller, upstream } => {
                let upstream = upstream.borrow().clone();
                self.dial_mesh(caller, &upstream, window.per_stream).await
            }
        };
        let (connection, trust, lifetime) = made?;
        for older in self.connections.borrow().iter() {
            if older.connection.phase() == Phase::Replaceable {
                older.connection.demote(Phase::Retired);
            }
        }
        let replace_at = Instant::now() + lifetime;
        self.connections.borrow_mut().push(Pooled {
            connection,
            trust,
            distrusted: Cell::default(),
            replace_at,
            _window: window,
        });
        Ok(())
    }

    async fn dial_plain(&self, address: SocketAddr, window: u32, limit: Duration) -> Result<Made, Missed> {
        let stream = connect(address, limit).await?;
        let is_here =
            address.ip().is_loopback() || stream.local_addr().is_ok_and(|own| own.ip() == address.ip());
        let peer = if is_here { multiplexed::Peer::Application } else { multiplexed::Peer::Remote(address) };
        let connection = Multiplexed::open(stream, window, peer).await;
        let connection = connection.map_err(|_| Fault::ConnectFailed)?;
        Ok((connection, None, LIFETIME))
    }

    async fn dial_mesh(&self, caller: &Caller, upstream: &Upstream, window: u32) -> Result<Made, Missed> {
        let dialer = &self.shared.dialer;
        let open = |pooled: &Pooled| pooled.connection.phase() == Phase::Open;
        if self.went.take() || !self.connections.borrow().iter().all(open) {
            // The other side may have ended it to show a new certificate. A session that began before would show the
            // old one again, and a ticket may have been given between the change and the end.
            dialer.tls.forget_sessions(&caller.workload.identity);
        }
        let Dialled { stream, peer, chain, checked_at, own_serial } =
            dial::dial(dialer, caller, upstream, Framing::Http2, None).await?;
        let own = dialer.credentials.load().identity(&caller.workload.identity).cloned();
        let own_end = own.map_or(peer.not_after, |own| own.leaf().validity.not_after);
        let lifetime = lifetime_until(own_end.min(peer.not_after));
        let connection = Multiplexed::open(stream, window, multiplexed::Peer::Agent).await;
        let connection = connection.map_err(|_| Fault::ConnectFailed)?;
        Ok((connection, Some(Trust { own_serial, peer, chain, checked_at }), lifetime))
    }

    /// Whether its connections are good for `announced`: they lead to that agent, which proved to be that workload. If so,
    /// takes note of what was announced anew.
    pub(super) fn follow(&self, announced: &Arc<Upstream>) -> bool {
        let Way::Mesh { upstream, .. } = &self.way else { return false };
        let mut known = upstream.borrow_mut();
        if Arc::ptr_eq(&known, announced) {
            return true;
        }
        let (before, after) = (&known.endpoint, &announced.endpoint);
        let same = before.mesh_address == after.mesh_address && before.identity == after.identity;
        if same {
            known.clone_from(announced);
        }
        same
    }

    /// Puts nothing more on connections whose peer is not trusted any more, and begins to replace those that show an old
    /// certificate of ours.
    pub(super) fn renew(self: &Rc<Self>) {
        let Way::Mesh { caller, .. } = &self.way else { return };
        let dialer = &self.shared.dialer;
        let credentials = dialer.credentials.load();
        let own = credentials.identity(&caller.workload.identity);
        let serial = own.map(|own| own.leaf().serial.as_str());
        let mut replace = false;
        for Pooled { connection, trust, distrusted, .. } in self.connections.borrow().iter() {
            let Some(trust) = trust else { continue };
            let current = credentials.trust_generation() == trust.peer.trust_generation;
            let proved = &trust.peer.identity;
            if !current && dialer.tls.check_server(&trust.chain, proved, trust.checked_at).is_err() {
                connection.demote(Phase::Retired);
                distrusted.set(distrusted.get().or_else(|| Some(Instant::now())));
            } else if serial.is_some_and(|serial| serial != trust.own_serial) || !current {
                connection.demote(Phase::Replaceable);
                replace |= connection.phase() == Phase::Replaceable;
            }
        }
        if replace {
            self.start_dial(AHEAD);
        }
    }

    /// Closes what idles, replaces what is old, forgets what is gone.
    pub(super) fn sweep(self: &Rc<Self>, now: Instant) {
        self.connections.borrow_mut().retain(|pooled| {
            let connection = &pooled.connection;
            if now >= pooled.replace_at {
                connection.demote(Phase::Replaceable);
            }
            if pooled.distrusted.get().is_some_and(|since| now - since >= self.shared.distrusted) {
                connection.abort();
            }
            if connection.idle_for(now).is_some_and(|idle| idle > IDLE) {
                connection.demote(Phase::Retired);
            }
            let gone = connection.phase() == Phase::Dead;
            if gone {
                self.went.set(true);
            }
            !gone
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    pub(super) fn infos(&self, now: Instant) -> Vec<ConnectionInfo> {
        let Way::Mesh { caller, upstream } = &self.way else { return Vec::new() };
        let upstream = upstream.borrow();
        let endpoint = &upstream.endpoint;
        let info = |pooled: &Pooled| {
            let trust = pooled.trust.as_ref()?;
            Some(ConnectionInfo {
                source: caller.workload.identity.clone(),
                own_serial: trust.own_serial.clone(),
                service: ServiceKey {
                    registry: upstream.registry.clone(),
                    service: endpoint.service.clone(),
                },
                instance: endpoint.instance.clone(),
                address: endpoint.mesh_address.as_ref().unwrap_or(&endpoint.address).socket(),
                peer: trust.peer.identity.clone(),
                peer_serial: trust.peer.serial.clone(),
                streams: pooled.connection.streams(),
                state: pooled.connection.phase().label(),
                age: pooled.connection.age(now),
            })
        };
        self.connections.borrow().iter().filter_map(info).collect()
    }
}

/// A new connection, why it is trusted, and how long it takes new requests.
type Made = (Rc<Multiplexed>, Option<Trust>, Duration);
