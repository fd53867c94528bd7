//! What is read of the catalog beside its lists: services, the indexes of nodes and services, and what runs on a node.

use std::collections::BTreeSet;

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use weft_core::registry::RegistryError;

use super::{
    client::{Client, encoded},
    convert,
    known::{Name, Sweep},
    objects::{Entry, Instance, NodeServices},
};

/// How many questions are asked at once beside those that wait.
const AT_ONCE: usize = 8;

/// One service as it was read.
pub(super) struct Read {
    pub(super) name: Name,
    pub(super) entries: Vec<Entry>,
    /// Whether Consul says that it left something out for want of rights.
    pub(super) filtered: bool,
}

/// Reads services; those that cannot be ours by their names are left out. Each is given away as it comes: all of them at
/// once, as JSON has them, would be several times what is kept of them.
pub(super) fn services(
    client: Client,
    names: BTreeSet<Name>,
) -> impl Stream<Item = Result<Read, RegistryError>> {
    let names = names.into_iter().filter(|name| convert::checked_name(name).is_ok());
    let asked = stream::iter(names).map(move |name| {
        let client = client.clone();
        async move {
            let path = format!("/v1/health/service/{}", encoded(&name));
            let reading = client.read(&path).await?;
            let entries: Option<Vec<Entry>> = reading.json()?;
            Ok(Read { name, entries: entries.unwrap_or_default(), filtered: reading.filtered })
        }
    });
    asked.buffer_unordered(AT_ONCE)
}

/// The index of each of some nodes or services, asked for with a filter that leaves nothing of the rest.
pub(super) async fn indexes(
    client: &Client,
    sweep: Sweep,
    names: Vec<Name>,
) -> Result<Vec<(Name, Option<u64>)>, RegistryError> {
    let (path, filter) = match sweep {
        Sweep::Nodes => ("/v1/catalog/node-services/", "ID == \"\""),
        Sweep::Services => ("/v1/catalog/service/", "ServiceID == \"\""),
    };
    let filter = encoded(filter);
    let filter = filter.as_str();
    let names = names.into_iter();
    let names = names.filter(|name| sweep == Sweep::Nodes || convert::checked_name(name).is_ok());
    let asked = stream::iter(names).map(|name| async move {
        let reading = client.read(&format!("{path}{}?filter={filter}", encoded(&name))).await?;
        Ok::<_, RegistryError>((name, reading.index))
    });
    asked.buffer_unordered(AT_ONCE).try_collect().await
}

/// What runs on each of some nodes.
pub(super) async fn on_nodes(
    client: &Client,
    nodes: Vec<Name>,
) -> Result<Vec<(Name, Vec<Instance>)>, RegistryError> {
    let read = stream::iter(nodes).map(|name| async move {
        let path = format!("/v1/catalog/node-services/{}", encoded(&name));
        let found: Option<NodeServices> = client.read(&path).await?.json()?;
        Ok::<_, RegistryError>((name, found.unwrap_or_default().services))
    });
    read.buffer_unordered(AT_ONCE).try_collect().await
}
