//! The loop of one worker's thread.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{runtime, sync::mpsc, time::Instant};
use weft_core::{
    publish::Reader,
    table::{Table, View},
};

use crate::{
    command::{Command, Peers},
    config::Limits,
    dial::Dialer,
    executor::LocalExecutor,
    http::burst::Waiting,
    listen::{self, GRACE, Listeners},
    pool::Pool,
    record::Records,
    resilience::RetryBudgets,
    shown::ShownCertificates,
    signal::{CLOSING, DRAINING, PARTING, Signal},
    slots::Slots,
    worker::Worker,
};

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_millis(500);
/// How long polite closing may take after the drain's deadline.
const CLOSE: Duration = Duration::from_secs(2);

/// What a worker starts with.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) peers: Peers,
    pub(crate) table: Reader<Table>,
    pub(crate) dialer: Dialer,
    pub(crate) records: Arc<Records>,
    pub(crate) limits: Limits,
    pub(crate) slots: Arc<Slots>,
    pub(crate) fault_header: bool,
}

/// Serves until it is told to stop.
///
/// # Errors
/// When the runtime cannot be made.
pub(crate) fn run(index: usize, start: Start, commands: mpsc::Receiver<Command>) -> std::io::Result<()> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build_local(runtime::LocalOptions::default())?;
    runtime.block_on(serve(index, start, commands));
    Ok(())
}

async fn serve(index: usize, start: Start, mut commands: mpsc::Receiver<Command>) {
    let worker = Rc::new(Worker {
        index,
        pool: Pool::new(start.dialer.clone(), &start.limits),
        peers: start.peers,
        table: start.table,
        dialer: start.dialer,
        limits: start.limits,
        fault_header: Cell::new(start.fault_header),
        drain: Rc::default(),
        decisions: Rc::default(),
        ways_out: RefCell::default(),
        shown: ShownCertificates::default(),
        names: RefCell::default(),
        apps: RefCell::new(HashMap::default()),
        recorder: start.records.recorder(),
        budgets: RetryBudgets::default(),
        sockets: RefCell::default(),
        slots: start.slots,
        heads: RefCell::default(),
        waiting: Waiting::default(),
        cut: Cell::new(0),
    });
    LocalExecutor.spawn(watch_table(worker.table.clone(), worker.decisions.clone()));
    LocalExecutor.spawn({
        let worker = worker.clone();
        async move { worker.recorder.keep_flushing().await }
    });
    LocalExecutor.spawn(watch_credentials(worker.clone()));
    let mut listeners = Listeners::default();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None | Some(Command::Stop) => return,
                Some(command) => obey(&worker, &mut listeners, command),
            },
            _ = sweep.tick() => worker.sweep(SWEEP),
        }
    }
}

fn obey(worker: &Rc<Worker>, listeners: &mut Listeners, command: Command) {
    match command {
        Command::Listen(id, role, socket, places) => listeners.add(worker, id, role, socket, places),
        Command::Unlisten(id, parting) => listeners.remove(id, parting),
        Command::Serve(id, role, handoff, place) => {
            listen::adopt(worker, &listeners.purpose(worker, id, role), handoff, place);
        }
        Command::Drain(deadline, done) => {
            worker.raise_drain(DRAINING);
            listeners.clear();
            let worker = worker.clone();
            LocalExecutor.spawn(async move {
                let _ = done.send(drain(&worker, deadline).await);
            });
        }
        Command::Connections(answer) => {
            let _ = answer.send(worker.pool.connections());
        }
        Command::FaultHeader(on) => worker.fault_header.set(on),
        // The loop ends before it gets here.
        Command::Stop => {}
    }
}

/// Waits for the last connection, at most until the deadline and then [`CLOSE`] more.
async fn drain(worker: &Rc<Worker>, deadline: Duration) -> u32 {
    let began = Instant::now();
    until_idle(worker, began + GRACE.min(deadline / 2)).await;
    worker.raise_drain(PARTING);
    until_idle(worker, began + deadline).await;
    worker.cut.set(worker.load());
    worker.raise_drain(CLOSING);
    until_idle(worker, Instant::now() + CLOSE).await;
    worker.cut.get()
}

async fn until_idle(worker: &Worker, end: Instant) {
    while worker.load() > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Raises `decisions` when what protects a local workload changed. All other changes of the table are news for the next
/// request only, and must not wake every open stream.
async fn watch_table(mut table: Reader<Table>, decisions: Rc<Signal>) {
    let mut before = table.load().views.clone();
    while table.changed().await {
        let views = table.load().views.clone();
        if !is_protected_alike(&before, &views) {
            decisions.raise(decisions.value() + 1);
        }
        before = views;
    }
}

/// Whether the same rules stand before the same ports. What did not change is the very same in both
/// ([`InboundPort`](weft_core::table::InboundPort)s are kept from table to table).
fn is_protected_alike(before: &[Arc<View>], after: &[Arc<View>]) -> bool {
    let alike = |(before, after): (&Arc<View>, &Arc<View>)| {
        let same_port = |key, port| before.inbound.get(key).is_some_and(|old| Arc::ptr_eq(old, port));
        Arc::ptr_eq(before, after)
            || before.workload.identity == after.workload.identity
                && before.inbound.len() == after.inbound.len()
                && after.inbound.iter().all(|(key, port)| same_port(key, port))
    };
    before.len() == after.len() && before.iter().zip(after).all(alike)
}

/// A change of credentials is a change of trust, or of who we are, or both.
async fn watch_credentials(worker: Rc<Worker>) {
    let mut credentials = worker.dialer.credentials.clone();
    let mut trust = credentials.load().trust_generation();
    while credentials.changed().await {
        let now = credentials.load().trust_generation();
        if std::mem::replace(&mut trust, now) != now {
            worker.decisions.raise(worker.decisions.value() + 1);
        }
        worker.shown.renew(&credentials.load());
        worker.pool.renew();
    }
}

#[cfg(test)]
mod tests;
