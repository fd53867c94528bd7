//! The real binary, end to end: real processes, real sockets, real certificates.
#![allow(clippy::unwrap_used)]

#[path = "../support/support.rs"]
mod support;

mod access_log;
mod announced;
mod checked;
mod demonstration;
mod exit_codes;
mod explained;
mod lifecycle;
mod open_files;
mod outage;
mod quick_start;
mod real_clients;
mod reload;
mod rights;
mod root_rotation;
mod rotation;
mod stand_by;
mod starting;
mod two_hubs;
mod verbs;
