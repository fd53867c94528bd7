//! From registries to tables, in one task: drivers, then merge, then compile, then publish.
//!
//! One task owns everything that changes, so there is no lock and no order to get wrong. Words that come in together are
//! compiled together. What was restored from disk is in force before the first registry answers. Registries come and go
//! while it runs; each is known by a number that is never given twice.

mod drivers;
mod faults;
mod followed;
mod handle;
mod outdated;
mod owners;
mod registries;
mod status;
mod words;

use std::{
    fmt,
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

pub use handle::{FlowHandle, Registries};
pub use status::{RegistryStatus, ScopeStatus, Status};

use drivers::{Drivers, Heard};
use followed::Followed;
use handle::Command;
use owners::{Claim, Owners};
use registries::Leaving;

use crate::{
    compile::{CompileConfig, Compiler, Join},
    driver::{Backoff, Message, StateFile, Told},
    locality::Locality,
    merge::{Limits, Merge, Snapshot},
    publish::{Publisher, Reader},
    registry::{Event, Registry, Scope},
    table::Table,
    workload::Workload,
};

/// How many words may wait between the drivers and the flow.
const CHANNEL: usize = 1024;
/// How many words are compiled together at most: a long first list is published in parts.
const BATCH: usize = 8192;
/// How often the flow looks after what is not urgent: writes and old tables.
const TICK: Duration = Duration::from_secs(1);
/// A status is published at most so often, but for the first change after a pause, which is published at once.
const STATUS_EVERY: Duration = Duration::from_millis(100);

/// One registry to follow.
pub struct Source {
    /// The registry.
    pub registry: Arc<dyn Registry>,
    /// Of what it may speak, and of a relay all that it speaks for.
    pub limits: Limits,
    /// How it is tried again.
    pub backoff: Backoff,
}

impl Source {
    /// A registry without limits, tried again as usual.
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self { registry, limits: Limits::default(), backoff: Backoff::default() }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("registry", self.registry.name()).finish_non_exhaustive()
    }
}

/// What a flow is made of.
#[derive(Debug)]
pub struct FlowConfig {
    /// The registries, most authoritative first, each of another name. What a relay speaks for ranks in its place.
    pub sources: Vec<Source>,
    /// Which services of different registries are one.
    pub joins: Vec<Join>,
    /// The local workloads.
    pub workloads: Vec<Arc<Workload>>,
    /// Where this process runs.
    pub locality: Locality,
    /// Where last good states lie, `<registry>.state` each; the folder must exist. None keeps nothing over a restart.
    pub state_dir: Option<PathBuf>,
    /// The clock: what ages are counted by.
    pub now: fn() -> SystemTime,
}

impl FlowConfig {
    /// A flow of these registries with no workloads, no joins and no state on disk.
    #[must_use]
    pub fn new(sources: Vec<Source>) -> Self {
        Self {
            sources,
            joins: Vec::new(),
            workloads: Vec::new(),
            locality: Locality::default(),
            state_dir: None,
            now: SystemTime::now,
        }
    }
}

/// Follows registries and publishes tables.
pub struct Flow {
    merge: Merge,
    compiler: Compiler,
    /// In the order of the configuration, most authoritative first.
    followed: Vec<Followed>,
    /// The number of the next registry that is followed.
    next_number: usize,
    drivers: Drivers,
    state_dir: Option<PathBuf>,
    owners: Owners,
    tables: Publisher<Table>,
    snapshots: Publisher<Snapshot>,
    statuses: Publisher<Status>,
    commands: mpsc::Receiver<Command>,
    handle: FlowHandle,
    now: fn() -> SystemTime,
    pending: Pending,
    /// Until each registry has said all it has, or failed to; never again afterwards: what is called stays so.
    is_starting: bool,
    leaving: Option<Leaving>,
}

/// What is to be published.
#[derive(Default)]
struct Pending {
    snapshot: bool,
    status: bool,
    status_published: Option<Instant>,
}

impl Flow {
    /// Restores the last good states and publishes the first table. Reads files, so it blocks.
    #[must_use]
    pub fn new(config: FlowConfig) -> Self {
        let now = (config.now)();
        let limits =
            config.sources.iter().map(|source| (source.registry.name().clone(), source.limits.clone()));
        let merge = Merge::new(limits.collect());
        let (sender, commands) = mpsc::channel(16);
        let (joins, workloads) = (config.joins, config.workloads);
        let mut flow = Self {
            merge,
            compiler: Compiler::new(CompileConfig {
                precedence: Vec::new(),
                authority: None,
                joins,
                workloads,
                locality: config.locality,
                held: Vec::new(),
            }),
            followed: Vec::new(),
            next_number: 0,
            drivers: Drivers::new(CHANNEL),
            state_dir: config.state_dir,
            owners: Owners::default(),
            tables: Publisher::new(Table::default()),
            snapshots: Publisher::new(Snapshot::default()),
            statuses: Publisher::new(Status::default()),
            commands,
            handle: FlowHandle { commands: sender },
            now: config.now,
            pending: Pending::default(),
            is_starting: true,
            leaving: None,
        };
        for source in config.sources {
            let followed = flow.begin(source);
            flow.followed.push(followed);
        }
        flow.set_owners();
        for at in 0..flow.followed.len() {
            flow.restore(at, now);
        }
        flow.rank();
        flow.publish(true);
        flow
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> Reader<Table> {
        self.tables.reader()
    }

    /// The snapshots: for a relay, and for whoever asks what the registries say.
    #[must_use]
    pub fn snapshots(&self) -> Reader<Snapshot> {
        self.snapshots.reader()
    }

    /// How the registries are.
    #[must_use]
    pub fn statuses(&self) -> Reader<Status> {
        self.statuses.reader()
    }

    /// For asking things of the flow while it runs.
    #[must_use]
    pub fn handle(&self) -> FlowHandle {
        self.handle.clone()
    }

    /// Runs until `stop` is ready, then writes what is unsaved.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        for followed in &mut self.followed {
            self.drivers.start(followed);
        }
        let mut saves = JoinSet::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        loop {
            let rest = self.rest();
            tokio::select! {
                () = &mut stop => break,
                heard = self.drivers.next() => {
                    match heard {
                        Heard::Told(message) => self.take(message),
                        Heard::Broke(number) => self.mend(number),
                    }
                    for _ in 1..BATCH {
                        let Some(message) = self.drivers.told() else { break };
                        self.take(message);
                    }
                    self.publish(false);
                    if saves.is_empty() && self.followed.iter().any(Followed::was_never_saved) {
                        self.start_saves(&mut saves, false);
                    }
                }
                Some(command) = self.commands.recv() => self.obey(command),
                () = tokio::time::sleep(rest), if self.pending.status => self.publish_status(),
                _ = ticks.tick() => self.tick(&mut saves),
                Some(Ok((source, outcome))) = saves.join_next() => self.saved(source, outcome),
            }
        }
        let closed = self.drivers.stop();
        tokio::join!(self.save_all(saves), closed);
    }

    /// Gives a registry its number and its file.
    fn begin(&mut self, source: Source) -> Followed {
        let file = self.state_dir.as_ref().map(|dir| dir.join(format!("{}.state", source.registry.name())));
        self.next_number += 1;
        Followed::new(self.next_number, source, file.map(StateFile::new))
    }

    fn restore(&mut self, at: usize, now: SystemTime) {
        let saved = self.followed[at].restore(now);
        self.merge.restore_required_tls(saved.required_tls);
        let registry = self.followed[at].registry.clone();
        for mut scope in saved.scopes {
            scope.origins.retain(|origin| registry.asks_for(&origin.name));
            if self.may_say(at, &scope.scope) {
                let name = scope.scope.clone();
                self.merge.restore(scope, now);
                faults::tell(&name, None, self.merge.snapshot().scopes.get(&name));
            }
        }
        let scopes = &self.followed[at].scopes;
        let departed = saved.departed.into_iter();
        let ours = departed.filter(|(key, _)| scopes.iter().any(|scope| scope.registry == key.registry));
        self.merge.restore_departed(ours);
        self.pending.snapshot = true;
    }

    /// Whether this source speaks for the scope.
    fn may_say(&mut self, at: usize, scope: &Scope) -> bool {
        let followed = &mut self.followed[at];
        match self.owners.claim(followed, &scope.registry) {
            Claim::Refused => return false,
            Claim::Held => followed.note_scope(scope),
            Claim::New => {
                followed.note_scope(scope);
                self.merge.set_relay(&scope.registry, Some(followed.name()));
                self.rank();
            }
        }
        true
    }

    /// Brings the order of all registries up to date.
    fn rank(&mut self) {
        let precedence = self.owners.precedence(&self.followed);
        let authority = self.owners.authority(&self.followed);
        self.compiler.configure(CompileConfig { precedence, authority, ..self.compiler.config().clone() });
    }

    fn take(&mut self, message: Message) {
        let Message { source, told } = message;
        // The last words of one that is followed no more, or no more in that way.
        let Some(source) = self.followed.iter().position(|followed| followed.number == source) else {
            return;
        };
        let now = (self.now)();
        self.pending.status = true;
        let refused = matches!(&told, Told::Event(event) if !self.may_say(source, event.scope()));
        self.followed[source].note(&told, refused, now);
        match told {
            Told::Event(_) if refused => {}
            Told::Event(event) => {
                let may_rank_anew = matches!(event, Event::Reset { .. } | Event::Commit { .. });
                if may_rank_anew && self.followed[source].note_relayed() {
                    self.rank();
                }
                if self.apply(source, event, now) {
                    self.lack_unlisted(source, now);
                }
            }
            Told::Ended { uncommitted, error } => {
                tracing::debug!(registry = %self.followed[source].name(), %error, "stream ended");
                self.abandon(source, &uncommitted);
            }
            Told::ListedAnew { uncommitted } => self.abandon(source, &uncommitted),
            Told::Aside(events) => self.take_aside(source, events, now),
        }
    }

    /// When a relay has listed all that it speaks for, what it spoke of before and does no more is doubted, and goes.
    fn lack_unlisted(&mut self, source: usize, now: SystemTime) {
        for scope in self.followed[source].unlisted() {
            self.followed[source].save_soon();
            if self.merge.lack(&scope, now) {
                self.followed[source].drop_scope(&scope);
            }
        }
    }

    /// Forgets what a source said and never committed. What others say of scopes that are theirs stays.
    fn abandon(&mut self, source: usize, uncommitted: &[Scope]) {
        let number = self.followed[source].number;
        let own = uncommitted.iter().filter(|scope| self.owners.source(&scope.registry) == Some(number));
        own.for_each(|scope| self.merge.abandon(scope));
    }

    fn obey(&mut self, command: Command) {
        self.pending.status = true;
        match command {
            Command::Workloads(workloads, reply) => {
                self.compiler.configure(CompileConfig { workloads, ..self.compiler.config().clone() });
                self.answer(reply, ());
            }
            Command::Registries(registries, reply) => {
                self.set_registries(registries);
                self.answer(reply, ());
            }
            Command::DropUnconfirmed(registry, reply) => {
                let dropped = self.merge.drop_unconfirmed(registry.as_ref());
                if dropped > 0 {
                    self.pending.snapshot = true;
                    self.followed.iter_mut().for_each(Followed::save_soon);
                }
                self.answer(reply, dropped);
            }
            Command::AllowPlaintext(service, port, reply) => {
                let held = self.merge.allow_plaintext(&service, port.as_ref());
                let number = self.owners.source(&service.registry).filter(|_| held);
                if let Some(source) = self.followed.iter_mut().find(|it| Some(it.number) == number) {
                    source.save_soon();
                    source.list_anew();
                }
                self.answer(reply, held);
            }
        }
    }

    /// Puts a command in force before it is answered. Whoever asked may have gone.
    fn answer<T>(&mut self, reply: tokio::sync::oneshot::Sender<T>, answer: T) {
        self.publish(true);
        let _gone = reply.send(answer);
    }

    /// Publishes what changed. `at_once` does not let a busy status wait.
    fn publish(&mut self, at_once: bool) {
        self.let_leave();
        let changes = self.merge.take_changes();
        let before = self.tables.current();
        if self.is_starting {
            let held = self.owners.held(&self.followed);
            self.is_starting = !held.is_empty();
            self.compiler.configure(CompileConfig { held, ..self.compiler.config().clone() });
        }
        let mut table = self.compiler.compile(self.merge.snapshot(), &changes);
        table.is_partial = self.followed.iter().any(|followed| !followed.is_ready());
        if table.generation != before.generation || table.is_partial != before.is_partial {
            self.tables.publish(table);
            self.pending.status = true;
        }
        if std::mem::take(&mut self.pending.snapshot) {
            self.snapshots.publish(self.merge.snapshot().clone());
        }
        if at_once || (self.pending.status && self.rest().is_zero()) {
            self.publish_status();
        }
    }

    /// How long a status must wait that is not published yet: no longer, or who waits to be ready waits for the next tick.
    fn rest(&self) -> Duration {
        let since = self.pending.status_published.map_or(STATUS_EVERY, |at| at.elapsed());
        STATUS_EVERY.saturating_sub(since)
    }

    fn publish_status(&mut self) {
        let snapshot = self.merge.snapshot();
        let mut diagnostics: Vec<_> = self.merge.diagnostics().cloned().collect();
        diagnostics.extend(self.compiler.diagnostics());
        diagnostics.extend(self.owners.diagnostics(&self.followed));
        let status = Status {
            registries: self.followed.iter().map(|followed| followed.status(snapshot)).collect(),
            precedence: self.compiler.config().precedence.clone(),
            joins: self.compiler.config().joins.clone(),
            diagnostics,
            snapshot_generation: snapshot.generation,
            table_generation: self.tables.current().generation,
        };
        self.statuses.publish(status);
        self.pending.status = false;
        self.pending.status_published = Some(Instant::now());
    }

    fn tick(&mut self, saves: &mut Saves) {
        let now = (self.now)();
        for followed in &mut self.followed {
            followed.settle_unconfirmed(self.merge.snapshot(), now);
        }
        let is_freed = self.merge.free_names(now);
        self.pending.snapshot |= is_freed;
        if is_freed || self.leaving.is_some() {
            self.publish(false);
        }
        self.tables.sweep();
        self.snapshots.sweep();
        self.statuses.sweep();
        if saves.is_empty() {
            self.start_saves(saves, false);
        }
    }

    fn start_saves(&mut self, saves: &mut Saves, last: bool) {
        for followed in &mut self.followed {
            let number = followed.number;
            if let Some(save) = followed.due_save(self.merge.snapshot(), self.merge.required_tls(), last) {
                saves.spawn_blocking(move || (number, save.write()));
            }
        }
    }

    fn saved(&mut self, number: usize, outcome: Result<Duration, String>) {
        self.pending.status |= outcome.is_err();
        if let Some(followed) = self.followed.iter_mut().find(|followed| followed.number == number) {
            followed.saved(outcome);
        }
    }

    async fn save_all(mut self, mut saves: Saves) {
        while let Some(ended) = saves.join_next().await {
            if let Ok((source, outcome)) = ended {
                self.saved(source, outcome);
            }
        }
        self.start_saves(&mut saves, true);
        while let Some(ended) = saves.join_next().await {
            if let Ok((source, outcome)) = ended {
                self.saved(source, outcome);
            }
        }
    }
}

type Saves = JoinSet<(usize, Result<Duration, String>)>;

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.followed.iter().map(Followed::name).collect();
        f.debug_struct("Flow").field("registries", &names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
