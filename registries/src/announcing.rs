//! Keeping a local instance announced: the loop that is the same for every platform.
//!
//! One task for each lease, so that a caller never waits for a server: it registers, renews in time, registers again
//! where the server forgot the instance, tells it anew when it changed, and withdraws it when the lease ends. What a
//! platform adds is a [`Place`]: how each of these is said there. A server that is away costs one warning, not one for
//! each try.

use std::{future::Future, pin::pin, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use weft_core::{
    driver::Backoff,
    registry::{Keeper, LocalInstance, Next, RegistryError},
};

use crate::http_client::jittered;

/// How long withdrawing is tried. What is not withdrawn then runs out at the server by itself.
const WITHDRAWING: Duration = Duration::from_secs(5);
/// How long a word that is on its way may still take when there is another one to say: two on two connections could
/// overtake each other.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// Longer than any word takes.
const LONG: Duration = Duration::from_secs(3600);

/// How one platform is told of an instance.
pub trait Place: Send {
    /// The platform, for messages.
    fn name(&self) -> &str;

    /// How often what is announced must be renewed, before jitter.
    fn renewed_every(&self) -> Duration;

    /// How long one rests whose announcement was refused, before jitter.
    fn refused_pause(&self) -> Duration {
        self.renewed_every()
    }

    /// Registers the instance, or tells anew what it is.
    fn announce(
        &mut self,
        instance: &LocalInstance,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Renews it. Returns whether the server knows it.
    fn renew(&mut self, instance: &LocalInstance)
    -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Withdraws it; that it is not known there is no fault.
    fn withdraw(
        &mut self,
        instance: &LocalInstance,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Whether somebody else says already that the platform is away: what all announcements share is said once.
    fn is_known_away(&self) -> bool {
        false
    }

    /// Ends when there is reason to announce anew at once: a connection was made again. May be dropped at any time.
    fn stirred(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Keeps an instance announced until its lease ends. To be spawned.
pub async fn keep(mut keeper: Keeper, mut place: impl Place) {
    let (mut backoff, mut known, mut is_said) = (Backoff::default(), false, false);
    loop {
        let wanted = keeper.wanted();
        let (said, next) = {
            let mut saying = pin!(say(&mut place, &wanted, known));
            tokio::select! {
                said = &mut saying => (said, None),
                next = keeper.next(LONG) => (in_time(ON_ITS_WAY, saying).await, Some(next)),
            }
        };
        let pause = match said {
            Ok(was_known) => {
                if !was_known {
                    tracing::info!(instance = %wanted.endpoint.instance, "announced in {}", place.name());
                }
                (known, is_said) = (true, false);
                keeper.confirm();
                backoff.succeeded();
                jittered(place.renewed_every())
            }
            Err(error) => {
                let instance = &wanted.endpoint.instance;
                keeper.failed(error.to_string());
                if !is_said && !place.is_known_away() {
                    tracing::warn!(%instance, %error, "{} does not take an announcement; tried again", place.name());
                    is_said = true;
                }
                match error {
                    RegistryError::Denied(_) | RegistryError::Malformed(_) => jittered(place.refused_pause()),
                    error => backoff.next(&error).min(place.renewed_every()),
                }
            }
        };
        let next = match next {
            Some(next) => next,
            None => tokio::select! {
                next = keeper.next(pause) => next,
                () = place.stirred() => Next::Changed,
            },
        };
        match next {
            Next::Due => {}
            Next::Changed => known = false,
            Next::Leave => return,
            Next::Withdraw => return withdraw(place, &keeper.wanted()).await,
        }
    }
}

/// Renews what is known, and announces what is not. Returns whether it was known.
async fn say(place: &mut impl Place, instance: &LocalInstance, known: bool) -> Result<bool, RegistryError> {
    if known && place.renew(instance).await? {
        return Ok(true);
    }
    place.announce(instance).await.map(|()| false)
}

async fn withdraw(mut place: impl Place, instance: &LocalInstance) {
    let until = Instant::now() + WITHDRAWING;
    let mut backoff = Backoff::default();
    loop {
        let gone = in_time(until.saturating_duration_since(Instant::now()), place.withdraw(instance)).await;
        let Err(error) = gone else { return };
        let pause = backoff.next(&error);
        if Instant::now() + pause >= until {
            let instance = &instance.endpoint.instance;
            tracing::warn!(%instance, %error, "not withdrawn from {}: it runs out there by itself", place.name());
            return;
        }
        sleep(pause).await;
    }
}

async fn in_time<T>(
    limit: Duration,
    word: impl Future<Output = Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    let late = |_| Err(RegistryError::Unreachable("no answer in time".into()));
    timeout(limit, word).await.unwrap_or_else(late)
}
