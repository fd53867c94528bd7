//! Reading what changed, a few questions at once.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    super::{access, health::Known, objects::Allocation},
    Follow, Instant, Name, Namespaces, Notice, RegistryError, StreamEvent, Text,
};

/// How many questions are asked at once: a client address has a hundred connections, for all that run there.
const AT_ONCE: usize = 8;
/// From how many allocations on the list of all of them is read instead of each.
const MANY: usize = 32;

impl Follow {
    /// Reads which region this is, and whether nodes may be read.
    pub(super) async fn ask_who_we_are(&mut self) -> Result<(), RegistryError> {
        self.may_read_nodes = self.client.may_read_nodes().await?;
        let lacking = "the token lacks node { policy = \"read\" }: mesh ports in the meta of nodes, and the names and \
                       classes of nodes, are not known";
        self.notice(Notice::Nodes, (!self.may_read_nodes).then(|| lacking.to_owned()));
        let mut unknown = None;
        self.region = match &self.settings.region {
            Some(region) => region.clone(),
            None => {
                let regions = self.client.regions().await?;
                unknown = unknown_region(regions.len());
                regions.into_iter().next().filter(|_| unknown.is_none()).unwrap_or_default()
            }
        };
        self.notice(Notice::Region, unknown);
        Ok(())
    }

    /// Reads every service.
    pub(super) async fn read_all(&mut self, names: &access::Names) -> Result<(), RegistryError> {
        self.read_services(names.services.iter().cloned().collect()).await?;
        self.remove_missing(names);
        self.index = names.index;
        self.swept = Instant::now();
        Ok(())
    }

    /// Reads services that are new.
    pub(super) async fn read_names(&mut self, names: &access::Names) -> Result<(), RegistryError> {
        let known: BTreeSet<&Name> = self.catalog.names().collect();
        let new = names.services.iter().filter(|name| !known.contains(name)).cloned().collect();
        self.read_services(new).await?;
        self.remove_missing(names);
        Ok(())
    }

    fn remove_missing(&mut self, names: &access::Names) {
        let gone = self.catalog.names().filter(|name| !names.services.contains(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.catalog.remove_service(&name);
        }
    }

    /// Reads what events name.
    pub(super) async fn read_what_changed(&mut self, events: Vec<StreamEvent>) -> Result<(), RegistryError> {
        let (mut services, mut allocations, mut nodes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut index = self.index;
        let read = if self.link.is_several() { self.opened_at } else { self.index };
        for event in events {
            match (event.topic.as_str(), event.payload) {
                // What was read already, told once more from the beginning of the stream.
                ("Service", _) if event.index <= read => {}
                ("Service", payload) => {
                    index = index.max(event.index);
                    let Some(service) = payload.service else { return self.sweep().await };
                    if self.is_followed(&event.namespace) {
                        services.insert((event.namespace, service.service_name).into());
                    }
                }
                ("Allocation", payload) => {
                    let is_new = self.is_new(&event.key, payload.allocation.as_deref());
                    allocations.extend(is_new.then(|| event.key.into()));
                }
                ("Node", payload) => {
                    let known = self.catalog.nodes.get(&*event.key);
                    let is_new = self.catalog.names_id(&event.key) && known != payload.node.as_deref();
                    nodes.extend(is_new.then(|| event.key.into()));
                }
                _ => {}
            }
        }
        self.read_services(services).await?;
        self.index = self.index.max(index);
        self.read_allocations(allocations).await?;
        self.read_nodes(nodes).await?;
        self.complete(false).await?;
        if self.catalog.has_changes() {
            self.tell(false);
        }
        Ok(())
    }

    fn is_followed(&self, namespace: &str) -> bool {
        match &self.settings.namespaces {
            Namespaces::All => true,
            Namespaces::These(namespaces) => namespaces.iter().any(|it| it == namespace),
        }
    }

    fn is_new(&self, id: &str, told: Option<&Allocation>) -> bool {
        let known = self.catalog.allocations.get(id);
        let is_known = known.zip(told).is_some_and(|(known, told)| known.allocation.is(told));
        self.catalog.names_id(id) && !is_known
    }

    async fn read_services(&mut self, names: BTreeSet<Name>) -> Result<(), RegistryError> {
        let client = self.client.clone();
        let asked = names.into_iter().map(move |name| {
            let client = client.clone();
            Box::pin(async move {
                let answer = client.service(&name.0, &name.1).await;
                (name, answer)
            })
        });
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((name, answer)) = answers.next().await {
            match answer {
                Ok(answer) => {
                    // By an event it comes before any list has it. Of those that are named each answers for itself, and
                    // one that is new is to be judged.
                    if !answer.is_empty() && matches!(self.settings.namespaces, Namespaces::All) {
                        self.seen.add(&name.0);
                    }
                    self.catalog.read_service(&name, answer);
                }
                // One answer that makes no sense is nothing to stop for.
                Err(RegistryError::Malformed(why)) => self.catalog.garble_service(&name, &why),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what services name and is not known yet, and begins or ends asking for checks.
    pub(super) async fn complete(&mut self, is_first_list: bool) -> Result<(), RegistryError> {
        self.catalog.tidy();
        let unknown = &mut self.unknown;
        unknown.retain(|id| self.catalog.names_id(id));
        let mut allocations = self.catalog.named_allocations();
        allocations.retain(|id| !unknown.contains(id) && !self.catalog.allocations.contains_key(id));
        if allocations.len() > MANY {
            self.read_list_of_allocations(is_first_list).await?;
            allocations.retain(|id| !self.catalog.allocations.contains_key(id));
        }
        self.read_each_allocation(allocations, is_first_list).await?;
        self.read_helpers().await?;
        let mut nodes = self.catalog.named_nodes();
        nodes.retain(|id| !self.unknown.contains(id) && !self.catalog.nodes.contains_key(id));
        self.read_nodes(nodes).await?;
        let catalog = &self.catalog;
        self.polls.keep(|id| catalog.allocations.get(id).is_some_and(Known::runs));
        for (id, known) in &self.catalog.allocations {
            if known.runs() && !self.polls.knows(id) {
                self.polls.ask_now(id, &known.allocation.node);
            }
        }
        Ok(())
    }

    async fn read_allocations(&mut self, ids: BTreeSet<Text>) -> Result<(), RegistryError> {
        if ids.len() > MANY {
            return self.read_list_of_allocations(false).await;
        }
        self.read_each_allocation(ids, false).await
    }

    /// Without events nobody says that an allocation changed.
    pub(super) async fn read_allocations_again(&mut self) -> Result<(), RegistryError> {
        let known: BTreeSet<Text> = self.catalog.allocations.keys().cloned().collect();
        self.read_allocations(known).await
    }

    async fn read_list_of_allocations(&mut self, is_first_list: bool) -> Result<(), RegistryError> {
        let namespaces = match &self.settings.namespaces {
            Namespaces::All => vec!["*".to_owned()],
            Namespaces::These(namespaces) => namespaces.clone(),
        };
        for namespace in namespaces {
            let (catalog, polls) = (&mut self.catalog, &mut self.polls);
            let take = |allocation: Allocation| {
                if let Some((id, node)) = catalog.set_allocation(&allocation, is_first_list) {
                    polls.ask_now(&id, &node);
                }
            };
            match self.client.allocations(&namespace, take).await {
                Ok(()) | Err(RegistryError::Denied(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read_each_allocation(
        &mut self,
        ids: BTreeSet<Text>,
        is_first_list: bool,
    ) -> Result<(), RegistryError> {
        let client = self.client.clone();
        let asked = ids.into_iter().map(move |id| {
            let client = client.clone();
            Box::pin(async move { client.allocation(&id).await.map(|found| (id, found)) })
        });
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((id, found)) = answers.try_next().await? {
            match found {
                Some(allocation) => {
                    if let Some((id, node)) = self.catalog.set_allocation(&allocation, is_first_list) {
                        self.polls.ask_now(&id, &node);
                    }
                }
                None => {
                    self.catalog.remove_allocation(&id);
                    self.unknown.insert(id);
                }
            }
        }
        Ok(())
    }

    /// Asks which tasks are the main ones where only some of an allocation's tasks run.
    async fn read_helpers(&mut self) -> Result<(), RegistryError> {
        let mixed = self.catalog.allocations.iter();
        let mixed = mixed.filter(|(_, known)| known.is_mixed() && known.helpers.is_none());
        let ids: Vec<Text> = mixed.map(|(id, _)| id.clone()).collect();
        let client = &self.client;
        let asked = ids
            .into_iter()
            .map(|id| async move { client.whole_allocation(&id).await.map(|found| (id, found)) });
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((id, found)) = answers.try_next().await? {
            let lifecycles = found.unwrap_or_default().allocated_resources.task_lifecycles;
            let helpers = lifecycles.into_iter().filter(|(_, lifecycle)| lifecycle.is_some());
            self.catalog.set_helpers(&id, helpers.map(|(task, _)| task).collect());
        }
        Ok(())
    }

    pub(super) async fn read_nodes_again(&mut self) -> Result<(), RegistryError> {
        let known = self.catalog.nodes.keys().cloned().collect();
        self.read_nodes(known).await
    }

    async fn read_nodes(&mut self, ids: BTreeSet<Text>) -> Result<(), RegistryError> {
        if !self.may_read_nodes {
            return Ok(());
        }
        let client = self.client.clone();
        let asked = ids.into_iter().map(move |id| {
            let client = client.clone();
            Box::pin(async move { client.node(&id).await.map(|found| (id, found)) })
        });
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((id, found)) = answers.try_next().await? {
            if found.is_none() {
                self.unknown.insert(id.clone());
            }
            self.catalog.set_node(&id, found);
        }
        Ok(())
    }
}

/// Why the region is not known that a server of so many regions is in.
fn unknown_region(regions: usize) -> Option<String> {
    let why = match regions {
        1 => return None,
        0 => "the server names no region, not even its own",
        _ => "the cluster has several regions",
    };
    let advice = "say which one is followed, region = \"…\"; the locality of endpoints lacks it";
    Some(format!("{why}: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_known_where_there_is_one() {
        assert_eq!(unknown_region(1), None);
        for (regions, why) in [(0, "names no region"), (2, "has several regions")] {
            let told = unknown_region(regions).unwrap();
            assert!(told.contains(why) && told.contains("region = "), "{told}");
        }
    }
}
