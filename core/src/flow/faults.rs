//! What registries say that cannot be taken over, or not as it is written, in the log as it comes. As long as it stands it is in the status.

use std::sync::Arc;

use crate::{
    merge::{Origin, ScopeState},
    registry::{OriginFault, Scope},
};

/// How many faults are told one by one that came together: a first list of a platform may hold thousands.
const AT_ONCE: usize = 10;

/// Tells the faults of a scope that were not there before.
pub(super) fn tell(scope: &Scope, before: Option<&ScopeState>, now: Option<&ScopeState>) {
    let fresh = now.map_or_else(Vec::new, |now| fresh(before, now));
    for OriginFault { message, place, keeps_last_good } in fresh.iter().take(AT_ONCE) {
        let stays = if *keeps_last_good { "; what it said before, if anything, stays in force" } else { "" };
        tracing::warn!(registry = %scope, %place, "noted: {message}{stays}");
    }
    if let Some(more) = fresh.len().checked_sub(AT_ONCE).filter(|more| *more > 0) {
        tracing::warn!(registry = %scope, more, "further faults: `weft status` names them all");
    }
}

fn fresh<'a>(before: Option<&'a ScopeState>, now: &'a ScopeState) -> Vec<&'a OriginFault> {
    let mut fresh = Vec::new();
    for origin in now.faulty.iter().filter_map(|name| now.origins.get(name)) {
        let old = before.and_then(|before| before.origins.get(&origin.name));
        if old.is_some_and(|old| Arc::ptr_eq(old, origin)) {
            continue;
        }
        let known = old.map_or(&[][..], |old: &Arc<Origin>| &old.faults);
        fresh.extend(origin.faults.iter().filter(|fault| !known.contains(fault)));
    }
    fresh
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        merge::{
            Merge,
            testing::{commit, ready, reset, scope},
        },
        registry::{Event, Version},
    };

    #[test]
    fn a_fault_is_news_once() {
        let scope = scope("static");
        let mut merge = Merge::default();
        let mut say = |origin: &str, messages: &[&str]| {
            let before = merge.snapshot().scopes.get(&scope).cloned();
            let fault = |message: &&str| OriginFault {
                message: (*message).into(),
                place: origin.into(),
                keeps_last_good: false,
            };
            let words = Event::Replace {
                scope: scope.clone(),
                origin: origin.parse().unwrap(),
                version: Version(messages.concat().into()),
                resources: Vec::new(),
                faults: messages.iter().map(fault).collect(),
            };
            let first = before.is_none();
            let list = [
                first.then(|| reset(&scope)),
                Some(words),
                first.then(|| ready(&scope)),
                Some(commit(&scope)),
            ];
            for event in list.into_iter().flatten() {
                merge.apply(event, SystemTime::UNIX_EPOCH);
            }
            let fresh = fresh(before.as_ref(), &merge.snapshot().scopes[&scope]).into_iter();
            fresh.map(|fault| fault.message.clone()).collect::<Vec<_>>()
        };
        assert_eq!(say("a", &["one", "two"]), ["one", "two"]);
        assert_eq!(say("b", &["one"]), ["one"]);
        assert_eq!(say("a", &["two", "three"]), ["three"]);
        assert_eq!(say("a", &[]), Vec::<String>::new());
        assert_eq!(say("a", &["two"]), ["two"], "it came back");
    }
}
