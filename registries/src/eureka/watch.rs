//! When to ask: a whole list first, then changes; a whole list again when the changes do not add up to what the server
//! counts, and now and then, for leases are told there alone.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_core::Stream;
use weft_core::{
    name::OriginName,
    registry::{Completeness, Event, RegistryError, Scope},
};

use super::{
    catalog::{Catalog, Changed, Memory, REGISTERED_AGAIN},
    client::Client,
    convert::Context,
    settings::EurekaSettings,
};
use crate::{
    http_client::jittered,
    told::{Listing, Told},
};

/// How often a whole list is asked for although the changes add up, before jitter.
const WHOLE_AGAIN: Duration = Duration::from_secs(300);

/// What is known of the servers over all watches of a registry. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<Mutex<Knowledge>>);

#[derive(Clone, Debug, Default)]
struct Knowledge {
    /// The last catalog.
    catalog: Option<Arc<Catalog>>,
    /// Until when lists are not believed to be whole.
    doubted_until: Option<Instant>,
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
    let context = Context {
        rules: settings.rules.clone(),
        trust_domain: settings.trust_domain.clone(),
        region: settings.region.clone(),
    };
    let state = Follow {
        told: Told::new(scope),
        client: None,
        catalog: None,
        whole_at: Instant::now(),
        tells_changes: true,
        queue: VecDeque::new(),
        ended: false,
        settings,
        context,
        known,
    };
    futures_util::stream::unfold(state, |mut state| async move {
        let item = state.next().await?;
        Some((item, state))
    })
}

struct Follow {
    settings: Arc<EurekaSettings>,
    context: Context,
    known: Known,
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
                tokio::time::sleep(jittered(self.settings.poll)).await;
            }
            if let Err(error) = self.ask().await {
                self.ended = true;
                self.known.change(|known| known.failed = true);
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
        let changes = match client.changes().await {
            Ok(Some(changes)) => changes,
            Ok(None) => {
                self.tells_changes = false;
                return self.whole(client).await;
            }
            // Another server may answer.
            Err(_) if self.settings.servers.len() > 1 => return self.whole(client).await,
            Err(error) => return Err(error),
        };
        let Some(mut catalog) = self.catalog.clone() else { return self.whole(client).await };
        let (hash, quiet) = (changes.list.hash.clone(), changes.list.instances.is_empty());
        let changed = match quiet {
            true => Changed::default(),
            false => Arc::make_mut(&mut catalog).change(changes.list, &self.context, changes.at),
        };
        if catalog.hash() != hash {
            return self.whole(client).await;
        }
        if self.told.completeness() != Some(self.completeness()) || self.told.is_in_doubt(Instant::now()) {
            // Whatever else is told, what the server itself deleted is gone.
            let gone = changed.deleted;
            self.queue.extend(self.told.tell_changed(Listing::new(), gone).unwrap_or_default());
            self.tell(catalog, Vec::new());
        } else if changed.is_nothing() {
            self.queue.push_back(self.told.confirm());
        } else {
            let gone = changed.gone(self.completeness() == Completeness::Filtered);
            self.tell(catalog, gone);
        }
        Ok(())
    }

    async fn whole(&mut self, client: &mut Client) -> Result<(), RegistryError> {
        let list = client.all().await?;
        let known = self.known.read();
        let (catalog, memory) = Catalog::take(list.list, known.catalog.as_deref(), &self.context, list.at);
        let empty = catalog.is_empty();
        let doubtful = match memory {
            Memory::Kept => false,
            Memory::Lost => true,
            Memory::Unknown { young } => empty || (young && known.failed),
        };
        let until = Instant::now() + Duration::from_millis(REGISTERED_AGAIN);
        self.known.change(|known| {
            known.server = client.current();
            if doubtful {
                known.doubted_until = Some(until);
            }
        });
        self.whole_at = Instant::now() + jittered(WHOLE_AGAIN);
        self.tell(catalog.into(), Vec::new());
        Ok(())
    }

    /// Tells the catalog. `gone` are those that the server deleted by its own word.
    fn tell(&mut self, catalog: Arc<Catalog>, gone: Vec<OriginName>) {
        let listing = catalog.listing(&self.context);
        let explicit = (!gone.is_empty()).then(|| self.told.tell_changed(listing.clone(), gone)).flatten();
        let completeness = self.completeness();
        let tell = || self.told.tell(listing, completeness, Instant::now());
        let events = explicit.unwrap_or_else(tell);
        self.queue.extend(events);
        self.known.change(|known| {
            known.catalog = Some(catalog.clone());
            known.failed = false;
        });
        self.catalog = Some(catalog);
    }

    /// While clients may still be registering again, what is missing may exist.
    fn completeness(&self) -> Completeness {
        match self.known.read().doubted_until {
            Some(until) if Instant::now() < until => Completeness::Filtered,
            _ => Completeness::Full,
        }
    }
}
