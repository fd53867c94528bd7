//! Routes and policies to messages and back.

mod policy;
mod route;

pub(super) use policy::{read_policy, write_policy};
pub(super) use route::{read_route, write_route};
