//! Nomad Variables that hold routes and policies: each item is a text as the files of a static registry are.
//!
//! They are read in one namespace and below one path alone, as whoever may write there decides who may call what. What a
//! reader may not see, Nomad leaves out of its list without a word: so it is asked for something that is not there, which
//! is answered 404 to who may read and 403 to who may not. Whoever may not is no reader of an empty list.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_core::future::BoxFuture;
use tokio::time::sleep;
use weft_core::{
    config::{Fault, Located, MeshFile, SourceFile, read_mesh},
    name::OriginName,
    registry::{OriginFault, RegistryError},
    resource::Resource,
};

use super::{client::Client, objects::VariableStub, settings};
use crate::{
    http_client::jittered,
    names,
    static_files::{conflicts, origin_fault},
    told::{Listing, Words},
    withheld,
};

/// Nobody calls a variable so.
pub(super) const NO_VARIABLE: &str = "weft-asks-whether-all-may-be-read";
/// How long a blocking query waits, in seconds.
const WAIT_S: u64 = 25;
/// Between two blocking queries: a change of any variable of the cluster ends one.
const PAUSE: Duration = Duration::from_secs(1);
/// The most variables that are read.
const MAX_VARIABLES: usize = 1000;

/// What each item said when it last made sense, in this process. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Understood(Arc<Mutex<Files>>);

/// What is known of items.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// What each said when it last made sense.
    good: BTreeMap<OriginName, MeshFile>,
    /// Those that made no sense when this process first saw them, and have not done so since; none before it saw any.
    doubted: Option<BTreeSet<OriginName>>,
}

/// What was read.
pub(super) struct Variables {
    place: settings::Variables,
    understood: Understood,
    /// By path: the index of the last change, and the items.
    known: BTreeMap<String, (u64, BTreeMap<String, String>)>,
    /// All that they say.
    pub(super) listing: Listing,
    /// What is gone since it was asked for last.
    gone: Vec<OriginName>,
    /// At which index they were so.
    index: u64,
    wait: Option<BoxFuture<'static, Result<u64, RegistryError>>>,
}

impl Variables {
    /// Reads them for the first time.
    pub(super) async fn begin(
        client: &Client,
        place: settings::Variables,
        understood: Understood,
    ) -> Result<Self, RegistryError> {
        let mut variables = Self {
            place,
            understood,
            known: BTreeMap::new(),
            listing: Listing::new(),
            gone: Vec::new(),
            index: 0,
            wait: None,
        };
        variables.read(client).await?;
        Ok(variables)
    }

    /// Waits until they may have changed; true when they should be read again. May be given up and called again.
    pub(super) async fn woken(&mut self, client: &Client) -> Result<bool, RegistryError> {
        let wait = self.wait.get_or_insert_with(|| {
            let (client, place, index) = (client.clone(), self.place.clone(), self.index);
            Box::pin(async move {
                sleep(jittered(PAUSE)).await;
                client
                    .variables_after(&place.namespace, &place.prefix, index, WAIT_S)
                    .await
                    .map(|it| it.index)
            })
        });
        let index = wait.await;
        self.wait = None;
        Ok(index? != self.index)
    }

    /// What is gone since the last call.
    pub(super) fn take_gone(&mut self) -> Vec<OriginName> {
        std::mem::take(&mut self.gone)
    }

    /// Reads what is new.
    pub(super) async fn read(&mut self, client: &Client) -> Result<(), RegistryError> {
        let settings::Variables { prefix, namespace } = &self.place;
        if !client.may_read_variable(namespace, &format!("{prefix}{NO_VARIABLE}")).await? {
            return Err(RegistryError::Denied(format!("the token lacks {}", right(&self.place))));
        }
        let listed = client.variables(namespace, prefix).await?;
        let mut stubs: Vec<VariableStub> = listed.value;
        if stubs.len() > MAX_VARIABLES {
            let message = format!("{} variables below {prefix}: at most {MAX_VARIABLES}", stubs.len());
            return Err(RegistryError::Malformed(message));
        }
        stubs.retain(|stub| stub.path.starts_with(prefix.as_str()));
        let mut known = BTreeMap::new();
        for stub in stubs {
            let before = self.known.get(&stub.path).filter(|(index, _)| *index == stub.modify_index);
            let items = match before {
                Some((_, items)) => items.clone(),
                None => match client.variable(namespace, &stub.path).await? {
                    Some(variable) => variable.items,
                    // Deleted in between: the next list says so.
                    None => continue,
                },
            };
            known.insert(stub.path, (stub.modify_index, items));
        }
        self.known = known;
        self.index = listed.index;
        self.speak();
        Ok(())
    }

    /// Puts what was read into words.
    fn speak(&mut self) {
        let texts = self.known.iter().flat_map(|(path, (_, items))| {
            items.iter().map(move |(item, text)| (path.as_str(), item.as_str(), text.as_str()))
        });
        let listing = words(texts, &mut self.understood.0.lock().unwrap_or_else(PoisonError::into_inner));
        let gone = self.listing.keys().filter(|origin| !listing.contains_key(*origin));
        self.gone.extend(gone.cloned());
        self.listing = listing;
    }
}

/// What items say, each an origin: path, item and text. One that makes no sense says what it said before; where it made none
/// from the beginning, and may be a policy, what that may be for is denied.
pub(super) fn words<'t>(
    texts: impl Iterator<Item = (&'t str, &'t str, &'t str)>,
    understood: &mut Files,
) -> Listing {
    let mut faults: BTreeMap<OriginName, Vec<OriginFault>> = BTreeMap::new();
    let mut unclear: BTreeMap<OriginName, &str> = BTreeMap::new();
    for (path, item, text) in texts {
        let place: String = format!("nomad variable {path} {item}").chars().take(200).collect();
        let place = place.replace(char::is_control, "?");
        let origin = names::origin_name(&["variable", path, item]);
        let outcome = read_mesh(&SourceFile::new(&place, text));
        let is_good = outcome.value.is_some();
        if let Some(file) = outcome.value {
            understood.good.insert(origin.clone(), file);
        } else if !understood.good.contains_key(&origin) {
            unclear.insert(origin.clone(), text);
        }
        faults.insert(origin, outcome.faults.iter().map(|fault| origin_fault(fault, !is_good)).collect());
    }
    let Files { good, doubted } = understood;
    good.retain(|origin, _| faults.contains_key(origin));
    let doubted = doubted.get_or_insert_with(|| unclear.keys().cloned().collect());
    doubted.retain(|origin| unclear.contains_key(origin));
    let mut conflicts = conflicts(good.iter());
    let mut listing = Listing::new();
    for (origin, mut faults) in faults {
        if let Some(text) = unclear.get(&origin) {
            let words = withheld::words(&origin, text, faults, doubted.contains(&origin));
            listing.insert(origin, words);
            continue;
        }
        let lost = conflicts.remove(&origin).unwrap_or_default();
        faults.extend(lost.iter().map(|(_, fault)| origin_fault(fault, false)));
        let said: &[Located<Resource>] = good.get(&origin).map_or(&[], |file| &file.resources);
        let mut rules = Vec::new();
        for located in said.iter().filter(|it| !lost.iter().any(|(key, _)| *key == it.value.key())) {
            match &located.value {
                Resource::Route(_) | Resource::Policy(_) => rules.push(located.value.clone()),
                Resource::Service(_) | Resource::Endpoint(_) => {
                    let what = located.value.key().describe();
                    let message = format!("{what} is left out: jobs register services");
                    faults.push(origin_fault(&Fault::error(located.place.clone(), message), false));
                }
            }
        }
        listing.insert(origin, Words::new(rules, faults));
    }
    listing
}

/// What a token needs to read them, in Nomad's words.
pub(super) fn right(place: &settings::Variables) -> String {
    let settings::Variables { prefix, namespace } = place;
    format!(
        "namespace \"{namespace}\" {{ variables {{ path \"{prefix}*\" {{ capabilities = [\"list\", \"read\"] }} }} }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "[[route]]\nname = \"r\"\nservice = \"web\"\n[[route.rule]]\nname = \"all\"\n";

    #[test]
    fn items_speak_alone_and_the_first_of_two_stands() {
        let mut understood = Files::default();
        let mut say = |third: &str| {
            let texts = [("weft/a", "x", ROUTE), ("weft/b", "y", ROUTE), ("weft/c", "z", third)];
            let listing = words(texts.into_iter(), &mut understood);
            move |origin: &str| listing[&origin.parse::<OriginName>().unwrap()].clone()
        };
        let of = say("nonsense");
        let (a, b, c) = (of("variable/weft%2Fa/x"), of("variable/weft%2Fb/y"), of("variable/weft%2Fc/z"));
        assert_eq!((a.resources.len(), a.faults.len()), (1, 0), "{a:?}");
        assert!(b.resources.is_empty() && b.faults[0].message.contains("defined by two"), "{b:?}");
        assert!(c.resources.is_empty() && c.faults[0].keeps_last_good, "{c:?}");
        assert!(c.faults[0].place.starts_with("nomad variable weft/c z"), "{c:?}");
        let _ = say(&ROUTE.replace("\"r\"", "\"third\""));
        let c = say("nonsense")("variable/weft%2Fc/z");
        assert!(c.resources.len() == 1 && c.faults[0].keeps_last_good, "what it said stands: {c:?}");
    }

    #[test]
    fn services_come_from_jobs_alone() {
        let text = "[[service]]\nname = \"web\"\nports = [{ name = \"http\", number = 80 }]\n";
        let listing = words([("weft/a", "odd\nitem", text)].into_iter(), &mut Files::default());
        let (_, words) = listing.first_key_value().unwrap();
        assert!(words.resources.is_empty() && !words.faults[0].keeps_last_good, "{words:?}");
        assert!(words.faults[0].message.contains("jobs register"), "{words:?}");
        assert!(!words.faults[0].place.contains('\n'));
    }
}
