//! Which source speaks of which registry, and how authoritative each registry is.
//!
//! No registry speaks for another but a relay, and it not for one that is followed here. What a relay passes on ranks
//! in the place of the relay's own section, in the order that the relay tells.

use std::collections::{BTreeMap, BTreeSet};

use super::followed::Followed;
use crate::{diagnostic::Diagnostic, name::RegistryName};

/// How many registries that somebody spoke of and may not are remembered at most.
const REFUSED: usize = 64;

/// Who speaks of what. Sources are known by their numbers.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// The source of each registry: the one that is followed under its name, else the relay that spoke of it first.
    sources: BTreeMap<RegistryName, usize>,
    /// Who spoke of what they may not.
    refused: BTreeSet<(usize, RegistryName)>,
}

/// What becomes of words about a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The source speaks for it, as before.
    Held,
    /// The source speaks for it from now on.
    New,
    /// The source may not.
    Refused,
}

impl Owners {
    /// A source speaks for the registry of its own name. Returns who did so before, if that was another one.
    pub(super) fn follow(&mut self, followed: &Followed) -> Option<usize> {
        let before = self.sources.insert(followed.name().clone(), followed.number);
        before.filter(|before| *before != followed.number)
    }

    /// A source speaks for all that another one spoke for.
    pub(super) fn succeed(&mut self, former: usize, number: usize) {
        self.sources.values_mut().filter(|owner| **owner == former).for_each(|owner| *owner = number);
    }

    /// A source speaks no more.
    pub(super) fn release(&mut self, number: usize) {
        self.sources.retain(|_, owner| *owner != number);
    }

    /// What was refused may be said now, or by another one.
    pub(super) fn forget_refusals(&mut self) {
        self.refused.clear();
    }

    /// A source wants to speak of a registry.
    pub(super) fn claim(&mut self, followed: &Followed, registry: &RegistryName) -> Claim {
        match self.sources.get(registry) {
            Some(owner) if *owner == followed.number => Claim::Held,
            None if followed.is_relay() => {
                self.sources.insert(registry.clone(), followed.number);
                Claim::New
            }
            _ => {
                if self.refused.len() < REFUSED && self.refused.insert((followed.number, registry.clone())) {
                    let name = followed.name();
                    tracing::warn!(registry = %name, of = %registry, "ignored: it may not speak of that registry");
                }
                Claim::Refused
            }
        }
    }

    /// The source that speaks for a registry.
    pub(super) fn source(&self, registry: &RegistryName) -> Option<usize> {
        self.sources.get(registry).copied()
    }

    /// All registries, most authoritative first, as `followed` is.
    pub(super) fn precedence(&self, followed: &[Followed]) -> Vec<RegistryName> {
        let mut all = Vec::with_capacity(self.sources.len());
        for source in followed {
            let told = source.relayed().iter().filter(|name| self.source(name) == Some(source.number));
            let others = self.sources.iter().filter(|(_, owner)| **owner == source.number);
            for registry in told.chain(others.map(|(name, _)| name)) {
                if !all.contains(registry) {
                    all.push(registry.clone());
                }
            }
        }
        all
    }

    /// The registries that rank after one of which is not known yet what it has, nor that it cannot say: who writes to one
    /// of them must not have another's names for as long as a start takes. What was known before the start is no such
    /// claim: it goes on, until who ranks first says otherwise.
    pub(super) fn held(&self, followed: &[Followed]) -> Vec<RegistryName> {
        let Some(first) = followed.iter().position(Followed::is_awaited) else { return Vec::new() };
        let new = followed[first + 1..].iter().filter(|source| !source.was_known());
        new.flat_map(|source| self.precedence(std::slice::from_ref(source))).collect()
    }

    /// The first registry of the first source that carries configuration. None while a relay that ranks first has not
    /// said what it relays: nobody takes its place meanwhile.
    pub(super) fn authority(&self, followed: &[Followed]) -> Option<RegistryName> {
        let first = followed.iter().position(|source| source.carries_configuration())?;
        self.precedence(&followed[first..=first]).into_iter().next()
    }

    /// Who was refused, and what would help.
    pub(super) fn diagnostics<'a>(
        &'a self,
        followed: &'a [Followed],
    ) -> impl Iterator<Item = Diagnostic> + 'a {
        self.refused.iter().filter_map(|(number, registry)| {
            let source = followed.iter().find(|source| source.number == *number)?;
            let message = if self.sources.contains_key(registry) {
                format!(
                    "what it says of \"{registry}\" is ignored: another registry of that name is followed here; \
                     give one of the two another `name`"
                )
            } else {
                format!("what it says of \"{registry}\" is ignored: no registry speaks for another")
            };
            Some(Diagnostic::error(source.name(), message))
        })
    }
}
