//! Registries that come, change and go while the flow runs.
//!
//! Who is followed in another way keeps its last words until the new list is whole, so that a registry that moves costs
//! no request; and what a full list lacks is judged as ever: silence is not absence. One that goes as another one comes
//! may be the same under another name: it stays for a moment, until the new one has spoken.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::{CompileConfig, Flow, Followed, Join, Registries, Source};
use crate::{
    driver::{Message, Told},
    merge::Limits,
    name::{OriginName, RegistryName},
    registry::{Event, RegistryError, Version},
};

/// How long one that is gone from the configuration stays at most.
const STAYS: Duration = Duration::from_secs(5);

/// Registries that are gone from the configuration and stay until those that came with it have spoken.
#[derive(Debug)]
pub(super) struct Leaving {
    /// Their numbers.
    gone: BTreeSet<usize>,
    /// The numbers of those that are waited for.
    awaited: BTreeSet<usize>,
    until: Instant,
    /// What is in force afterwards; the former joins are until then.
    joins: Vec<Join>,
}

impl Flow {
    /// Follows a registry again whose driver broke: a defect of ours, and no reason to live on old words for ever.
    pub(super) fn mend(&mut self, number: usize) {
        while let Some(message) = self.drivers.told() {
            self.take(message);
        }
        let Some(followed) = self.followed.iter_mut().find(|followed| followed.number == number) else {
            return;
        };
        tracing::error!(registry = %followed.name(), "following broke; it is begun anew");
        let error = RegistryError::Unreachable("following it broke inside Weft; see the log".into());
        let uncommitted = followed.position.clone().end(&error);
        self.drivers.start_again(followed, &error);
        self.take(Message { source: number, told: Told::Ended { uncommitted, error } });
    }

    /// Puts a new list of registries in force.
    pub(super) fn set_registries(&mut self, registries: Registries) {
        let Registries { order, mut fresh, joins, locality } = registries;
        let ranked: Vec<_> = self.followed.iter().map(|followed| followed.name().clone()).collect();
        let mut former: Vec<_> = self.followed.drain(..).collect();
        let mut begun = Vec::new();
        for name in &order {
            let new =
                fresh.iter().position(|source| source.registry.name() == name).map(|at| fresh.remove(at));
            let old = former.iter().position(|known| known.name() == name).map(|at| former.remove(at));
            let Some(followed) = self.succeed(old, new, &mut begun) else { continue };
            self.followed.push(followed);
        }
        let joins = self.begin_to_leave(former, &ranked, &begun, joins);
        self.owners.forget_refusals();
        self.set_owners();
        let now = (self.now)();
        for at in 0..self.followed.len() {
            if begun.contains(&self.followed[at].number) {
                self.restore(at, now);
            }
        }
        for followed in &mut self.followed {
            self.drivers.start(followed);
        }
        self.compiler.configure(CompileConfig { joins, locality, ..self.compiler.config().clone() });
        self.rank();
        self.pending.snapshot = true;
    }

    /// Gives up those that are gone, but for those whose place one that is new may take: they keep their rank among
    /// `ranked` for a moment, and the former joins theirs. Returns the joins to be in force.
    fn begin_to_leave(
        &mut self,
        gone: Vec<Followed>,
        ranked: &[RegistryName],
        begun: &[usize],
        joins: Vec<Join>,
    ) -> Vec<Join> {
        let mut awaited = self.leaving.take().map(|leaving| leaving.awaited).unwrap_or_default();
        awaited.extend(begun);
        let mut new = self.followed.iter().filter(|it| awaited.contains(&it.number) && !it.is_ready());
        // What a relay may speak of depends on who else is followed: it must not wait for one that goes.
        let waits = new.clone().next().is_some() && !new.any(Followed::is_relay);
        let mut leaving = BTreeSet::new();
        for gone in gone {
            if !waits || gone.is_relay() || !gone.is_ready() {
                self.give_up(&gone);
                gone.forget_state();
                continue;
            }
            leaving.insert(gone.number);
            let before: BTreeSet<_> = ranked.iter().take_while(|name| *name != gone.name()).collect();
            let at = self.followed.iter().rposition(|it| before.contains(it.name()));
            self.followed.insert(at.map_or(0, |at| at + 1), gone);
        }
        if leaving.is_empty() {
            return joins;
        }
        self.leaving = Some(Leaving { gone: leaving, awaited, until: Instant::now() + STAYS, joins });
        self.compiler.config().joins.clone()
    }

    /// Gives up those that are leaving, once those that came have spoken or had their time.
    pub(super) fn let_leave(&mut self) {
        let followed = &self.followed;
        let has_come = |leaving: &mut Leaving| {
            let mut awaited = followed.iter().filter(|it| leaving.awaited.contains(&it.number));
            awaited.all(Followed::is_ready) || Instant::now() >= leaving.until
        };
        let Some(Leaving { gone, joins, .. }) = self.leaving.take_if(has_come) else { return };
        let (gone, kept) = self.followed.drain(..).partition(|it| gone.contains(&it.number));
        self.followed = kept;
        for gone in Vec::<Followed>::as_slice(&gone) {
            self.give_up(gone);
            gone.forget_state();
        }
        self.owners.forget_refusals();
        self.set_owners();
        self.compiler.configure(CompileConfig { joins, ..self.compiler.config().clone() });
        self.rank();
        (self.pending.snapshot, self.pending.status) = (true, true);
    }

    /// Every source speaks for itself. A relay passes on no more what is followed here now, and says anew what it was
    /// refused under other rules.
    pub(super) fn set_owners(&mut self) {
        let names: Vec<_> = self.followed.iter().map(|followed| followed.name().clone()).collect();
        for at in 0..self.followed.len() {
            if self.followed[at].set_rules(&names) && self.followed[at].is_relay() {
                self.followed[at].list_anew();
            }
            let Some(former) = self.owners.follow(&self.followed[at]) else { continue };
            let name = &names[at];
            if let Some(relay) = self.followed.iter_mut().find(|followed| followed.number == former) {
                for scope in relay.leave(name) {
                    self.merge.forget(&scope);
                }
            }
            self.merge.set_relay(name, None);
        }
    }

    /// What follows a registry from here on: as before, in another way, or for the first time.
    fn succeed(
        &mut self,
        old: Option<Followed>,
        new: Option<Source>,
        begun: &mut Vec<usize>,
    ) -> Option<Followed> {
        let Some(source) = new else { return old };
        let (name, limits) = (source.registry.name().clone(), source.limits.clone());
        let followed = self.begin(source);
        let followed = match old {
            // Its words stay until the new list is whole.
            Some(old) if old.speaks_alike(&followed) => {
                self.drivers.end(old.number);
                self.owners.succeed(old.number, followed.number);
                old.scopes.iter().for_each(|scope| self.merge.abandon(scope));
                let mut followed = old.followed_as(followed);
                self.let_go(&mut followed);
                followed
            }
            other => {
                if let Some(old) = other {
                    self.give_up(&old);
                    old.forget_state();
                }
                begun.push(followed.number);
                followed
            }
        };
        self.merge.set_limits(&name, limits);
        Some(followed)
    }

    /// What a registry is asked for no more goes at once. All else is as old as it was.
    fn let_go(&mut self, followed: &mut Followed) {
        let now = (self.now)();
        for scope in &followed.scopes {
            let Some(state) = self.merge.snapshot().scopes.get(scope) else { continue };
            let Some(committed_at) = state.committed_at else { continue };
            let is_unasked = |name: &&OriginName| !followed.registry.asks_for(name);
            let unasked: Vec<_> = state.origins.keys().filter(is_unasked).cloned().collect();
            if unasked.is_empty() {
                continue;
            }
            for origin in unasked {
                let (scope, version) = (scope.clone(), Version("gone".into()));
                let (resources, faults) = (Vec::new(), Vec::new());
                self.merge.apply(Event::Replace { scope, origin, version, resources, faults }, now);
            }
            let age = now.duration_since(committed_at).unwrap_or_default();
            self.merge.apply(Event::Commit { scope: scope.clone(), resume: None, age }, now);
            // Nor does it keep its names.
            self.merge.free_names_of(&scope.registry);
        }
        followed.save_soon();
    }

    /// Forgets all that a registry said.
    fn give_up(&mut self, gone: &Followed) {
        self.drivers.end(gone.number);
        self.owners.release(gone.number);
        for scope in &gone.scopes {
            self.merge.forget(scope);
            self.merge.set_relay(&scope.registry, None);
        }
        self.merge.set_limits(gone.name(), Limits::default());
    }
}
