//! Connections that outlive a request: to other agents and to local applications. Each worker has its own.

mod application;
mod mesh;
mod multiplexed;

pub(crate) use application::{AppBody, AppPool, connect_fault};
pub(crate) use mesh::{Caller, MeshPool, lifetime_until};
pub(crate) use multiplexed::{MeshBody, STREAM_WINDOW, STREAMS};
