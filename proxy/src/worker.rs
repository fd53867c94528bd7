//! A worker: one thread with a `LocalRuntime`, its own pools and counters, and a share of the connections.
//!
//! Workers share nothing that they write often. What they are told comes by one bounded channel of [commands](crate::command::Command); what
//! they read (tables, credentials) is published to them; connections that another worker accepted are handed over.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::{Rc, Weak},
    sync::{Arc, Weak as SharedWeak},
    task::Poll,
    time::Duration,
};

use tokio::time::{Sleep, sleep};
use weft_core::{publish::Reader, table::Table};

use crate::{
    command::Peers,
    config::Limits,
    dial::{Dialer, Grounds},
    http::{application::AppPool, burst::Waiting, head::HeadWatch},
    names::CallerNames,
    pool::Pool,
    record::Recorder,
    resilience::RetryBudgets,
    shown::ShownCertificates,
    signal::{CLOSING, Signal},
    slots::Slots,
    source::SocketTable,
    tcp::copy::Stop,
};

/// What every task of a worker can reach.
pub(crate) struct Worker {
    /// Which worker.
    pub(crate) index: usize,
    /// All workers.
    pub(crate) peers: Peers,
    /// Where requests go.
    pub(crate) table: Reader<Table>,
    /// Who we are, whom we trust, and how TLS is spoken.
    pub(crate) dialer: Dialer,
    /// Bounds.
    pub(crate) limits: Limits,
    /// Whether answers of our own say why.
    pub(crate) fault_header: Cell<bool>,
    /// 0 while all goes on, then [`DRAINING`], [`PARTING`](crate::signal::PARTING) or [`CLOSING`].
    pub(crate) drain: Rc<Signal>,
    /// The same for the connections of each way out, which drain too when it is not for them any more.
    pub(crate) ways_out: RefCell<Vec<Weak<Signal>>>,
    /// Raised when what protects a local workload, or trust, changed: open streams are decided again.
    pub(crate) decisions: Rc<Signal>,
    /// What inbound connections show.
    pub(crate) shown: ShownCertificates,
    /// What callers call themselves.
    pub(crate) names: RefCell<CallerNames>,
    /// Multiplexed connections.
    pub(crate) pool: Pool,
    /// Connections to local applications.
    pub(crate) apps: RefCell<HashMap<SocketAddr, Rc<AppPool>, foldhash::fast::RandomState>>,
    /// Where requests are recorded.
    pub(crate) recorder: Recorder,
    /// What may be tried again.
    pub(crate) budgets: RetryBudgets,
    /// The kernel's word on who connects; opened when it is first asked.
    pub(crate) sockets: RefCell<Option<SocketTable>>,
    /// Handshakes under way, of all workers.
    pub(crate) slots: Arc<Slots>,
    /// Local connections whose requests must have whole headers in time.
    pub(crate) heads: RefCell<Vec<SharedWeak<HeadWatch>>>,
    /// Local connections that wait for a request with all that they need for it.
    pub(crate) waiting: Waiting,
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

    /// Raises the drain to `phase`, everywhere.
    pub(crate) fn raise_drain(&self, phase: u32) {
        self.drain.raise(phase);
        self.ways_out.borrow_mut().retain(|way| way.upgrade().inspect(|way| way.raise(phase)).is_some());
    }

    /// A drain signal for the connections of one way out.
    pub(crate) fn way_out(&self) -> Rc<Signal> {
        let signal = Rc::new(Signal::default());
        signal.raise(self.drain.value());
        let mut ways_out = self.ways_out.borrow_mut();
        ways_out.retain(|way| way.strong_count() > 0);
        ways_out.push(Rc::downgrade(&signal));
        drop(ways_out);
        signal
    }

    /// Counts a connection until the result is dropped.
    pub(crate) fn count(self: &Rc<Self>) -> Counted {
        self.peers.loads[self.index].increase();
        Counted(self.clone())
    }

    /// Resolves when an open stream is to end: after the drain's deadline, or when trust or policy changed since
    /// `decided`, the value of [`Self::decisions`] before it was allowed, and `standing` says that it is denied. One that
    /// is distrusted has [a while](Limits::distrusted) to end by itself: a root is withdrawn when its successor is in
    /// place, and that is no reason to break off what goes on.
    pub(crate) async fn stop(&self, mut decided: u32, standing: impl Fn() -> Allowance) -> Stop {
        let (mut drain, mut decisions) = (self.drain.listen(), self.decisions.listen());
        let mut late: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|context| {
            if drain.poll(context) >= CLOSING {
                return Poll::Ready(Stop::Drain);
            }
            let now = decisions.poll(context);
            if std::mem::replace(&mut decided, now) != now {
                match standing() {
                    Allowance::Allowed => late = None,
                    Allowance::Distrusted if late.is_some() => {}
                    Allowance::Distrusted => late = Some(Box::pin(sleep(self.limits.distrusted))),
                    Allowance::Denied => return Poll::Ready(Stop::Deny),
                }
            }
            match &mut late {
                Some(late) => late.as_mut().poll(context).map(|()| Stop::Drain),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// The same for a stream that we opened: no rule is asked, and its agent is still trusted if its `grounds` hold.
    pub(crate) async fn stop_by_trust(&self, decided: u32, grounds: Option<Grounds>) -> Stop {
        let trust = grounds.map(|grounds| grounds.watch(&self.dialer));
        let standing = || Allowance::by_trust(trust.as_ref().is_none_or(|holds| holds()));
        self.stop(decided, standing).await
    }

    /// Connections under way.
    pub(crate) fn load(&self) -> u32 {
        self.peers.loads[self.index].get()
    }

    /// Watches a local connection until the result is dropped.
    pub(crate) fn watch_head(&self) -> Arc<HeadWatch> {
        let watch = Arc::default();
        self.heads.borrow_mut().push(Arc::downgrade(&watch));
        watch
    }

    /// Closes what idled, or was waited for, too long. Called every `interval`.
    pub(crate) fn sweep(&self, interval: Duration) {
        let limit = self.limits.header.as_millis() / interval.as_millis().max(1);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self.heads.borrow_mut().retain(|watch| watch.upgrade().inspect(|watch| watch.sweep(limit)).is_some());
        self.apps.borrow_mut().retain(|_, pool| {
            pool.sweep();
            pool.idle() > 0 || Rc::strong_count(pool) > 1
        });
        self.pool.sweep();
    }
}

/// Whether an open stream may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// It may.
    Allowed,
    /// Its other side is not trusted any more.
    Distrusted,
    /// A rule says no.
    Denied,
}

impl Allowance {
    /// Of a stream that no rule denies.
    pub(crate) fn by_trust(trusted: bool) -> Self {
        if trusted { Self::Allowed } else { Self::Distrusted }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.peers.loads[self.0.index].decrease();
    }
}
