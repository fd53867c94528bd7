//! Which endpoint gets a request: the less loaded of two drawn at random, by weight.
//!
//! Two choices come close to the best one without looking at all (Mitzenmacher, "The Power of Two Choices"), and do not
//! herd when several agents decide at once. Load is requests in flight over all workers, divided by weight, so that an
//! idle service is shared by weight and a busy one by speed.
//!
//! Ranks, each tried only when the one before has nobody left:
//! 1. healthy, not ejected, not tried for this request; those of the best tier (the preferred registry, the nearest)
//!    first, stand-bys (of weight 0) of any tier last;
//! 2. draining, unhealthy or unconfirmed ones, in that order, likewise neither ejected nor tried;
//! 3. ejected ones not tried: when all are ejected, ejection says more about us than about them;
//! 4. those behind a mesh address that could not be reached for this request: their agent is the same one;
//! 5. those tried already: a request that was never dispatched may go to an only endpoint again.
//!
//! There is no panic threshold beyond rank 3: passive health ejects at most a share of a service for slow or failing
//! answers, and one that refuses connections is no better for being asked more.

use std::{
    ops::Deref,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use weft_core::{
    resource::Address,
    table::{EndpointSet, EndpointState, Upstream},
};

use crate::fault::Fault;

/// For how long an ejected endpoint whose time is up is shown to one request only, in milliseconds.
pub const PROBE: u64 = 1_000;

/// An endpoint that was chosen for a request, counted as in flight until dropped.
#[derive(Debug)]
pub struct Picked {
    upstream: Arc<Upstream>,
    probing: bool,
}

impl Picked {
    /// Counts a request on `upstream`, which becomes its probe if an ejection of it has ended.
    fn new(upstream: &Arc<Upstream>, now: u64) -> Self {
        let probing = claim_probe(&upstream.state, now);
        upstream.state.in_flight.fetch_add(1, Relaxed);
        Self { upstream: upstream.clone(), probing }
    }

    /// The endpoint.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Whether the endpoint was ejected when it was chosen, so that the request's success brings it back.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.probing
    }
}

impl Deref for Picked {
    type Target = Upstream;
    fn deref(&self) -> &Upstream {
        &self.upstream
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.upstream.state.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Where a request failed so far.
#[derive(Debug, Default)]
pub struct Failures(Vec<Failure>);

#[derive(Debug)]
struct Failure {
    endpoint: Arc<EndpointState>,
    /// The mesh address, if nobody can be reached behind it.
    unreached: Option<Address>,
}

impl Failures {
    /// Takes note of an endpoint that failed. `own` is the fault that was met on the way to its agent, none when that
    /// agent or the application answered.
    pub fn note(&mut self, upstream: &Upstream, own: Option<Fault>) {
        let is_agents = matches!(
            own,
            Some(Fault::ConnectRefused | Fault::ConnectFailed | Fault::ConnectTimeout | Fault::PeerDraining)
        );
        let unreached = upstream.endpoint.mesh_address.as_ref().filter(|_| is_agents).cloned();
        self.0.push(Failure { endpoint: upstream.state.clone(), unreached });
    }

    fn standing(&self, upstream: &Upstream) -> Standing {
        if self.0.iter().any(|failure| Arc::ptr_eq(&failure.endpoint, &upstream.state)) {
            return Standing::Tried;
        }
        let mesh = upstream.endpoint.mesh_address.as_ref();
        match mesh.is_some() && self.0.iter().any(|failure| failure.unreached.as_ref() == mesh) {
            true => Standing::BehindUnreached,
            false => Standing::Untried,
        }
    }
}

/// What a request knows of an endpoint by its own attempts, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Untried,
    BehindUnreached,
    Tried,
}

/// Chooses an endpoint for a request that failed at those in `tried`. `now` is in
/// [milliseconds](crate::clock::milliseconds). None when the set is empty.
#[must_use]
pub fn pick(set: &EndpointSet, tried: &Failures, now: u64) -> Option<Picked> {
    let first_choice = set.all.get(..set.first_choice).unwrap_or(&set.all);
    two_choices(first_choice, &set.cumulative_weights, tried, now)
        .or_else(|| first_rank(set, tried, now))
        .map(|upstream| Picked::new(upstream, now))
}

fn two_choices<'a>(
    of: &'a [Arc<Upstream>],
    weights: &[u32],
    tried: &Failures,
    now: u64,
) -> Option<&'a Arc<Upstream>> {
    let usable = |upstream: &&Arc<Upstream>| is_eligible(upstream, tried, now);
    match of {
        [] => None,
        [only] => Some(only).filter(usable),
        _ => {
            let first = draw(of.len(), weights, None);
            let second = draw(of.len(), weights, Some(first));
            let one = of.get(first).filter(usable);
            let other = of.get(second).filter(usable);
            match (one, other) {
                (Some(one), Some(other)) => Some(less_loaded(one, other)),
                (one, other) => one.or(other),
            }
        }
    }
}

/// An index, in proportion to the weights, other than `except`.
fn draw(length: usize, weights: &[u32], except: Option<usize>) -> usize {
    let total = weights.last().copied().unwrap_or(0);
    let span = |index: usize| {
        let before = index.checked_sub(1).and_then(|before| weights.get(before)).copied().unwrap_or(0);
        (before, weights.get(index).copied().unwrap_or(total) - before)
    };
    let (skip_at, skip) = except.map_or((u32::MAX, 0), span);
    if weights.len() != length || total <= skip {
        // Equal weights, or all weight in one.
        let index = fastrand::usize(..length - usize::from(except.is_some()));
        return index + usize::from(except.is_some_and(|except| index >= except));
    }
    let point = fastrand::u32(..total - skip);
    let point = if point >= skip_at { point + skip } else { point };
    weights.partition_point(|&weight| weight <= point)
}

/// The one with less in flight by weight; the first, which was drawn by weight, on a tie, and where the other has none.
fn less_loaded<'a>(one: &'a Arc<Upstream>, other: &'a Arc<Upstream>) -> &'a Arc<Upstream> {
    if other.endpoint.weight == 0 && one.endpoint.weight > 0 {
        return one;
    }
    let load = |upstream: &Upstream| u64::from(upstream.state.in_flight.load(Relaxed));
    let weight = |upstream: &Upstream| u64::from(upstream.endpoint.weight.max(1));
    if load(other) * weight(one) < load(one) * weight(other) { other } else { one }
}

fn is_eligible(upstream: &Upstream, tried: &Failures, now: u64) -> bool {
    upstream.state.ejected_until.load(Relaxed) <= now && tried.standing(upstream) == Standing::Untried
}

/// The slow way, when neither of two random healthy endpoints will do: looks at all.
fn first_rank<'a>(set: &'a EndpointSet, tried: &Failures, now: u64) -> Option<&'a Arc<Upstream>> {
    let rank = |upstream: &Upstream| {
        let ejected = upstream.state.ejected_until.load(Relaxed) > now;
        (tried.standing(upstream), ejected, upstream.rank())
    };
    let best = set.all.iter().map(|upstream| rank(upstream)).min()?;
    let of_best = || set.all.iter().filter(|upstream| rank(upstream) == best);
    // Both passes see the same unless another worker changes an endpoint in between; then any will do.
    let weight: u32 = of_best().map(|upstream| u32::from(upstream.endpoint.weight)).sum();
    let mut point = if weight == 0 { 0 } else { fastrand::u32(..weight) };
    let chosen = of_best().find(|upstream| {
        let own = u32::from(upstream.endpoint.weight);
        let found = point < own || weight == 0;
        point = point.saturating_sub(own);
        found
    });
    chosen.or_else(|| set.all.first())
}

/// An ejection that is over is kept for a moment for all but the request that finds out first: if the endpoint is still
/// dead, one request meets it and not all of them. Says whether the endpoint is or was ejected.
fn claim_probe(state: &EndpointState, now: u64) -> bool {
    let until = state.ejected_until.load(Relaxed);
    if until != 0 && until <= now {
        // When another worker was quicker there are two probes.
        let _ = state.ejected_until.compare_exchange(until, now + PROBE, Relaxed, Relaxed);
    }
    until != 0
}

#[cfg(test)]
mod tests;
