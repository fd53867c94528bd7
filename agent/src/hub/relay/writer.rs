//! Keeps the log: compares each snapshot with the last, gives what changed new positions, remembers, then publishes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use imbl::OrdMap;
use weft_core::{
    control::discovery::EncodedReplace,
    merge::{Partition, ScopeState, Snapshot},
    name::{RegistryName, ServiceName},
    publish::{Publisher, Reader},
    registry::{Completeness, Scope},
    resource::ResourceKey,
};

use super::{
    KEPT_GONE, Piece, RelayState, RelayedScope,
    piece::{NamedPiece, gone, policy_piece, route_piece, service_of, service_pieces},
};
use crate::hub::{
    file::FileFault,
    journal::{Journal, RelayRecord},
};

/// No position lies above this one: it would take ages to get there, and what a damaged journal says must not be counted
/// on.
const HIGHEST: u64 = 1 << 60;
/// Under this name the journal remembers how much of the past was forgotten. No piece is called so.
const FORGOTTEN: &str = "";

/// The one writer of the relay.
pub struct Relay {
    journal: Arc<Journal>,
    logs: BTreeMap<RegistryName, Log>,
    publisher: Publisher<RelayState>,
    /// The highest position given out.
    position: u64,
    /// The generation of the last snapshot that was taken over; none before the first.
    generation: Option<u64>,
}

/// One registry's log, as the writer keeps it.
#[derive(Default)]
struct Log {
    /// What is remembered of each piece.
    records: HashMap<Box<str>, RelayRecord>,
    /// Those pieces that are gone, by position.
    gone: BTreeMap<u64, Box<str>>,
    /// The pieces of each service, to find those that are gone.
    of_service: HashMap<ServiceName, Vec<Box<str>>>,
    partition: Partition,
    published: OrdMap<u64, Piece>,
    complete_after: u64,
    head: u64,
    /// Whether a first snapshot was compared with what the journal remembers.
    begun: bool,
    /// Whether snapshots were passed over since the last that was taken.
    behind: bool,
    /// While there is only what was restored: the pieces of which something else was told before, which the state on disk
    /// is too old to know. None when all is as it was told, or was said by the registry itself.
    doubted: Option<HashSet<Box<str>>>,
}

impl Relay {
    /// A relay that goes on where the journal's last one ended.
    #[must_use]
    pub fn new(journal: Arc<Journal>) -> Self {
        let publisher = Publisher::new(RelayState::default());
        Self { journal, logs: BTreeMap::new(), publisher, position: 0, generation: None }
    }

    /// Begins the lists of these registries at everybody who has nothing of them, also before they were confirmed: those
    /// that carry policies. Else an agent could take the services of one registry for all there is, and open before it
    /// knows what another denies. An agent that has opened is told all else meanwhile.
    #[must_use]
    pub fn awaiting(mut self, registries: impl IntoIterator<Item = RegistryName>) -> Self {
        let awaited = registries.into_iter().map(Scope::whole).collect();
        self.publisher.publish(RelayState { awaited, ..RelayState::clone(&self.publisher.current()) });
        self
    }

    /// Reads what the journal remembers of these registries.
    ///
    /// # Errors
    /// When the journal fails.
    pub fn restore<'a>(
        &mut self,
        registries: impl IntoIterator<Item = &'a RegistryName>,
    ) -> Result<(), FileFault> {
        for registry in registries {
            let mut log = Log::default();
            for (origin, record) in self.journal.relayed(registry.as_str())? {
                if record.position > HIGHEST {
                    return Err(FileFault::Failed(format!("the relayed piece {origin} has no position")));
                }
                self.position = self.position.max(record.position);
                log.head = log.head.max(record.position);
                if origin == FORGOTTEN {
                    log.complete_after = record.position;
                } else {
                    log.note(origin.into(), record);
                }
            }
            self.logs.insert(registry.clone(), log);
        }
        let registries = self.logs.keys().cloned().collect();
        self.publisher.publish(RelayState { registries, ..RelayState::clone(&self.publisher.current()) });
        Ok(())
    }

    /// What agents follow.
    #[must_use]
    pub fn reader(&self) -> Reader<RelayState> {
        self.publisher.reader()
    }

    /// Takes a snapshot over. Blocks on the disk when something changed.
    ///
    /// # Errors
    /// When the journal fails: nothing is published then, and the next snapshot tries again.
    pub fn take(&mut self, snapshot: &Snapshot) -> Result<(), FileFault> {
        let changed = self.generation.and_then(|generation| snapshot.changes_since(generation));
        let mut state = RelayState::clone(&self.publisher.current());
        let mut any = false;
        for registry in snapshot.partitions.keys().chain(snapshot.scopes.keys().map(|scope| &scope.registry))
        {
            let Some(confirmed) = confirmed(snapshot, registry) else {
                if let Some(log) = self.logs.get_mut(registry) {
                    log.behind = true;
                }
                continue;
            };
            let scope = Scope::whole(registry.clone());
            let known = state.scopes.get(&scope);
            let is_known = |known: &Arc<RelayedScope>| {
                known.confirmed_at == confirmed.at && known.completeness == confirmed.completeness
            };
            let log = self.logs.get(registry);
            let is_proof = !confirmed.is_restored && log.is_some_and(|log| log.doubted.is_some());
            if known.is_some_and(is_known) && !is_proof && !self.differs(snapshot, registry) {
                continue;
            }
            let empty = Partition::default();
            let partition = snapshot.partitions.get(registry).unwrap_or(&empty);
            let log = self.logs.entry(registry.clone()).or_default();
            if is_proof {
                log.begin_again();
            }
            let changes = match &changed {
                Some(changed) if log.begun && !log.behind => {
                    log.compare_keys(partition, keys_of(changed, registry))
                }
                _ => log.compare_all(partition),
            };
            let Self { position, journal, .. } = self;
            log.take(partition, changes, confirmed.is_restored, position, registry.as_str(), journal)?;
            state.awaited.remove(&scope);
            state.scopes.insert(scope, Arc::new(log.view(confirmed)));
            state.registries.insert(registry.clone());
            any = true;
        }
        self.generation = Some(snapshot.generation);
        if any {
            self.publisher.publish(state);
        } else {
            self.publisher.sweep();
        }
        Ok(())
    }

    fn differs(&self, snapshot: &Snapshot, registry: &RegistryName) -> bool {
        match (self.logs.get(registry), snapshot.partitions.get(registry)) {
            (Some(log), Some(partition)) => !log.is_at(partition),
            (Some(log), None) => !log.of_service.is_empty(),
            (None, _) => true,
        }
    }
}

/// What all scopes of a registry have said of themselves.
#[derive(Clone, Copy)]
struct Confirmed {
    /// When the first of them was last confirmed.
    at: SystemTime,
    /// Filtered, where a list of one of them was.
    completeness: Completeness,
    /// Whether one of them was restored from disk, and not confirmed since.
    is_restored: bool,
}

impl Confirmed {
    fn of(state: &ScopeState) -> Option<Self> {
        let (at, completeness) = (state.committed_at?, state.completeness?);
        Some(Self { at, completeness, is_restored: state.restored })
    }

    fn and(self, other: Self) -> Self {
        let completeness = match self.completeness {
            Completeness::Full => other.completeness,
            Completeness::Filtered => Completeness::Filtered,
        };
        let is_restored = self.is_restored || other.is_restored;
        Self { at: self.at.min(other.at), completeness, is_restored }
    }
}

/// What was confirmed of a registry; none before each of its scopes was once.
fn confirmed(snapshot: &Snapshot, registry: &RegistryName) -> Option<Confirmed> {
    let of_registry = snapshot.scopes.iter().filter(|(scope, _)| scope.registry == *registry);
    let all: Option<Vec<_>> = of_registry.map(|(_, state)| Confirmed::of(state)).collect();
    all?.into_iter().reduce(Confirmed::and)
}

impl Log {
    fn is_at(&self, partition: &Partition) -> bool {
        self.begun
            && self.partition.services.ptr_eq(&partition.services)
            && self.partition.routes.ptr_eq(&partition.routes)
            && self.partition.policies.ptr_eq(&partition.policies)
    }

    fn view(&self, confirmed: Confirmed) -> RelayedScope {
        RelayedScope {
            log: self.published.clone(),
            head: self.head,
            complete_after: self.complete_after,
            confirmed_at: confirmed.at,
            completeness: match self.doubted {
                Some(_) => Completeness::Filtered,
                None => confirmed.completeness,
            },
        }
    }

    /// Has the next snapshot compared with all that is remembered, as the first one was.
    fn begin_again(&mut self) {
        self.partition = Partition::default();
        self.begun = false;
    }

    /// Notes what is remembered of a piece.
    fn note(&mut self, origin: Box<str>, record: RelayRecord) {
        if record.gone {
            self.gone.insert(record.position, origin.clone());
        }
        if let Some(before) = self.records.insert(origin, record)
            && before.position != record.position
        {
            self.gone.remove(&before.position);
        }
    }

    /// Gives positions to what changed, remembers, and only then changes what is published.
    ///
    /// What is restored may be older than what was told before a crash, and nobody is set back by it. A piece that differs
    /// keeps its position, so that who knows it is told nothing; only who takes the full list gets the words there are.
    /// When the registry has spoken, such a piece has a new position whatever it is: both kinds must hear of it.
    fn take(
        &mut self,
        partition: &Partition,
        changes: Changes,
        is_restored: bool,
        position: &mut u64,
        registry: &str,
        journal: &Journal,
    ) -> Result<(), FileFault> {
        let mut next = *position;
        let mut remembered = Vec::new();
        let mut log = self.published.clone();
        let mut doubted = HashSet::new();
        let was_doubted = |origin| self.doubted.as_ref().is_some_and(|doubted| doubted.contains(origin));
        for (origin, change) in &changes.pieces {
            let known = self.records.get(origin);
            let is_same = known.is_some_and(|known| is_of(known, change.as_ref()));
            let is_doubted = is_restored && !self.begun && known.is_some() && !is_same;
            if is_doubted {
                doubted.insert(origin.clone());
            }
            let record = match (known, change) {
                (None, None) => continue,
                (Some(known), None) if is_doubted && !known.gone => continue,
                (Some(known), None) if known.gone => *known,
                (Some(known), _) if is_doubted || (is_same && !was_doubted(origin)) => *known,
                (_, change) => {
                    next = next.saturating_add(1);
                    let version = change.as_ref().map_or(0, |encoded| encoded.version);
                    RelayRecord { version, position: next, gone: change.is_none() }
                }
            };
            if let Some(known) = known {
                log.remove(&known.position);
            }
            if known != Some(&record) {
                remembered.push((&**origin, Some(record)));
            }
            let words = change.as_ref().filter(|_| !record.gone);
            let event = words.map_or_else(|| gone(origin), |encoded| encoded.event.clone());
            let service = service_of(origin).map(|name| {
                // Shares the name with what it is a piece of.
                partition.services.get_key_value(&name).map_or(name, |(name, _)| name.clone())
            });
            log.insert(record.position, Piece { event, gone: record.gone, service });
        }
        let forgotten = self.too_old(&remembered);
        let forgotten_to = forgotten.last().map(|(_, position)| *position);
        remembered.extend(forgotten.iter().map(|(origin, _)| (&**origin, None)));
        let mark = forgotten_to.map(|position| RelayRecord { version: 0, position, gone: true });
        remembered.extend(mark.map(|mark| (FORGOTTEN, Some(mark))));
        if !remembered.is_empty() {
            journal.remember(registry, &remembered)?;
        }
        for (origin, record) in remembered {
            match record {
                _ if origin == FORGOTTEN => {}
                Some(record) => self.note(origin.into(), record),
                None => drop(self.records.remove(origin)),
            }
        }
        for (_, position) in &forgotten {
            log.remove(position);
            self.gone.remove(position);
        }
        self.complete_after = forgotten_to.unwrap_or(self.complete_after);
        for (service, origins) in changes.services {
            match origins {
                Some(origins) => drop(self.of_service.insert(service, origins)),
                None => drop(self.of_service.remove(&service)),
            }
        }
        if next > *position {
            (*position, self.head) = (next, next);
        }
        self.published = log;
        if !is_restored {
            self.doubted = None;
        } else if !self.begun {
            self.doubted = Some(doubted).filter(|doubted| !doubted.is_empty());
        }
        self.partition = partition.clone();
        self.begun = true;
        self.behind = false;
        Ok(())
    }

    /// What is new, changed or gone among these services, routes and policies.
    fn compare_keys<'k>(&self, now: &Partition, keys: impl Iterator<Item = &'k ResourceKey>) -> Changes {
        let mut changes = Changes::default();
        for key in keys {
            match key {
                ResourceKey::Service(name) => self.compare_service(name, now, &mut changes),
                ResourceKey::Route(name) => {
                    let [before, after] = [&self.partition, now].map(|partition| partition.routes.get(name));
                    changes.rule(before.map(route_piece), after.map(route_piece));
                }
                ResourceKey::Policy(name) => {
                    let [before, after] =
                        [&self.partition, now].map(|partition| partition.policies.get(name));
                    changes.rule(before.map(policy_piece), after.map(policy_piece));
                }
                // An endpoint is a change of its service.
                ResourceKey::Endpoint(..) => {}
            }
        }
        changes
    }

    /// The same for all there are and were; and the first time, for what the journal remembers.
    fn compare_all(&self, now: &Partition) -> Changes {
        let services = now.services.keys().chain(self.of_service.keys()).cloned().map(ResourceKey::Service);
        let partitions = [&self.partition, now];
        let routes = partitions.into_iter().flat_map(|it| it.routes.keys().cloned()).map(ResourceKey::Route);
        let policies =
            partitions.into_iter().flat_map(|it| it.policies.keys().cloned()).map(ResourceKey::Policy);
        let keys: HashSet<_> = services.chain(routes).chain(policies).collect();
        let mut changes = self.compare_keys(now, keys.iter());
        if !self.begun {
            let said: HashSet<_> = changes.pieces.iter().map(|(origin, _)| origin.clone()).collect();
            let missing = self.records.keys().filter(|origin| !said.contains(*origin));
            changes.pieces.extend(missing.map(|origin| (origin.clone(), None)));
        }
        changes
    }

    fn compare_service(&self, name: &ServiceName, now: &Partition, changes: &mut Changes) {
        let known = self.of_service.get(name);
        let Some(entry) = now.services.get(name) else {
            if let Some(origins) = known {
                changes.pieces.extend(origins.iter().map(|origin| (origin.clone(), None)));
                changes.services.push((name.clone(), None));
            }
            return;
        };
        let before = self.partition.services.get(name);
        if before.is_some_and(|before| Arc::ptr_eq(before, entry) || before == entry) {
            return;
        }
        let pieces = service_pieces(&name.to_string(), entry);
        let origins: Vec<_> = pieces.iter().map(|piece| piece.origin.clone()).collect();
        let kept: HashSet<_> = origins.iter().collect();
        let old = known.into_iter().flatten();
        changes.pieces.extend(old.filter(|old| !kept.contains(old)).map(|old| (old.clone(), None)));
        changes.add(pieces);
        changes.services.push((name.clone(), Some(origins)));
    }

    /// The oldest of what is gone, beyond what is kept, with their positions, oldest first.
    fn too_old(&self, newly: &[(&str, Option<RelayRecord>)]) -> Vec<(Box<str>, u64)> {
        let newly_gone = newly.iter().filter(|(_, record)| record.is_some_and(|record| record.gone)).count();
        let excess = (self.gone.len() + newly_gone).saturating_sub(KEPT_GONE);
        if newly_gone == 0 || excess == 0 {
            return Vec::new();
        }
        let changed: HashSet<_> = newly.iter().map(|(origin, _)| *origin).collect();
        let old = self.gone.iter().filter(|(_, origin)| !changed.contains(&***origin));
        old.take(excess).map(|(position, origin)| (origin.clone(), *position)).collect()
    }
}

/// Whether a piece is as it is remembered; none of words is one that is gone.
fn is_of(record: &RelayRecord, words: Option<&EncodedReplace>) -> bool {
    words.map_or(record.gone, |encoded| !record.gone && record.version == encoded.version)
}

/// What of the changes is one registry's.
fn keys_of<'c>(
    changed: &'c BTreeSet<(RegistryName, ResourceKey)>,
    registry: &'c RegistryName,
) -> impl Iterator<Item = &'c ResourceKey> {
    changed.iter().filter(move |(of, _)| of == registry).map(|(_, key)| key)
}

/// What a comparison found.
#[derive(Default)]
struct Changes {
    /// Pieces with their new words; none when gone.
    pieces: Vec<(Box<str>, Option<EncodedReplace>)>,
    /// The pieces of each changed service; none when the service is gone.
    services: Vec<(ServiceName, Option<Vec<Box<str>>>)>,
}

impl Changes {
    /// A route or a policy as it was and is.
    fn rule(&mut self, before: Option<NamedPiece>, after: Option<NamedPiece>) {
        match (before, after) {
            (before, Some(after)) if before.as_ref() != Some(&after) => self.add([after]),
            (Some(before), None) => self.pieces.push((before.origin, None)),
            _ => {}
        }
    }

    fn add(&mut self, pieces: impl IntoIterator<Item = NamedPiece>) {
        self.pieces.extend(pieces.into_iter().map(|piece| (piece.origin, Some(piece.encoded))));
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("position", &self.position).finish_non_exhaustive()
    }
}
