//! What HTTP needs on both sides of the proxy: bodies, connections to applications
//! and to other agents, serving a connection until it ends.

pub(crate) mod application;
pub(crate) mod body;
mod bounds;
pub(crate) mod burst;
pub(crate) mod expect;
pub(crate) mod finish;
pub(crate) mod head;
pub(crate) mod heard;
pub(crate) mod multiplexed;
pub(crate) mod observed;
pub(crate) mod pump;
pub(crate) mod refusal;
pub(crate) mod replay;
pub(crate) mod serve;
mod silence;
pub(crate) mod single;
pub(crate) mod streams;
pub(crate) mod strict;
pub(crate) mod upgrade;
