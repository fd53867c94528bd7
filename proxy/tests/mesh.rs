//! The data path over real sockets with real TLS: two proxies, real applications, clients that do not retry.

#![allow(clippy::unwrap_used, reason = "a test that fails here says so")]

#[path = "mesh/age.rs"]
mod age;
#[path = "mesh/agent.rs"]
mod agent;
#[path = "mesh/answers.rs"]
mod answers;
#[path = "mesh/application.rs"]
mod application;
#[path = "mesh/authority.rs"]
mod authority;
#[path = "mesh/bytes.rs"]
mod bytes_and_streams;
#[path = "mesh/blame.rs"]
mod blame;
#[path = "mesh/callers.rs"]
mod callers;
#[path = "mesh/change.rs"]
mod change;
#[path = "mesh/client.rs"]
mod client;
#[path = "mesh/drain.rs"]
mod drain;
#[path = "mesh/endpoints.rs"]
mod endpoints;
#[path = "mesh/expect.rs"]
mod expect;
#[path = "mesh/http.rs"]
mod http_calls;
#[path = "mesh/leaving.rs"]
mod leaving;
#[path = "mesh/limits.rs"]
mod limits;
#[path = "mesh/listeners.rs"]
mod listeners;
#[path = "mesh/refusals.rs"]
mod refusals;
#[path = "mesh/renewal.rs"]
mod renewal;
#[path = "mesh/resting.rs"]
mod resting;
#[path = "mesh/pooling.rs"]
mod pooling;
#[path = "mesh/retry.rs"]
mod retry;
#[path = "mesh/silence.rs"]
mod silence;
#[path = "mesh/source.rs"]
mod source;
#[path = "mesh/switched.rs"]
mod switched;
#[path = "mesh/versions.rs"]
mod versions;
#[path = "mesh/world.rs"]
mod world;
