//! What the hub's registries say, cut into pieces so small that a change costs its own size.
//!
//! Each registry that the hub follows is one relayed scope. Its log is not a history: it holds every piece once, at the
//! position of its last change. An agent is a position in it; what lies behind is what it misses. So nothing is kept per
//! agent, a slow one coalesces what it missed, and an agent that was away, or a hub that was restarted, loses nothing:
//! positions are kept in the journal, written before anything is told under them.
//!
//! A piece that is gone stays as an empty one, until there are [`KEPT_GONE`] of them; whoever comes from before the
//! oldest that was forgotten must take the full list.

mod follower;
mod piece;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use imbl::OrdMap;
use weft_core::{
    name::{RegistryName, ServiceName},
    registry::{Completeness, Scope},
};

pub use follower::{Follower, ResumeFault};
pub use writer::Relay;

/// How many pieces that are gone are remembered per scope.
pub const KEPT_GONE: usize = 4096;

/// All relayed scopes, as last published.
#[derive(Clone, Debug, Default)]
pub struct RelayState {
    /// Only those that the hub's registries have confirmed at least once.
    pub scopes: BTreeMap<Scope, Arc<RelayedScope>>,
    /// The registries that are relayed, confirmed or not.
    pub registries: BTreeSet<RegistryName>,
    /// Those that carry policies and were not confirmed yet: who has nothing of them must wait for them.
    pub awaited: BTreeSet<Scope>,
}

/// One relayed scope at one moment.
#[derive(Clone, Debug)]
pub struct RelayedScope {
    /// Every piece, by the position of its last change. Positions count over all scopes of a store.
    pub log: OrdMap<u64, Piece>,
    /// The position up to which this is.
    pub head: u64,
    /// Who has come at least this far can go on from there.
    pub complete_after: u64,
    /// When the registry last said that all this is so.
    pub confirmed_at: SystemTime,
    /// What its last full list was: where that may have hidden something, this may lack it.
    pub completeness: Completeness,
}

/// One piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The encoded event, the same for all agents.
    pub event: Bytes,
    /// Whether it is gone: of interest only to who knew it.
    pub gone: bool,
    /// The service that it is of; none of a route or a policy, which concern everybody.
    pub service: Option<ServiceName>,
}

#[cfg(test)]
mod tests;
