//! Instances and allocations in few bytes: what of them matters, and once what many of them have.

use std::sync::Arc;

use super::objects::{self, DeploymentStatus};
use crate::shared::{Shared, Text};

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    /// Unique in the cluster; says which task it belongs to, see [`super::health`].
    pub(super) id: Box<str>,
    pub(super) place: Arc<Place>,
    /// An address without brackets, whatever its family; a name where the job says so.
    pub(super) address: Text,
    /// Whatever the job says.
    pub(super) port: i64,
    pub(super) tags: Arc<[Text]>,
}

/// Where an instance runs, which all of its allocation have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) allocation: Text,
    pub(super) job: Text,
    pub(super) node: Text,
    pub(super) datacenter: Text,
}

/// An allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allocation {
    pub(super) node: Text,
    pub(super) client_status: Text,
    pub(super) desired_status: Text,
    pub(super) group: Text,
    pub(super) job_version: u64,
    pub(super) deployment: Option<DeploymentStatus>,
    pub(super) tasks: Box<[Task]>,
}

/// A task of an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) name: Text,
    pub(super) state: Text,
}

/// The one copy of what many instances have.
#[derive(Debug, Default)]
pub(super) struct Copies {
    texts: Shared<str>,
    places: Shared<Place>,
    tags: Shared<[Text]>,
}

impl Copies {
    pub(super) fn instance(&mut self, registration: &objects::Registration) -> Instance {
        let place = Place {
            allocation: self.text(&registration.alloc_id),
            job: self.text(&registration.job_id),
            node: self.text(&registration.node_id),
            datacenter: self.text(&registration.datacenter),
        };
        let tags: Vec<Text> = registration.tags.iter().map(|tag| self.text(tag)).collect();
        Instance {
            id: registration.id.as_str().into(),
            place: self.places.copy_of(place),
            address: self.text(&registration.address),
            port: registration.port,
            tags: self.tags.copy_of(tags),
        }
    }

    pub(super) fn allocation(&mut self, read: &objects::Allocation) -> Allocation {
        let tasks = read.task_states.iter();
        let tasks = tasks.map(|(name, task)| Task { name: self.text(name), state: self.text(&task.state) });
        Allocation {
            tasks: tasks.collect(),
            node: self.text(&read.node_id),
            client_status: self.text(&read.client_status),
            desired_status: self.text(&read.desired_status),
            group: self.text(&read.task_group),
            job_version: read.job_version,
            deployment: read.deployment_status,
        }
    }

    fn text(&mut self, text: &str) -> Text {
        self.texts.copy_of(text)
    }
}

impl Allocation {
    /// Whether it is just what was read.
    pub(super) fn is(&self, read: &objects::Allocation) -> bool {
        let tasks = read.task_states.iter().map(|(name, task)| (name.as_str(), task.state.as_str()));
        *self.node == *read.node_id
            && *self.client_status == *read.client_status
            && *self.desired_status == *read.desired_status
            && *self.group == *read.task_group
            && self.job_version == read.job_version
            && self.deployment == read.deployment_status
            && self.tasks.iter().map(|task| (&*task.name, &*task.state)).eq(tasks)
    }
}

impl Task {
    pub(super) fn runs(&self) -> bool {
        &*self.state == "running"
    }
}
