//! Whether an instance can take requests, from what Nomad knows beside its catalog. Pure.
//!
//! The catalog itself knows nothing of it: a service is in it before its task runs, and while its task is restarted, and
//! whatever its checks say. So three things are asked, in this order: whether the allocation's tasks run, what the
//! service's checks say, and what a deployment found. What nobody knows makes nothing unhealthy.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::resource::Health;

use super::{
    compact::{Allocation, Instance, Task},
    objects::Check,
};

/// An allocation with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// As the server has it.
    pub(super) allocation: Allocation,
    /// Its tasks that run beside or around the main ones; none while nobody had to ask.
    pub(super) helpers: Option<BTreeSet<String>>,
    /// What its checks said last.
    pub(super) checks: Checks,
}

/// What the checks of an allocation said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Checks {
    /// Nobody asked yet, and it ran before anybody could.
    #[default]
    Unknown,
    /// Nobody asked yet, and it began to run under our eyes: it is asked at once.
    Awaited,
    /// The worst result of each service that has checks.
    Known(Box<[(Box<str>, CheckResult)]>),
}

/// The result of a service's checks, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CheckResult {
    Success,
    /// Not run yet.
    Pending,
    Failure,
}

impl Checks {
    /// Takes in what was answered. A check that is new to its node has no result, after a restart of the node's agent as
    /// well: then the one before stands.
    pub(super) fn take(&mut self, answer: &BTreeMap<String, Check>) {
        let mut results: BTreeMap<&str, CheckResult> = BTreeMap::new();
        for check in answer.values() {
            let result = match check.status.as_str() {
                "success" => CheckResult::Success,
                "pending" => CheckResult::Pending,
                _ => CheckResult::Failure,
            };
            let worst = results.entry(&check.service).or_insert(result);
            *worst = result.max(*worst);
        }
        for (service, result) in &mut results {
            if *result == CheckResult::Pending
                && let Some(before) = self.of(service)
            {
                *result = before;
            }
        }
        *self = Self::Known(results.into_iter().map(|(service, result)| (service.into(), result)).collect());
    }

    /// What those of a service said last; none where it has none, as far as is known.
    fn of(&self, service: &str) -> Option<CheckResult> {
        let Self::Known(results) = self else { return None };
        results.iter().find(|(known, _)| **known == *service).map(|(_, result)| *result)
    }
}

impl Known {
    /// An allocation of which nothing else is known.
    pub(super) fn of(allocation: Allocation) -> Self {
        Self { allocation, helpers: None, checks: Checks::Unknown }
    }

    pub(super) fn runs(&self) -> bool {
        &*self.allocation.client_status == "running"
    }

    /// Whether some of its tasks run and others do not: only what kind of tasks they are then tells whether it works.
    pub(super) fn is_mixed(&self) -> bool {
        let running = |running: bool| self.allocation.tasks.iter().any(|task| task.runs() == running);
        self.runs() && running(true) && running(false)
    }

    /// The task that an instance of a service belongs to; none when it belongs to the group.
    pub(super) fn task_of(&self, service: &str, instance: &Instance) -> Option<&str> {
        let rest = instance.id.strip_prefix("_nomad-task-")?.strip_prefix(&*instance.place.allocation)?;
        let rest = rest.strip_prefix('-')?;
        let of = |prefix: &str| {
            let rest = rest.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
            rest.is_some_and(|rest| rest.starts_with(service))
        };
        if of(&format!("group-{}", self.allocation.group)) {
            return None;
        }
        self.allocation.tasks.iter().map(|task| &*task.name).find(|task| of(task))
    }

    /// Whether an instance of a service can take requests.
    pub(super) fn health(&self, service: &str, instance: &Instance) -> Health {
        match (&*self.allocation.client_status, &*self.allocation.desired_status) {
            // Its node does not answer. Whoever was told to stop may still do, for a moment.
            ("unknown", _) => Health::Draining,
            ("running", "stop" | "evict") => Health::Draining,
            ("running", _) if self.tasks_run(service, instance) => self.checked(service),
            _ => Health::Unhealthy,
        }
    }

    fn tasks_run(&self, service: &str, instance: &Instance) -> bool {
        let mut tasks = self.allocation.tasks.iter();
        match (self.task_of(service, instance), &self.helpers) {
            (Some(name), _) => tasks.any(|task| &*task.name == name && task.runs()),
            (None, Some(helpers)) => tasks.all(|task| task.runs() || helpers.contains(&*task.name)),
            // Not asked because all of them run, or none does, or because nobody knows.
            (None, None) => self.allocation.tasks.is_empty() || tasks.any(Task::runs),
        }
    }

    fn checked(&self, service: &str) -> Health {
        let deployment = self.allocation.deployment.and_then(|status| status.healthy);
        let healthy = match &self.checks {
            // A service without checks is as good as its task. The deployment may have failed for another's.
            Checks::Known(_) => self.checks.of(service).is_none_or(|result| result == CheckResult::Success),
            Checks::Awaited => deployment == Some(true),
            Checks::Unknown => deployment != Some(false),
        };
        if healthy { Health::Healthy } else { Health::Unhealthy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nomad::{
        compact::Copies,
        objects::{self, DeploymentStatus, Registration, TaskState},
    };

    const ALLOC: &str = "8fa01a58-64d0-942d-a3fd-2793b923be52";

    /// The health of an instance by its owner and its service.
    fn health(known: &Known, (owner, service): (&str, &str)) -> Health {
        known.health(service, &instance(owner, service))
    }

    fn instance(owner: &str, service: &str) -> Instance {
        let registration = Registration {
            id: format!("_nomad-task-{ALLOC}-{owner}-{service}-http"),
            alloc_id: ALLOC.into(),
            ..Registration::default()
        };
        Copies::default().instance(&registration)
    }

    fn known(client: &str, tasks: &[(&str, &str)]) -> Known {
        let state = |state: &str| TaskState { state: state.into() };
        let allocation = objects::Allocation {
            client_status: client.into(),
            desired_status: "run".into(),
            task_group: "web".into(),
            task_states: tasks.iter().map(|(name, word)| ((*name).to_owned(), state(word))).collect(),
            ..objects::Allocation::default()
        };
        Known::of(Copies::default().allocation(&allocation))
    }

    fn answer(results: &[(&str, &str)]) -> BTreeMap<String, Check> {
        let check = |(index, (service, status)): (usize, &(&str, &str))| {
            (index.to_string(), Check { service: (*service).into(), status: (*status).into() })
        };
        results.iter().enumerate().map(check).collect()
    }

    #[test]
    fn tasks_that_do_not_run_serve_nobody() {
        let web = ("group-web", "web");
        for (client, tasks, expected) in [
            ("pending", &[("app", "pending")][..], Health::Unhealthy),
            ("running", &[("app", "running")], Health::Healthy),
            ("running", &[("app", "pending")], Health::Unhealthy),
            ("failed", &[("app", "dead")], Health::Unhealthy),
            ("complete", &[("app", "dead")], Health::Unhealthy),
            ("lost", &[("app", "running")], Health::Unhealthy),
            ("unknown", &[("app", "running")], Health::Draining),
            ("", &[], Health::Unhealthy),
        ] {
            assert_eq!(health(&known(client, tasks), web), expected, "{client} {tasks:?}");
        }
        let mut stopping = known("running", &[("app", "running")]);
        stopping.allocation.desired_status = "stop".into();
        assert_eq!(health(&stopping, web), Health::Draining);
    }

    #[test]
    fn helpers_neither_stand_in_for_the_main_task_nor_hold_it_up() {
        let web = ("group-web", "web");
        let tasks = [("app", "pending"), ("before", "dead"), ("beside", "running"), ("after", "pending")];
        let mut mixed = known("running", &tasks);
        assert!(mixed.is_mixed());
        mixed.helpers = Some(["before", "beside", "after"].map(str::to_owned).into());
        assert_eq!(health(&mixed, web), Health::Unhealthy);
        let app = mixed.allocation.tasks.iter_mut().find(|task| &*task.name == "app");
        app.unwrap().state = "running".into();
        assert_eq!(health(&mixed, web), Health::Healthy);
        assert_eq!(health(&mixed, ("beside", "proxy")), Health::Healthy);
        assert_eq!(health(&mixed, ("after", "late")), Health::Unhealthy);
        assert_eq!(mixed.task_of("proxy", &instance("beside", "proxy")), Some("beside"));
        assert_eq!(mixed.task_of("web", &instance("group-web", "web")), None);
        assert!(!known("running", &[("app", "running")]).is_mixed());
    }

    #[test]
    fn a_failing_check_takes_its_service_out_and_no_other() {
        let (web, other) = (("group-web", "web"), ("group-web", "other"));
        let mut known = known("running", &[("app", "running")]);
        known.checks.take(&answer(&[("web", "success"), ("web", "failure")]));
        assert_eq!((health(&known, web), health(&known, other)), (Health::Unhealthy, Health::Healthy));
        known.checks.take(&answer(&[("web", "success")]));
        assert_eq!(health(&known, web), Health::Healthy);
        known.checks.take(&answer(&[("web", "pending")]));
        assert_eq!(health(&known, web), Health::Healthy, "the node's agent has begun anew");
        known.checks = Checks::Unknown;
        known.checks.take(&answer(&[("web", "pending")]));
        assert_eq!(health(&known, web), Health::Unhealthy, "never seen to work");
    }

    #[test]
    fn a_deployment_counts_until_the_checks_are_known() {
        let web = ("group-web", "web");
        let mut known = known("running", &[("app", "running")]);
        let deployment = |healthy| Some(DeploymentStatus { healthy, canary: false });
        for (checks, healthy, expected) in [
            (Checks::Unknown, None, Health::Healthy),
            (Checks::Unknown, Some(false), Health::Unhealthy),
            (Checks::Awaited, None, Health::Unhealthy),
            (Checks::Awaited, Some(true), Health::Healthy),
        ] {
            known.checks = checks;
            known.allocation.deployment = deployment(healthy);
            assert_eq!(health(&known, web), expected);
        }
        known.checks.take(&answer(&[("web", "success")]));
        known.allocation.deployment = deployment(Some(false));
        assert_eq!(health(&known, web), Health::Healthy, "the checks are newer");
    }
}
