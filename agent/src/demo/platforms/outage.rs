//! What the agents say of the registries, and what happens while one of them is dead.

use std::{collections::BTreeSet, time::Instant};

use futures_util::future::join_all;
use weft_testbed::Kind;

use super::{
    application::{Application, Instance},
    server::apart,
};
use crate::{
    admin::client::AdminClient,
    demo::{
        load::Tally,
        scene::Running,
        site::{AgentLayout, Site},
    },
    view::{Endpoint, Registry, Status},
};

/// What some agents say at one time. Who does not answer says nothing.
pub(super) struct Sight {
    /// For each agent what it says of its registries.
    registries: Vec<Vec<Registry>>,
    /// What the first one says of endpoints.
    endpoints: Vec<Endpoint>,
}

impl Sight {
    /// What all agents say.
    pub(super) async fn of(site: &Site) -> Self {
        let registries = join_all(site.agents.iter().map(registries)).await;
        Self { registries, endpoints: endpoints(&site.agents[0]).await }
    }

    /// What one agent says.
    pub(super) async fn by(agent: &AgentLayout) -> Self {
        Self { registries: vec![registries(agent).await], endpoints: endpoints(agent).await }
    }

    /// The endpoint that an instance is.
    pub(super) fn endpoint(&self, instance: &Instance) -> Option<&Endpoint> {
        let (registry, service) = (instance.kind.name(), format!("{}.default", instance.sample.name));
        self.endpoints.iter().find(|endpoint| endpoint.registry == registry && endpoint.service == service)
    }

    /// How many services of the application a platform tells of, and how many of their endpoints are called.
    pub(super) fn counts(&self, kind: Kind, instances: &[Instance]) -> (usize, usize) {
        let names: BTreeSet<String> =
            instances.iter().map(|instance| format!("{}.default", instance.sample.name)).collect();
        let of_it =
            self.endpoints.iter().filter(|it| it.registry == kind.name() && names.contains(&it.service));
        let called: Vec<&Endpoint> =
            of_it.filter(|endpoint| endpoint.eligible || endpoint.stands_by).collect();
        let services: BTreeSet<&str> = called.iter().map(|endpoint| endpoint.service.as_str()).collect();
        (services.len(), called.len())
    }

    /// Whether any agent has lost a platform's registry, and how it is in words.
    pub(super) fn state(&self, kind: Kind) -> (bool, String) {
        let rows = self.registries.iter().filter_map(|rows| row(rows, kind));
        let lost: Vec<&Registry> = rows.filter(|row| row.state != "connected").collect();
        let Some(first) = lost.first() else { return (false, "connected".into()) };
        // When it was lost is another matter: a registry that rests is confirmed now and then.
        let age = first.age_s.map_or_else(String::new, |age| format!(", confirmed {age} s ago"));
        let error = first.error.as_deref().unwrap_or("no error yet");
        (
            true,
            format!("{}{age}, say {} of {} agents: {error}", first.state, lost.len(), self.registries.len()),
        )
    }

    /// Whether every agent says that it does not reach a platform's registry.
    pub(super) fn all_lost(&self, kind: Kind) -> bool {
        let lost = |rows: &Vec<Registry>| {
            row(rows, kind).is_some_and(|row| row.state != "connected" && row.error.is_some())
        };
        !self.registries.is_empty() && self.registries.iter().all(lost)
    }
}

fn row(rows: &[Registry], kind: Kind) -> Option<&Registry> {
    rows.iter().find(|row| row.scope.split('/').next() == Some(kind.name()))
}

async fn registries(agent: &AgentLayout) -> Vec<Registry> {
    let status = AdminClient::new(&agent.socket()).get::<Status>("/status").await;
    status.map(|status| status.registries).unwrap_or_default()
}

async fn endpoints(agent: &AgentLayout) -> Vec<Endpoint> {
    AdminClient::new(&agent.socket()).get("/endpoints").await.unwrap_or_default()
}

/// How often instances on a platform have answered.
pub(super) fn served(tally: &Tally, kind: Kind) -> u64 {
    tally.answers.iter().filter(|((_, version), _)| version == kind.name()).map(|(_, count)| count).sum()
}

/// A registry that was killed.
pub(super) struct Outage {
    pub(super) killed: Kind,
    pub(super) began: Instant,
    before: Tally,
}

/// What has come of the load since then.
pub(super) struct Since {
    pub(super) requests: u64,
    pub(super) failed: u64,
    before: Tally,
    now: Tally,
}

impl Outage {
    /// Kills the registry.
    pub(super) async fn begin(demo: &Running<Application>) -> anyhow::Result<Self> {
        let (killed, server) = demo.scene.victim().clone();
        let outage = Self { killed, began: Instant::now(), before: demo.load.tally() };
        apart(move || server.kill()).await?;
        Ok(outage)
    }

    pub(super) fn since(&self, now: &Tally) -> Since {
        let (before, now) = (self.before.clone(), now.clone());
        Since { requests: now.requests - before.requests, failed: now.failed - before.failed, before, now }
    }
}

impl Since {
    /// How often instances on a platform have answered.
    pub(super) fn served(&self, kind: Kind) -> u64 {
        served(&self.now, kind) - served(&self.before, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_lost_registry_is_that_of_its_last_confirmation_as_in_the_status() {
        let row = |state: &str| Registry {
            scope: "consul".into(),
            state: state.into(),
            age_s: Some(12),
            error: Some("connection refused".into()),
            counts: Default::default(),
            faults: Vec::new(),
            unconfirmed: Vec::new(),
            unconfirmed_why: None,
        };
        let registries = vec![vec![row("away")], vec![row("connected")]];
        let sight = Sight { registries, endpoints: Vec::new() };
        let told = "away, confirmed 12 s ago, say 1 of 2 agents: connection refused";
        assert_eq!(sight.state(Kind::Consul), (true, told.into()));
    }
}
