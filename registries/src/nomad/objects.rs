//! What Nomad's API answers, as far as it is used. Everything else in an answer is passed over, and what is null is empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// The elements of a list as they stand there: each is read alone, for one that is wrong says nothing of others.
pub(crate) type Elements = Vec<Box<serde_json::value::RawValue>>;

/// A namespace's services by name, of `/v1/services`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NamespaceServices {
    /// The namespace.
    pub(crate) namespace: String,
    /// Its services, a [`ServiceStub`] each.
    #[serde(deserialize_with = "or_empty")]
    pub(crate) services: Elements,
}

/// A service's name; its tags come in no order, and are read elsewhere.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ServiceStub {
    /// The name.
    pub(crate) service_name: String,
}

/// One instance of a service, of `/v1/service/:name`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Registration {
    /// Unique in the cluster; says which task it belongs to, see [`super::health`].
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// The node that it runs on.
    #[serde(rename = "NodeID")]
    pub(crate) node_id: String,
    /// That node's datacenter.
    pub(crate) datacenter: String,
    /// The job.
    #[serde(rename = "JobID")]
    pub(crate) job_id: String,
    /// The allocation.
    #[serde(rename = "AllocID")]
    pub(crate) alloc_id: String,
    /// The only place for metadata.
    #[serde(deserialize_with = "or_empty")]
    pub(crate) tags: Vec<String>,
    /// An address without brackets, whatever its family; a name where the job says so.
    pub(crate) address: String,
    /// Whatever the job says.
    pub(crate) port: i64,
}

/// An allocation as lists show it, and as events do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Allocation {
    /// Its ID.
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// The node that it is on.
    #[serde(rename = "NodeID")]
    pub(crate) node_id: String,
    /// `pending`, `running`, `complete`, `failed`, `lost` or `unknown`. `running` as soon as one of its tasks runs.
    pub(crate) client_status: String,
    /// `run`, `stop` or `evict`.
    pub(crate) desired_status: String,
    /// The group of the job.
    pub(crate) task_group: String,
    /// Changes when the job does.
    #[serde(default)]
    pub(crate) job_version: u64,
    /// What the deployment thinks of it; none outside a deployment.
    pub(crate) deployment_status: Option<DeploymentStatus>,
    /// Its tasks.
    #[serde(deserialize_with = "or_empty")]
    pub(crate) task_states: BTreeMap<String, TaskState>,
}

/// What a deployment thinks of an allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DeploymentStatus {
    /// None while it is not decided; not taken back later, whatever becomes of the allocation.
    pub(crate) healthy: Option<bool>,
    /// Whether it is a canary that was not promoted yet.
    pub(crate) canary: bool,
}

/// A task of an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TaskState {
    /// `pending` (also between a crash and the restart), `running` or `dead`.
    pub(crate) state: String,
}

/// An allocation as `/v1/allocation/:id` shows it: the one place that says which tasks are no main tasks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct WholeAllocation {
    /// What the tasks have been given.
    #[serde(deserialize_with = "or_empty")]
    pub(crate) allocated_resources: AllocatedResources,
}

/// What the tasks of an allocation have been given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct AllocatedResources {
    /// Of each task when it runs; none for a main task.
    #[serde(deserialize_with = "or_empty")]
    pub(crate) task_lifecycles: BTreeMap<String, Option<serde::de::IgnoredAny>>,
}

/// A check of a service, of `/v1/client/allocation/:id/checks`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Check {
    /// The service.
    pub(crate) service: String,
    /// `success`, `failure` or `pending`.
    pub(crate) status: String,
}

/// A node, as far as endpoints on it need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// What kind of machine it is, by the operator's word.
    pub(crate) node_class: String,
    /// By the operator's word too; written by who may write nodes, not by who may submit jobs.
    #[serde(deserialize_with = "or_empty")]
    pub(crate) meta: BTreeMap<String, String>,
}

/// A variable as lists show it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VariableStub {
    /// Where it is.
    pub(crate) path: String,
    /// The Raft index of its last change.
    pub(crate) modify_index: u64,
}

/// A variable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Variable {
    /// What it holds.
    #[serde(deserialize_with = "or_empty")]
    pub(crate) items: BTreeMap<String, String>,
}

/// Whose token it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TokenSelf {
    /// Its public ID.
    #[serde(rename = "AccessorID")]
    pub(crate) accessor_id: String,
    /// What its owner calls it.
    pub(crate) name: String,
}

/// A policy as lists show it: to who has no right to see all, those of the own token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PolicyStub {
    pub(crate) name: String,
}

/// A policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Policy {
    /// Its rules, as Nomad reads them.
    #[serde(rename = "RulesJSON")]
    pub(crate) rules_json: Option<PolicyRules>,
}

/// The rules of a policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PolicyRules {
    /// For which namespaces, or patterns of them, there are rules.
    pub(crate) namespaces: Option<Vec<PolicyStub>>,
}

/// A line of the event stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct EventLine {
    /// What happened, none in a heartbeat.
    #[serde(deserialize_with = "or_empty")]
    pub(crate) events: Vec<StreamEvent>,
}

/// An event. Its type is not read: the loss of a node shows the services that went with it under the type of a plan.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct StreamEvent {
    /// What it is about.
    pub(crate) topic: String,
    /// The ID of that.
    pub(crate) key: String,
    /// The namespace of that; empty for nodes.
    pub(crate) namespace: String,
    /// The Raft index of the change.
    pub(crate) index: u64,
    /// The thing itself.
    #[serde(deserialize_with = "or_empty")]
    pub(crate) payload: Payload,
}

/// What an event is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Payload {
    /// An instance of a service.
    pub(crate) service: Option<ServiceStub>,
    /// An allocation.
    pub(crate) allocation: Option<Box<Allocation>>,
    /// A node.
    pub(crate) node: Option<Box<Node>>,
}

/// Go writes what is empty as null.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_null_or_missing_is_empty() {
        let registration: Registration =
            serde_json::from_str(r#"{"ID":"x","Tags":null,"Port":-1,"New":{"a":[1]}}"#).unwrap();
        assert_eq!((registration.id.as_str(), registration.port, registration.tags.len()), ("x", -1, 0));
        let allocation: Allocation =
            serde_json::from_str(r#"{"DeploymentStatus":null,"TaskStates":null}"#).unwrap();
        assert_eq!(allocation, Allocation::default());
        let line: EventLine = serde_json::from_str("{}").unwrap();
        assert!(line.events.is_empty());
    }
}
