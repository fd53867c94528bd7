//! Whether a registry is there, and what the log tells of that: an outage once, and of a registry that comes and goes that it
//! does so, with a count now and then. Else one whose lists come and whose changes never do would fill the log.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{driver::STEADY, name::RegistryName, registry::RegistryError};

/// A registry that was lost so often in such a time comes and goes.
const OFTEN: (usize, Duration) = (4, Duration::from_secs(30));
/// How often the log tells at most how often it was lost.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// Whether a registry is there.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Since when it has been.
    up_since: Option<Instant>,
    down_since: Option<SystemTime>,
    /// Whether it lists anew, where it is now, and has said nothing since.
    lists_anew: bool,
    error: Option<String>,
    /// When it was lost, of late.
    lost_at: VecDeque<Instant>,
    flapping: Option<Flapping>,
}

/// It comes and goes.
#[derive(Debug)]
struct Flapping {
    /// How often it was lost.
    times: usize,
    told_at: Instant,
}

impl Connection {
    /// Whether its stream is up and has said something.
    pub(super) fn is_up(&self) -> bool {
        self.up_since.is_some()
    }

    /// Why it was lost last: none while it is there, unless it comes and goes.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Since when it is away.
    pub(super) fn down_since(&self) -> Option<SystemTime> {
        self.down_since
    }

    /// The same, of a stream that has said nothing yet.
    pub(super) fn begun_anew(self) -> Self {
        Self { up_since: None, ..self }
    }

    /// It said something.
    pub(super) fn is_heard(&mut self, registry: &RegistryName) {
        let up_since = *self.up_since.get_or_insert_with(Instant::now);
        (self.down_since, self.lists_anew) = (None, false);
        if self.flapping.is_some() && up_since.elapsed() < STEADY {
            return;
        }
        self.flapping = None;
        if self.error.take().is_some() {
            tracing::info!(%registry, "registry is back");
        }
    }

    /// Its stream ended. The log tells an outage once; its later errors are in the status. Who goes on elsewhere, or lists
    /// anew what was lost, is no outage before that fails too.
    pub(super) fn is_lost(&mut self, registry: &RegistryName, error: &RegistryError, now: SystemTime) {
        let was_up = self.is_up();
        match error {
            RegistryError::Moved(_) if was_up => {
                self.lists_anew = false;
                return tracing::info!(%registry, reason = %error, "it is followed elsewhere");
            }
            RegistryError::Gap(_) if was_up && !std::mem::replace(&mut self.lists_anew, true) => {
                return tracing::debug!(%registry, reason = %error, "it is listed anew");
            }
            _ => {}
        }
        if was_up || self.error.is_none() {
            self.tell(registry, error);
        }
        self.up_since = None;
        self.down_since.get_or_insert(now);
        self.error = Some(match &self.flapping {
            Some(Flapping { times, .. }) => format!("it comes and goes, {times} times so far: {error}"),
            None => error.to_string(),
        });
    }

    fn tell(&mut self, registry: &RegistryName, error: &RegistryError) {
        let (often, within) = OFTEN;
        self.lost_at.retain(|at| at.elapsed() < within);
        self.lost_at.push_back(Instant::now());
        match &mut self.flapping {
            Some(Flapping { times, told_at }) => {
                *times += 1;
                if told_at.elapsed() >= COUNT_EVERY {
                    *told_at = Instant::now();
                    tracing::warn!(%registry, %error, times, "registry still comes and goes");
                }
            }
            None if self.lost_at.len() >= often => {
                let times = self.lost_at.len();
                self.flapping = Some(Flapping { times, told_at: Instant::now() });
                tracing::warn!(%registry, %error, times, "registry comes and goes: what it said last stays in force, and losses are counted until it stays");
            }
            None => tracing::warn!(%registry, %error, "registry lost: what it said last stays in force"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_and_goes_is_told_as_that_until_it_stays() {
        let (registry, mut connection) = ("x".parse().unwrap(), Connection::default());
        let error = RegistryError::Unreachable("closed".into());
        let pass = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        for _ in 0..3 {
            connection.is_heard(&registry);
            assert_eq!(connection.error(), None);
            connection.is_lost(&registry, &error, SystemTime::UNIX_EPOCH);
            assert_eq!(connection.error(), Some("unreachable: closed"));
            pass(2).await;
        }
        for _ in 0..3 {
            connection.is_lost(&registry, &error, SystemTime::UNIX_EPOCH);
        }
        assert!(connection.flapping.is_none(), "tries within an outage");
        connection.is_heard(&registry);
        connection.is_lost(&registry, &error, SystemTime::UNIX_EPOCH);
        connection.is_heard(&registry);
        assert!(connection.is_up() && connection.down_since().is_none());
        assert_eq!(connection.error(), Some("it comes and goes, 4 times so far: unreachable: closed"));
        pass(9).await;
        connection.is_heard(&registry);
        assert!(connection.error().is_some());
        pass(1).await;
        connection.is_heard(&registry);
        assert_eq!(connection.error(), None);
        pass(30).await;
        connection.is_lost(&registry, &error, SystemTime::UNIX_EPOCH);
        assert_eq!(connection.error(), Some("unreachable: closed"), "an outage as any");
    }

    #[tokio::test(start_paused = true)]
    async fn who_lists_anew_is_there_unless_that_says_nothing_either() {
        let (registry, mut connection) = ("x".parse().unwrap(), Connection::default());
        let gap = RegistryError::Gap("forgotten".into());
        for _ in 0..2 {
            connection.is_heard(&registry);
            connection.is_lost(&registry, &gap, SystemTime::UNIX_EPOCH);
            assert!(connection.is_up() && connection.error().is_none());
        }
        connection.is_lost(&registry, &RegistryError::Moved("b goes on".into()), SystemTime::UNIX_EPOCH);
        connection.is_lost(&registry, &gap, SystemTime::UNIX_EPOCH);
        assert!(connection.is_up() && connection.error().is_none(), "who moves may list anew there");
        connection.is_lost(&registry, &gap, SystemTime::UNIX_EPOCH);
        assert!(!connection.is_up() && connection.error().is_some_and(|error| error.contains("forgotten")));
    }

    #[tokio::test(start_paused = true)]
    async fn outages_that_are_seldom_are_each_told() {
        let (registry, mut connection) = ("x".parse().unwrap(), Connection::default());
        for _ in 0..20 {
            connection.is_heard(&registry);
            connection.is_lost(&registry, &RegistryError::Unreachable("x".into()), SystemTime::UNIX_EPOCH);
            tokio::time::sleep(Duration::from_secs(12)).await;
        }
        assert!(connection.flapping.is_none());
    }
}
