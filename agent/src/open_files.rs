//! How many files the process may have open.
//!
//! A connection is an open file, and one that goes on elsewhere is two. Where files run out, every listener stands still,
//! whoever took them. Most processes are started with a soft limit of 1024, for the sake of programs that call `select`,
//! and may have as many as the hard limit says if they ask.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Says so in the log, with what is to be done, when that is less than the `needed`
/// files.
pub fn provide(needed: u64, advice: &str) {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, ..before };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    // None is no limit.
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < needed) {
        tracing::warn!(limit, needed, "fewer files may be open than there may be connections: {advice}");
    }
}
