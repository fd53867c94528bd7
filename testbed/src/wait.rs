//! Waiting for a state, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::error::Error;

/// How long any server may take to reach a state. Loaded machines are slow; what never comes costs this once.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks every 20 ms until `reached` says so.
///
/// # Errors
///
/// [`Error::TimedOut`], which names `what`, when that is not so within `limit`.
pub fn until(what: &str, limit: Duration, mut reached: impl FnMut() -> bool) -> Result<(), Error> {
    let begin = Instant::now();
    while !reached() {
        if begin.elapsed() > limit {
            return Err(Error::TimedOut { what: what.into(), limit });
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
