//! Kubernetes: each record is a ConfigMap of its own, each lease a Lease of `coordination.k8s.io`.
//!
//! ConfigMaps, not Secrets: no record is a secret (a token's is the hash of one), and a hub that may read no Secret cannot
//! lose one. A key may hold what no object's name may, so an object is named by the key's hash and carries the key as an
//! annotation. A `resourceVersion` is what a swap compares.
//!
//! The API server ends no Lease by itself, so every hub looks after them ([`sweep`]): one that was not renewed for its time,
//! by the clock of the hub that looks, is removed on condition that it is still as it was seen, and then its keys. A key
//! whose Lease is gone counts as gone before that.

mod objects;
mod sweep;
mod watch;

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use futures_core::stream::BoxStream;
use http::{Method, Request, header};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{Mutex, Notify};
use weft_registries::kubernetes::api::{Access, Client, connect, refused};

use super::{Entry, Expected, Later, LeaseId, Put, Store, StoreError, Told, Version, servers::meaning};
use crate::hub::token::{random, sha256};
use objects::{ConfigMap, DeleteOptions, Lease, List, Metadata, Renewal};

/// How many objects a page of a list holds.
const PAGE: u32 = 500;
/// How many strange objects are named.
const MOST_NAMED: usize = 100;

/// A [`Store`] in objects of Kubernetes.
#[derive(Clone, Debug)]
pub struct KubernetesStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    access: Access,
    namespace: String,
    prefix: String,
    /// The label by which the objects of this prefix are told.
    label: String,
    /// Connected when it is first needed; anew after it failed, with what the kubeconfig says then.
    client: Mutex<Option<Client>>,
    /// There is a lease to look after, or nobody uses the store any more.
    sooner: Arc<Notify>,
    /// Objects that only look like ours: each is named once.
    strange: std::sync::Mutex<BTreeSet<String>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sooner.notify_one();
    }
}

/// The two kinds of object.
#[derive(Clone, Copy, Debug)]
enum Kind {
    ConfigMaps,
    Leases,
}

impl KubernetesStore {
    /// A client, on the runtime that this is called on; nothing is connected before something is asked. All keys begin with
    /// `prefix`.
    #[must_use]
    pub fn new(access: Access, namespace: &str, prefix: &str) -> Self {
        let inner = Arc::new(Inner {
            access,
            namespace: namespace.to_owned(),
            prefix: prefix.to_owned(),
            label: name_of(prefix)[..32].to_owned(),
            client: Mutex::default(),
            sooner: Arc::default(),
            strange: std::sync::Mutex::default(),
        });
        tokio::spawn(sweep::look_after(Arc::downgrade(&inner), inner.sooner.clone()));
        Self(inner)
    }
}

/// What the API server answered, as far as the caller tells answers apart.
enum Answered {
    Done(Bytes),
    /// 404.
    Missing,
    /// 409: it is there already, or it is no more as it was.
    Conflict,
}

impl Answered {
    fn object<T: DeserializeOwned>(self) -> Result<Option<T>, StoreError> {
        match self {
            Self::Done(body) => read(&body).map(Some),
            Self::Missing | Self::Conflict => Ok(None),
        }
    }
}

impl Inner {
    fn path(&self, kind: Kind, name: &str) -> String {
        let (api, plural) = match kind {
            Kind::ConfigMaps => ("api/v1", "configmaps"),
            Kind::Leases => ("apis/coordination.k8s.io/v1", "leases"),
        };
        let slash = if name.is_empty() { "" } else { "/" };
        format!("/{api}/namespaces/{}/{plural}{slash}{name}", self.namespace)
    }

    /// For messages: `create configmaps in namespace weft-system`.
    fn what(&self, verb: &str, kind: Kind) -> String {
        let resource = match kind {
            Kind::ConfigMaps => "configmaps",
            Kind::Leases => "leases.coordination.k8s.io",
        };
        format!("{verb} {resource} in namespace {}", self.namespace)
    }

    async fn client(&self) -> Result<Client, StoreError> {
        let mut client = self.client.lock().await;
        if client.is_none() {
            *client = Some(connect(&self.access).await.map_err(meaning)?);
        }
        Ok(client.clone().expect("it was just made"))
    }

    async fn call(
        &self,
        verb: &str,
        kind: Kind,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Answered, StoreError> {
        let what = self.what(verb, kind);
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request =
            Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media).body(body);
        let request = request.map_err(|fault| StoreError::Failed(fault.to_string()))?;
        let answered = match self.client().await?.answer(&what, request).await {
            Ok((status, body)) => match status.as_u16() {
                200..300 => return Ok(Answered::Done(body)),
                404 => return Ok(Answered::Missing),
                409 => return Ok(Answered::Conflict),
                _ => Err(meaning(refused(&what, status, &body))),
            },
            Err(fault) => Err(meaning(fault)),
        };
        // A token or a server that was replaced is taken up with the next client.
        *self.client.lock().await = None;
        answered
    }

    async fn read_object<T: DeserializeOwned>(
        &self,
        kind: Kind,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        self.call("get", kind, Method::GET, &self.path(kind, name), Vec::new()).await?.object()
    }

    async fn write(
        &self,
        verb: &str,
        kind: Kind,
        name: &str,
        object: &impl Serialize,
    ) -> Result<Answered, StoreError> {
        let method = match verb {
            "create" => Method::POST,
            "patch" => Method::PATCH,
            _ => Method::PUT,
        };
        let body = serde_json::to_vec(object).map_err(|fault| StoreError::Failed(fault.to_string()))?;
        self.call(verb, kind, method, &self.path(kind, name), body).await
    }

    /// Makes an object. That there is nowhere to make it is no rival who was faster.
    async fn create(&self, kind: Kind, object: &impl Serialize) -> Result<Answered, StoreError> {
        match self.write("create", kind, "", object).await? {
            Answered::Missing => Err(StoreError::Failed(format!(
                "{}: not found; there must be such a namespace",
                self.what("create", kind)
            ))),
            answered => Ok(answered),
        }
    }

    /// Removes an object, if it is still of this version where one is given.
    async fn delete(&self, kind: Kind, name: &str, version: Option<&str>) -> Result<Answered, StoreError> {
        let options = DeleteOptions::expecting(version);
        let body = serde_json::to_vec(&options).map_err(|fault| StoreError::Failed(fault.to_string()))?;
        self.call("delete", kind, Method::DELETE, &self.path(kind, name), body).await
    }

    /// All objects of this store with these labels too, and the version as of which they are.
    async fn list<T: DeserializeOwned>(
        &self,
        kind: Kind,
        labels: &str,
    ) -> Result<(Vec<T>, String), StoreError> {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let selector = format!("{}%3D{}{labels}", objects::STORE, self.label);
            let path =
                format!("{}?labelSelector={selector}&limit={PAGE}&continue={from}", self.path(kind, ""));
            let page = self.call("list", kind, Method::GET, &path, Vec::new()).await?;
            let page: Option<List<T>> = page.object()?;
            let page = page.ok_or_else(|| StoreError::Failed(format!("{}: 404", self.what("list", kind))))?;
            found.extend(page.items);
            if page.metadata.next.is_empty() {
                return Ok((found, page.metadata.resource_version));
            }
            from = page.metadata.next;
        }
    }

    async fn lasts(&self, lease: &str) -> Result<bool, StoreError> {
        Ok(self.read_object::<Lease>(Kind::Leases, lease).await?.is_some())
    }

    /// The object of a key; none when there is none or its lease has ended.
    async fn object(&self, key: &str) -> Result<Option<ConfigMap>, StoreError> {
        let Some(object) = self.read_object::<ConfigMap>(Kind::ConfigMaps, &self.name(key)).await? else {
            return Ok(None);
        };
        match object.metadata.lease() {
            Some(lease) if !self.lasts(lease).await? => Ok(None),
            _ => Ok(Some(object)),
        }
    }

    fn name(&self, key: &str) -> String {
        format!("weft-{}", name_of(&format!("{}{key}", self.prefix)))
    }

    /// The entry of a key's object. One without a value that can be read has an empty one: its key is there, and whoever
    /// reads records says which of them is damaged.
    fn entry(key: String, object: &ConfigMap) -> Entry {
        let version = Version(object.metadata.resource_version.as_str().into());
        Entry { key, value: object.value().unwrap_or_default().into(), version }
    }

    /// The entry of an object that was found by its labels; none of one that only looks like ours, such as a copy: what is
    /// done to one object harms no other.
    fn found(&self, object: &ConfigMap) -> Option<Entry> {
        let Metadata { name, .. } = &object.metadata;
        let key = object.metadata.key().and_then(|key| key.strip_prefix(&self.prefix));
        let Some(key) = key.filter(|key| self.name(key) == *name) else {
            let mut strange = self.strange.lock().unwrap_or_else(PoisonError::into_inner);
            if strange.len() < MOST_NAMED && strange.insert(name.clone()) {
                let namespace = &self.namespace;
                tracing::warn!(%name, %namespace, "a ConfigMap with the store's labels is none of the store's: left out");
            }
            return None;
        };
        Some(Self::entry(key.to_owned(), object))
    }

    /// The keys of a prefix among these objects, in their order, without those whose lease has ended.
    async fn entries(&self, objects: Vec<ConfigMap>, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let leases: Vec<Lease> = match objects.iter().any(|object| object.metadata.lease().is_some()) {
            true => self.list(Kind::Leases, "").await?.0,
            false => Vec::new(),
        };
        let lasts = |object: &ConfigMap| {
            let lease = object.metadata.lease();
            lease.is_none_or(|lease| leases.iter().any(|known| known.metadata.name == lease))
        };
        let lasting = objects.iter().filter(|object| lasts(object));
        let mut entries: Vec<_> = lasting.filter_map(|object| self.found(object)).collect();
        entries.retain(|entry| entry.key.starts_with(prefix));
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(entries)
    }

    async fn put(&self, key: &str, expected: &Expected, put: &Put) -> Result<bool, StoreError> {
        let lease = put.lease.as_ref().map(|lease| &*lease.0);
        if let Some(lease) = lease
            && !self.lasts(lease).await?
        {
            return Err(StoreError::LeaseGone);
        }
        let metadata = Metadata::of_key(self.name(key), &self.label, (&self.prefix, key), lease);
        let mut object = ConfigMap::new(metadata, &put.value);
        let written = loop {
            match expected {
                Expected::Version(version) => {
                    object.metadata.resource_version = version.0.to_string();
                    break self.write("update", Kind::ConfigMaps, &object.metadata.name, &object).await?;
                }
                Expected::Any => {
                    match self.write("update", Kind::ConfigMaps, &object.metadata.name, &object).await? {
                        Answered::Missing => match self.create(Kind::ConfigMaps, &object).await? {
                            // Made by somebody else meanwhile: it is there to be written.
                            Answered::Conflict => {}
                            written => break written,
                        },
                        written => break written,
                    }
                }
                Expected::Absent => match self.create(Kind::ConfigMaps, &object).await? {
                    Answered::Conflict if self.remove_leftover(&object.metadata.name).await? => {}
                    written => break written,
                },
            }
        };
        let Some(written) = written.object::<ConfigMap>()? else { return Ok(false) };
        if let Some(lease) = lease
            && !self.lasts(lease).await?
        {
            // Whoever ended the lease may have looked for its keys before this one was there.
            self.delete(Kind::ConfigMaps, &written.metadata.name, Some(&written.metadata.resource_version))
                .await?;
            return Err(StoreError::LeaseGone);
        }
        Ok(true)
    }

    /// Removes an object whose lease has ended; says whether it is worth trying again.
    async fn remove_leftover(&self, name: &str) -> Result<bool, StoreError> {
        let Some(object) = self.read_object::<ConfigMap>(Kind::ConfigMaps, name).await? else {
            return Ok(true);
        };
        match object.metadata.lease() {
            Some(lease) if !self.lasts(lease).await? => {
                self.delete(Kind::ConfigMaps, name, Some(&object.metadata.resource_version)).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn remove(&self, key: &str, expected: &Expected) -> Result<bool, StoreError> {
        let version = match expected {
            Expected::Any => None,
            Expected::Version(version) => Some(&*version.0),
            Expected::Absent => return Ok(self.object(key).await?.is_none()),
        };
        Ok(match self.delete(Kind::ConfigMaps, &self.name(key), version).await? {
            Answered::Done(_) => true,
            Answered::Missing => version.is_none(),
            Answered::Conflict => false,
        })
    }

    /// Removes the keys of a lease that has ended.
    async fn remove_keys_of(&self, lease: &str) -> Result<(), StoreError> {
        let labels = format!(",{}%3D{lease}", objects::LEASE);
        let (left, _) = self.list::<ConfigMap>(Kind::ConfigMaps, &labels).await?;
        for object in left {
            let version = Some(&*object.metadata.resource_version);
            self.delete(Kind::ConfigMaps, &object.metadata.name, version).await?;
        }
        Ok(())
    }
}

impl Store for KubernetesStore {
    fn describe(&self) -> String {
        format!("ConfigMaps of Kubernetes in namespace {}, under {}", self.0.namespace, self.0.prefix)
    }

    fn get<'a>(&'a self, key: &'a str) -> Later<'a, Option<Entry>> {
        Box::pin(async move {
            let object = self.0.object(key).await?;
            Ok(object.map(|object| Inner::entry(key.to_owned(), &object)))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Later<'a, Vec<Entry>> {
        Box::pin(async move {
            let (objects, _) = self.0.list(Kind::ConfigMaps, &objects::selector(prefix)).await?;
            self.0.entries(objects, prefix).await
        })
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, put: Option<Put>) -> Later<'a, bool> {
        Box::pin(async move {
            match &put {
                Some(put) => self.0.put(key, &expected, put).await,
                None => self.0.remove(key, &expected).await,
            }
        })
    }

    fn grant(&self, ttl: Duration) -> Later<'_, LeaseId> {
        Box::pin(async move {
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            let name = format!("weft-{}", HEXLOWER.encode(&random::<8>()));
            let metadata = Metadata::named(name.clone(), &self.0.label);
            let lease = Lease::new(metadata, seconds, &micro_time(SystemTime::now()));
            if !matches!(self.0.create(Kind::Leases, &lease).await?, Answered::Done(_)) {
                // By chance; the next one has another name.
                return Err(StoreError::Unreachable("a lease of that name is there already".to_owned()));
            }
            self.0.sooner.notify_one();
            Ok(LeaseId(name.into()))
        })
    }

    fn keep_alive<'a>(&'a self, lease: &'a LeaseId) -> Later<'a, bool> {
        Box::pin(async move {
            let now = micro_time(SystemTime::now());
            let renewal = Renewal::at(&now);
            Ok(matches!(self.0.write("patch", Kind::Leases, &lease.0, &renewal).await?, Answered::Done(_)))
        })
    }

    fn revoke<'a>(&'a self, lease: &'a LeaseId) -> Later<'a, ()> {
        Box::pin(async move {
            self.0.delete(Kind::Leases, &lease.0, None).await?;
            self.0.remove_keys_of(&lease.0).await
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Told, StoreError>> {
        watch::watch(&self.0, prefix)
    }
}

/// A text as an object's name can hold it.
fn name_of(text: &str) -> String {
    BASE32_NOPAD.encode(&sha256(text.as_bytes())).to_ascii_lowercase()
}

/// A moment as Kubernetes writes it, to the microsecond: two renewals in one second differ.
fn micro_time(at: SystemTime) -> String {
    let microseconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_micros();
    weft_core::tls::rfc3339(at).replace('Z', &format!(".{microseconds:06}Z"))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(body)
        .map_err(|fault| StoreError::Failed(format!("the API server's answer: {fault}")))
}
