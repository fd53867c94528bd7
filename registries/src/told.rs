//! What was told of a catalog, so that only what is new is told again. Pure: listings in, events out.
//!
//! For registries that learn the whole of their catalog again and again. What is gone from a listing is told as gone
//! only where the listing is plausible: an answer that is cut short, filtered, or that lacks most of what was there is
//! told as a full list, which [`weft_core::merge`] judges (silence is not absence).

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use weft_core::{
    merge::{BELIEVED_AFTER, DOUBTED_FROM},
    name::OriginName,
    registry::{Completeness, Event, OriginFault, Scope, Version},
    resource::{Endpoint, Resource},
};

use crate::names;

/// How often a list that was doubted is told again, so that it is believed in time.
const DOUBT_AGAIN: Duration = BELIEVED_AFTER.checked_div(10).expect("ten is not zero");

/// How many faults of one origin are told one by one.
pub const MAX_FAULTS: usize = 20;

/// The first faults of one origin, and how many there are beside them: whoever writes to a catalog decides how many there
/// are, and all of them are kept, on disk too.
#[must_use]
pub fn bounded(mut faults: Vec<OriginFault>) -> Vec<OriginFault> {
    let more = faults.len().saturating_sub(MAX_FAULTS);
    if more > 0 {
        let keeps_last_good = faults.drain(MAX_FAULTS..).any(|fault| fault.keeps_last_good);
        let place = faults[0].place.clone();
        faults.push(OriginFault { message: format!("and {more} more faults"), place, keeps_last_good });
    }
    faults
}

/// What one origin says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Changes when anything of the origin does.
    pub version: Version,
    /// All it says.
    pub resources: Vec<Resource>,
    /// All that could not be taken over.
    pub faults: Vec<OriginFault>,
}

impl Words {
    /// With a digest of what is said as its version, for catalogs whose own versions do not cover all of it.
    #[must_use]
    pub fn new(resources: Vec<Resource>, faults: Vec<OriginFault>) -> Self {
        let mut digest = Digest(DefaultHasher::new());
        for resource in &resources {
            // A digest takes everything, and every resource is JSON.
            let _ = serde_json::to_writer(&mut digest, resource);
        }
        Self { version: Version(format!("{:016x}", digest.0.finish()).into()), resources, faults }
    }

    /// In which words of two versions or with other faults differ.
    pub(crate) fn digest(&self) -> u64 {
        let mut digest = DefaultHasher::new();
        self.version.0.hash(&mut digest);
        for fault in &self.faults {
            (&fault.message, &fault.place, fault.keeps_last_good).hash(&mut digest);
        }
        digest.finish()
    }
}

/// Lets endpoints that follow each other have what is equal of them once, as those of one service mostly do. `last` is the
/// one before them, and becomes the last of them.
pub(crate) fn share(resources: &mut [Resource], last: &mut Option<Arc<Endpoint>>) {
    for resource in resources {
        let Resource::Endpoint(shared) = resource else { continue };
        if let (Some(new), Some(last)) = (Arc::get_mut(shared), last.as_deref()) {
            same(&mut new.service, &last.service);
            same(&mut new.port_name, &last.port_name);
            same(&mut new.identity, &last.identity);
            same(&mut new.labels, &last.labels);
            same(&mut new.locality, &last.locality);
        }
        *last = Some(shared.clone());
    }
}

fn same<T: Clone + PartialEq>(new: &mut T, old: &T) {
    if new == old {
        new.clone_from(old);
    }
}

struct Digest(DefaultHasher);

impl io::Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a person should know of a registry as a whole, as an origin that says nothing else. Told with every listing: with
/// no message left, it goes.
#[must_use]
pub fn notices(messages: impl IntoIterator<Item = String>) -> (OriginName, Words) {
    let fault = |message| OriginFault { message, place: "the registry".into(), keeps_last_good: false };
    let faults = messages.into_iter().map(fault).collect();
    (names::origin_name(&["notices"]), Words::new(Vec::new(), faults))
}

/// A catalog as it is at one time.
pub type Listing = BTreeMap<OriginName, Words>;

/// What was told of one scope.
#[derive(Debug)]
pub struct Told {
    scope: Scope,
    /// A digest of what each origin said last: the words themselves are kept by who was told.
    said: BTreeMap<OriginName, u64>,
    completeness: Option<Completeness>,
    /// When a list was last told, and until when it is told again and again: while what it lacks may be held unconfirmed.
    doubt: Option<Doubt>,
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    told_at: Instant,
    until: Instant,
}

impl Doubt {
    fn is_due(self, now: Instant) -> bool {
        now.duration_since(self.told_at) >= DOUBT_AGAIN
    }
}

impl Told {
    /// Nothing was told yet.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { scope, said: BTreeMap::new(), completeness: None, doubt: None }
    }

    /// The events that tell a listing: a full list the first time and whenever it is not to be believed at once, what
    /// is different otherwise. Always ends with a commit, for what is the same is confirmed.
    pub fn tell(&mut self, listing: Listing, completeness: Completeness, now: Instant) -> Vec<Event> {
        let gone: Vec<OriginName> =
            self.said.keys().filter(|origin| !listing.contains_key(*origin)).cloned().collect();
        let implausible = self.said.len() >= DOUBTED_FROM && gone.len() * 2 > self.said.len();
        self.doubt = self.doubt.filter(|doubt| now < doubt.until);
        let due = self.doubt.is_some_and(|doubt| doubt.is_due(now));
        let hides = completeness != Completeness::Full || self.completeness == Some(Completeness::Filtered);
        let as_list = self.completeness.is_none() || hides || implausible || due;
        let mut events = Vec::new();
        if as_list {
            let unchanged = self.completeness == Some(completeness) && !due && self.is_told(&listing);
            if !unchanged {
                self.list(listing, completeness, &mut events);
                let until =
                    if implausible || hides { Some(now + BELIEVED_AFTER + 2 * DOUBT_AGAIN) } else { None };
                let until = until.or(self.doubt.map(|doubt| doubt.until));
                self.doubt = until.map(|until| Doubt { told_at: now, until });
            }
        } else {
            self.changes(listing, gone, &mut events);
        }
        events.push(Event::Commit { scope: self.scope.clone(), resume: None, age: Duration::ZERO });
        events
    }

    /// The events that tell what some origins say now, and that some are gone, all else being as it was told: for a
    /// catalog that knows what changed, and whose word it is that they are gone (none of them is merely hidden). None when
    /// only a whole listing may be told: at first, and where too much is gone to be believed at once.
    pub fn tell_changed(&mut self, changed: Listing, gone: Vec<OriginName>) -> Option<Vec<Event>> {
        let gone: Vec<_> = gone.into_iter().filter(|origin| self.said.contains_key(origin)).collect();
        let implausible = self.said.len() >= DOUBTED_FROM && gone.len() * 2 > self.said.len();
        if self.completeness.is_none() || implausible {
            return None;
        }
        let mut events = Vec::new();
        self.changes(changed, gone, &mut events);
        events.push(self.confirm());
        Some(events)
    }

    /// Whether the last list was one that may be wrong: then whole listings are to be told until it is believed.
    #[must_use]
    pub fn is_in_doubt(&self, now: Instant) -> bool {
        self.doubt.is_some_and(|doubt| now < doubt.until)
    }

    /// Whether a whole listing is to be told again, so that what it lacks is believed in time.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.doubt.is_some_and(|doubt| now < doubt.until && doubt.is_due(now))
    }

    /// How complete the last list was that was told; none before the first.
    #[must_use]
    pub fn completeness(&self) -> Option<Completeness> {
        self.completeness
    }

    /// "Still true", without a listing.
    #[must_use]
    pub fn confirm(&self) -> Event {
        Event::Commit { scope: self.scope.clone(), resume: None, age: Duration::ZERO }
    }

    fn is_told(&self, listing: &Listing) -> bool {
        self.said.len() == listing.len() && listing.iter().all(|(origin, words)| self.is_said(origin, words))
    }

    fn is_said(&self, origin: &OriginName, words: &Words) -> bool {
        self.said.get(origin) == Some(&words.digest())
    }

    fn list(&mut self, listing: Listing, completeness: Completeness, events: &mut Vec<Event>) {
        self.said.clear();
        // With a reset and an end, and the commit that follows.
        events.reserve_exact(listing.len() + 3);
        events.push(Event::Reset { scope: self.scope.clone() });
        for (origin, words) in listing {
            events.push(self.replace(origin, words));
        }
        events.push(Event::Ready { scope: self.scope.clone(), completeness });
        self.completeness = Some(completeness);
    }

    fn changes(&mut self, listing: Listing, gone: Vec<OriginName>, events: &mut Vec<Event>) {
        for origin in gone {
            self.said.remove(&origin);
            events.push(Event::Replace {
                scope: self.scope.clone(),
                origin,
                version: Version("gone".into()),
                resources: Vec::new(),
                faults: Vec::new(),
            });
        }
        for (origin, words) in listing {
            if !self.is_said(&origin, &words) {
                events.push(self.replace(origin, words));
            }
        }
    }

    fn replace(&mut self, origin: OriginName, words: Words) -> Event {
        self.said.insert(origin.clone(), words.digest());
        let Words { version, resources, faults } = words;
        Event::Replace { scope: self.scope.clone(), origin, version, resources, faults }
    }
}

#[cfg(test)]
mod tests {
    use weft_core::name::RegistryName;

    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let words = |version: &str| Words {
            version: Version(version.into()),
            resources: Vec::new(),
            faults: vec![crate::names::fault("x", "kept")],
        };
        names.iter().map(|name| (name.parse().unwrap(), words("1"))).collect()
    }

    fn shape(events: &[Event]) -> String {
        let letter = |event: &Event| match event {
            Event::Reset { .. } => "[".to_owned(),
            Event::Replace { origin, resources: _, faults, .. } if faults.is_empty() => format!("-{origin}"),
            Event::Replace { origin, .. } => format!("+{origin}"),
            Event::Ready { completeness: Completeness::Full, .. } => "]".to_owned(),
            Event::Ready { .. } => "?]".to_owned(),
            Event::Commit { .. } => ".".to_owned(),
        };
        events.iter().map(letter).collect()
    }

    #[test]
    fn a_listing_is_told_whole_once_and_then_by_what_is_different() {
        use Completeness::{Filtered, Full};
        let mut told = Told::new(Scope::whole(RegistryName::new("consul").unwrap()));
        let now = Instant::now();
        let mut tell = |names: &[&str], completeness, after| {
            shape(&told.tell(listing(names), completeness, now + Duration::from_secs(after)))
        };
        assert_eq!(tell(&["a", "b"], Full, 0), "[+a+b].");
        assert_eq!(tell(&["a", "b"], Full, 1), ".");
        assert_eq!(tell(&["b", "c"], Full, 2), "-a+c.");
        assert_eq!(tell(&["b"], Filtered, 3), "[+b?].", "what is hidden is not gone");
        assert_eq!(tell(&["b"], Filtered, 4), ".");
        assert_eq!(tell(&["b", "c"], Full, 5), "[+b+c].");
    }

    #[test]
    fn changes_are_told_alone_unless_they_are_hard_to_believe() {
        use Completeness::Full;
        let mut told = Told::new(Scope::whole(RegistryName::new("consul").unwrap()));
        let now = Instant::now();
        let gone = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
        let changed = |told: &mut Told, some: &[&str], without: &[&str]| {
            told.tell_changed(listing(some), gone(without)).map(|events| shape(&events))
        };
        assert_eq!(changed(&mut told, &["a"], &[]), None, "nothing was listed yet");
        told.tell(listing(&["a", "b"]), Full, now);
        assert_eq!(changed(&mut told, &["b", "c"], &["a", "x"]).unwrap(), "-a+c.");
        let all: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        told.tell(listing(&all), Full, now);
        assert_eq!(changed(&mut told, &[], &all[..6]), None, "too much to be believed");
        assert_eq!(told.completeness(), Some(Full));
        assert!(!told.is_in_doubt(now));
        told.tell(listing(&["s1"]), Full, now);
        let after = |seconds| told.is_in_doubt(now + Duration::from_secs(seconds));
        assert_eq!((after(60), after(1000)), (true, false), "until such a list is believed");
        let due = |seconds| told.is_due(now + Duration::from_secs(seconds));
        assert_eq!((due(30), due(60), due(1000)), (false, true, false), "meanwhile it is told again");
    }

    #[test]
    fn many_faults_are_counted_and_none_that_counts_is_lost() {
        let fault =
            |keeps_last_good| OriginFault { keeps_last_good, ..crate::names::fault("x", "makes no sense") };
        let few = vec![fault(false); MAX_FAULTS];
        assert_eq!(bounded(few.clone()), few);
        let many = bounded([few, vec![fault(false); 3], vec![fault(true)]].concat());
        assert_eq!(many.len(), MAX_FAULTS + 1);
        let last = &many[MAX_FAULTS];
        assert_eq!((&*last.message, &*last.place), ("and 4 more faults", "\"x\""));
        assert!(last.keeps_last_good && !many[0].keeps_last_good);
    }

    #[test]
    fn what_is_said_is_its_version() {
        use weft_core::resource::{AppProtocol, Service, ServicePort};
        let version = |number: u16| {
            let name = "http".parse().unwrap();
            let ports = vec![ServicePort { name, number, protocol: AppProtocol::Http }];
            let name = "web.default".parse().unwrap();
            let service = Service { name, ports, hosts: Vec::new(), nearest: false, declared: true };
            Words::new(vec![Resource::Service(service.into())], Vec::new()).version
        };
        assert_eq!(version(80), version(80));
        assert_ne!(version(80), version(81));
    }

    #[test]
    fn a_listing_that_lost_most_is_told_as_a_list_until_it_is_believed() {
        let mut told = Told::new(Scope::whole(RegistryName::new("consul").unwrap()));
        let now = Instant::now();
        let all: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        told.tell(listing(&all), Completeness::Full, now);
        let mut tell = |names: &[&str], after| {
            shape(&told.tell(listing(names), Completeness::Full, now + Duration::from_secs(after)))
        };
        assert_eq!(tell(&["s1"], 1), "[+s1].");
        assert_eq!(tell(&["s1"], 2), ".");
        assert_eq!(tell(&["s1"], 70), "[+s1].", "told again, so that it can be believed ten minutes on");
        assert_eq!(tell(&["s1"], 660), "[+s1].");
        assert_eq!(tell(&["s1"], 730), ".", "by now it is believed");
    }
}
