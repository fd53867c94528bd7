//! A worker: one thread with a `LocalRuntime`, its own pools and counters, and a share of the connections.
//!
//! Workers share nothing that they write often. What they are told comes by one bounded channel of [`Command`]s; what
//! they read (tables, credentials) is published to them; connections that another worker accepted are handed over.

mod run;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use weft_core::{
    publish::Reader,
    table::Table,
    tls::{Credentials, TlsContext},
};

pub(crate) use run::{Start, run};

use crate::{
    config::Limits,
    connections::ConnectionInfo,
    inbound::Slots,
    listen::{Handoff, ListenerId, Role},
    pool::{AppPool, MeshPool},
    record::Recorder,
    resilience::RetryBudgets,
    signal::Signal,
    source::SocketTable,
};

/// Nothing new is accepted; what is under way finishes.
pub(crate) const DRAINING: u32 = 1;
/// The deadline is over: what is left is closed politely.
pub(crate) const CLOSING: u32 = 2;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept on this listening socket too.
    Listen(ListenerId, Role, crate::listen::Socket),
    /// Stop accepting there.
    Unlisten(ListenerId),
    /// Serve a connection that another worker accepted.
    Serve(ListenerId, Handoff),
    /// Begin to drain, and close what is left after the deadline. The answer comes when nothing is left: how many
    /// connections were closed at the deadline.
    Drain(Duration, oneshot::Sender<u32>),
    /// List the connections of the pools.
    Connections(oneshot::Sender<Vec<ConnectionInfo>>),
    /// How answers of our own look from now on.
    FaultHeader(bool),
}

/// How many connections a worker has; on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Load(AtomicU32);

impl Load {
    /// Connections now.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The other end of every worker, for handing connections over and for telling all.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    /// By worker.
    pub(crate) commands: Arc<[mpsc::Sender<Command>]>,
    /// By worker.
    pub(crate) loads: Arc<[Load]>,
}

/// What every task of a worker can reach.
pub(crate) struct Worker {
    /// Which worker.
    pub(crate) index: usize,
    /// All workers.
    pub(crate) peers: Peers,
    /// Where requests go.
    pub(crate) table: Reader<Table>,
    /// Who we are and whom we trust.
    pub(crate) credentials: Reader<Credentials>,
    /// How TLS is spoken.
    pub(crate) tls: Arc<TlsContext>,
    /// Bounds.
    pub(crate) limits: Limits,
    /// Whether answers of our own say why.
    pub(crate) fault_header: Cell<bool>,
    /// 0 while all goes on, then [`DRAINING`] or [`CLOSING`].
    pub(crate) drain: Rc<Signal>,
    /// Raised when policy or trust changed: open streams are decided again.
    pub(crate) decisions: Rc<Signal>,
    /// Raised when our own certificates changed.
    pub(crate) renewals: Rc<Signal>,
    /// Connections to other agents.
    pub(crate) mesh: MeshPool,
    /// Connections to local applications.
    apps: RefCell<HashMap<SocketAddr, Rc<AppPool>, foldhash::fast::RandomState>>,
    /// Where requests are recorded.
    pub(crate) recorder: Recorder,
    /// What may be tried again.
    pub(crate) budgets: RetryBudgets,
    /// The kernel's word on who connects; opened when it is first asked.
    pub(crate) sockets: RefCell<Option<SocketTable>>,
    /// Handshakes under way.
    pub(crate) slots: Slots,
    /// Connections that were cut at the drain's deadline.
    pub(crate) cut: Cell<u32>,
}

/// A connection's place in its worker's count.
pub(crate) struct Counted(Rc<Worker>);

impl Worker {
    /// The pool of an application's address.
    pub(crate) fn app(&self, address: SocketAddr) -> Rc<AppPool> {
        self.apps.borrow_mut().entry(address).or_insert_with(|| AppPool::new(address)).clone()
    }

    /// Counts a connection until the result is dropped.
    pub(crate) fn count(self: &Rc<Self>) -> Counted {
        self.peers.loads[self.index].0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// Connections under way.
    pub(crate) fn load(&self) -> u32 {
        self.peers.loads[self.index].get()
    }

    /// Closes what idled too long.
    fn sweep(&self) {
        self.apps.borrow_mut().retain(|_, pool| {
            pool.sweep();
            pool.idle() > 0 || Rc::strong_count(pool) > 1
        });
        self.mesh.sweep();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.peers.loads[self.0.index].0.fetch_sub(1, Ordering::Relaxed);
    }
}
