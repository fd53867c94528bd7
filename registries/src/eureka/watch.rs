//! When to ask: a whole list first, then changes; a whole list again when the changes do not add up to what the server
//! counts, and now and then, for leases are told there alone.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_core::Stream;
use weft_core::registry::{Completeness, Event, RegistryError, Scope};

use super::{
    catalog::{Catalog, Memory, REGISTERED_AGAIN},
    client::Client,
    pace::Pace,
    settings::EurekaSettings,
};
use crate::{
    http_client::jittered,
    told::{Told, notices},
};

/// How often a whole list is asked for although the changes add up, before jitter.
const WHOLE_AGAIN: Duration = Duration::from_secs(300);

/// Why a list is not believed to be whole.
const LOST: &str = "the server has nothing of what it had before, and may have been restarted: applications are given two \
                    and a half minutes to register again";
const BARE: &str = "nothing is registered there, and the server may have just started: applications are given two and a \
                    half minutes to register";
const YOUNG: &str = "all that is registered there was so a moment ago, and the server may have just started: others are \
                     given two and a half minutes to register again";

/// What is known of the servers over all watches of a registry. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<Mutex<Knowledge>>);

#[derive(Clone, Debug, Default)]
struct Knowledge {
    /// The last catalog of a watch that is over.
    catalog: Option<Arc<Catalog>>,
    /// Until when lists are not believed to be whole.
    doubted_until: Option<Instant>,
    /// Why not, for a person.
    doubt: &'static str,
    /// Whether nobody answered since the catalog, or ever.
    failed: bool,
    /// The server that answered last.
    server: usize,
}

impl Known {
    fn read(&self) -> Knowledge {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Knowledge)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Follows the servers until the consumer has enough.
pub(super) fn follow(
    settings: Arc<EurekaSettings>,
    scope: Scope,
    known: Known,
) -> impl Stream<Item = Result<Event, RegistryError>> {
    let state = Follow {
        told: Told::new(scope),
        client: None,
        catalog: None,
        whole_at: Instant::now(),
        tells_changes: true,
        queue: VecDeque::new(),
        ended: false,
        pace: Pace::new(settings.poll),
        settings,
        known,
    };
    futures_util::stream::unfold(state, |mut state| async move {
        let item = state.next().await?;
        Some((item, state))
    })
}

struct Follow {
    settings: Arc<EurekaSettings>,
    known: Known,
    pace: Pace,
    told: Told,
    client: Option<Client>,
    /// What this stream was told; none before its first list.
    catalog: Option<Arc<Catalog>>,
    /// When the next whole list is due.
    whole_at: Instant,
    tells_changes: bool,
    queue: VecDeque<Event>,
    ended: bool,
}

impl Follow {
    async fn next(&mut self) -> Option<Result<Event, RegistryError>> {
        while self.queue.is_empty() {
            if self.ended {
                return None;
            }
            if self.catalog.is_some() {
                tokio::time::sleep(jittered(self.pace.rest(Instant::now()))).await;
            }
            if let Err(error) = self.ask().await {
                self.ended = true;
                self.hand_over();
                self.known.change(|known| {
                    known.failed = true;
                    // That the one before answered long enough says nothing of the one to come.
                    known.doubted_until = known.doubted_until.filter(|until| Instant::now() < *until);
                });
                return Some(Err(error));
            }
        }
        self.queue.pop_front().map(Ok)
    }

    async fn ask(&mut self) -> Result<(), RegistryError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::new(&self.settings, self.known.read().server)?,
        };
        let asked = match self.catalog.is_some() && self.tells_changes && Instant::now() < self.whole_at {
            true => self.changes(&mut client).await,
            false => self.whole(&mut client).await,
        };
        self.client = Some(client);
        asked
    }

    async fn changes(&mut self, client: &mut Client) -> Result<(), RegistryError> {
        let Some(mut catalog) = self.catalog.clone() else { return self.whole(client).await };
        let told = match client.changes(&catalog).await {
            Ok(Some(told)) => told,
            Ok(None) => {
                self.tells_changes = false;
                return self.whole(client).await;
            }
            // Another server may answer.
            Err(_) if self.settings.servers.len() > 1 => return self.whole(client).await,
            Err(error) => return Err(error),
        };
        let (changes, now) = (told.list, Instant::now());
        self.pace.heard(told.length, !changes.is_empty(), now);
        let adds_up = catalog.hash_after(&changes) == changes.hash;
        if !adds_up || self.told.completeness() != Some(self.completeness()) || self.told.is_due(now) {
            return self.whole(client).await;
        }
        if changes.is_empty() {
            self.queue = [self.told.confirm()].into();
            return Ok(());
        }
        // This is the only one but for that.
        self.catalog = None;
        let changed = Arc::make_mut(&mut catalog).change(changes, client.context());
        self.catalog = Some(catalog);
        let (listing, gone) = changed.told(self.completeness() == Completeness::Filtered);
        match self.told.tell_changed(listing, gone) {
            Some(events) => self.queue = events.into(),
            // More than is believed at once.
            None => return self.whole(client).await,
        }
        Ok(())
    }

    async fn whole(&mut self, client: &mut Client) -> Result<(), RegistryError> {
        let told = client.all().await?;
        let (mut whole, now, known) = (told.list, Instant::now(), self.known.read());
        let before = self.catalog.as_deref().or(known.catalog.as_deref());
        let was_doubted_long_enough = known.doubted_until.is_some_and(|until| until <= now);
        // One that said itself how it came to have nothing goes on having nothing.
        let is_bare = whole.catalog.is_empty() && self.catalog.is_none();
        let doubt = match whole.catalog.memory(before, told.at) {
            Memory::Kept => None,
            Memory::Lost => Some(LOST),
            Memory::Unknown { .. } if was_doubted_long_enough => None,
            Memory::Unknown { .. } if is_bare => Some(BARE),
            Memory::Unknown { young } => {
                (young && known.failed && !whole.catalog.is_empty()).then_some(YOUNG)
            }
        };
        self.known.change(|known| {
            known.server = client.current();
            known.catalog = None;
            known.failed = false;
            if let Some(doubt) = doubt {
                known.doubted_until = Some(now + Duration::from_millis(REGISTERED_AGAIN));
                known.doubt = doubt;
            }
        });
        let is_due = now >= self.whole_at;
        self.whole_at = now + jittered(WHOLE_AGAIN);
        let completeness = self.completeness();
        if completeness == Completeness::Filtered {
            whole.listing.extend([notices([self.known.read().doubt.to_owned()])]);
        }
        let events = self.told.tell(whole.listing, completeness, now);
        // One that is asked for out of turn may be so again.
        if !is_due || !self.tells_changes {
            self.pace.heard(told.length, events.len() > 1, now);
        }
        self.catalog = Some(whole.catalog.into());
        // Not into the one that there is: it would keep room for a whole list.
        self.queue = events.into();
        Ok(())
    }

    /// While clients may still be registering again, what is missing may exist.
    fn completeness(&self) -> Completeness {
        match self.known.read().doubted_until {
            Some(until) if Instant::now() < until => Completeness::Filtered,
            _ => Completeness::Full,
        }
    }

    fn hand_over(&mut self) {
        if let Some(catalog) = self.catalog.take() {
            self.known.change(|known| known.catalog = Some(catalog));
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.hand_over();
    }
}
