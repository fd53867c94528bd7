//! The window into a running process: HTTP/1.1 on a Unix socket for the operator, and a read-only part of it on TCP.
//!
//! Whoever may open the socket (mode 0600) is the operator; the TCP side answers only what a load balancer and a metrics
//! collector need, and nothing there changes anything. Both run on the control runtime and cannot slow down traffic.

pub mod client;
pub mod metrics;
pub mod pages;
pub mod endpoints;
pub mod server;
pub mod word;

pub use server::{Admin, Answer, Handler};
