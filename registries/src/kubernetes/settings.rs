//! What a section of kind `kubernetes` says.

use std::{path::PathBuf, sync::Arc};

use weft_core::{
    config::{Fault, Readable, Section},
    name::{HostName, Namespace, RegistryName},
    registry::Registry,
};

use super::{KubernetesRegistry, client::Access};
use crate::{
    narrow::Narrow,
    plan::{BuildError, Environment, Settings},
    speaking::Rules,
};

/// The words that a rule's template may name beside `service` and `namespace`.
const WORDS: [&str; 2] = ["account", "node"];

/// The settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// The file that says where the API server is. None: the pod's own service account where one is mounted, else what
    /// kubectl takes.
    pub kubeconfig: Option<PathBuf>,
    /// The context of that file; its current one where none is named.
    pub context: Option<String>,
    /// What is followed, where that is not everything.
    pub narrow: Option<Narrow>,
    /// Whether our own objects are followed, as routes and policies.
    pub configuration: bool,
    /// Whether it is written into them how they were understood.
    pub write_status: bool,
    /// Where such objects may concern more than their namespace.
    pub root_namespace: String,
    /// The domain of the cluster's own DNS.
    pub cluster_domain: String,
    /// Which endpoints speak mesh.
    pub rules: Rules,
}

/// Reads the section.
#[must_use]
pub fn read(section: &Section<'_>) -> Option<Arc<dyn Settings>> {
    let kubeconfig: Option<PathBuf> = section.read("kubeconfig");
    let context: Option<String> = section.read("context");
    let narrow = Narrow::read(section);
    let configuration = section.read_or("configuration", false);
    let write_status = section.read_or("write_status", false);
    let root_namespace: Option<Namespace> = match section.get("root_namespace") {
        None => Namespace::new("weft-system").ok(),
        Some(value) => Namespace::read(&value),
    };
    for key in ["write_status", "root_namespace"].into_iter().filter(|key| !configuration && section.has(key))
    {
        let fault = Fault::error(section.key_place(key), format!("`{key}` without `configuration = true`"));
        section.report(fault.expected("it is about MeshRoutes and MeshPolicies, which are not read"));
    }
    let domain = section.get("cluster_domain").map(|value| {
        value.parse("a host name, such as \"cluster.local\"", |text: &str| {
            HostName::new(text.trim_end_matches('.'))
        })
    });
    let rules = Rules::read(section, &WORDS);
    if context.is_some() && kubeconfig.is_none() {
        let fault = Fault::error(section.key_place("context"), "`context` without `kubeconfig`");
        section.report(fault.expected("expected the file that has the context, kubeconfig = \"…\""));
        return None;
    }
    let cluster_domain = match domain {
        None => "cluster.local".to_owned(),
        Some(domain) => domain?.to_string(),
    };
    Some(Arc::new(KubernetesSettings {
        kubeconfig,
        context,
        narrow: narrow?,
        configuration,
        write_status,
        root_namespace: root_namespace?.to_string(),
        cluster_domain,
        rules: rules?,
    }))
}

impl KubernetesSettings {
    pub(super) fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

impl Settings for KubernetesSettings {
    fn build(&self, name: &RegistryName, environment: &Environment) -> Result<Arc<dyn Registry>, BuildError> {
        let domain = environment.trust_domain.clone();
        let domain = domain.ok_or_else(|| BuildError::NoTrustDomain(name.clone()))?;
        Ok(Arc::new(KubernetesRegistry::new(name.clone(), self.clone(), domain)))
    }
}
