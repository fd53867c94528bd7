//! The application: a service on each platform that calls the next, and one on the first two that is called last.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use futures_util::future::{try_join, try_join_all};
use weft_testbed::{Home, Kind};

use super::{
    outage::Sight,
    server::{Server, apart, start},
};
use crate::announcer::own_address;
use crate::demo::{
    children::Children,
    scene::Scene,
    service::Sample,
    site::{AgentLayout, Site, host, identity, port_text, workload_text},
};

/// The service on two platforms.
const SHARED: &str = "stock";
/// On how many.
const SHARED_BY: usize = 2;
/// How long the platforms may take to tell of everything, and the agents to hear it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An instance, its own platform's only one of its service.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) kind: Kind,
    /// Its version is the name of its platform: so its answers tell who gave them.
    pub(super) sample: Sample,
    /// Where its agent takes mesh traffic.
    pub(super) mesh: SocketAddr,
}

impl Instance {
    /// Unique on its platform.
    pub(super) fn name(&self) -> String {
        format!("{}-1", self.sample.name)
    }

    /// Who answers.
    pub(super) fn identity(&self) -> String {
        identity(self.sample.name)
    }

    fn is_seen(&self, sight: &Sight) -> bool {
        sight.endpoint(self).is_some_and(|endpoint| endpoint.eligible || endpoint.stands_by)
    }
}

/// A platform and its server.
pub(super) type Platform = (Kind, Arc<dyn Server>);

/// The application, its agents and the platforms' servers.
pub(super) struct Application {
    site: Site,
    homes: Vec<Home>,
    /// Where the load generator calls.
    entry: SocketAddr,
    instances: Vec<Instance>,
    servers: Vec<Platform>,
}

impl Application {
    /// Chooses folder and ports. The first agent is the load generator's, then comes one for each platform.
    pub(super) fn create(homes: &[Home]) -> anyhow::Result<Self> {
        let kinds: Vec<Kind> = homes.iter().map(Home::kind).collect();
        let shared = if kinds.len() >= SHARED_BY { SHARED_BY } else { 0 };
        let mut names: Vec<&str> = kinds.iter().map(|kind| own_service(*kind)).collect();
        names.extend((shared > 0).then_some(SHARED));
        let mut site = Site::create()?;
        site.add_agent("front", Ipv4Addr::LOCALHOST.into(), vec!["loadgen"])?;
        let mut instances = Vec::new();
        for (index, &kind) in kinds.iter().enumerate() {
            let mut accounts = vec![names[index]];
            accounts.extend((index < shared).then_some(SHARED));
            site.add_agent(kind.name(), mesh_host(kind)?, accounts.clone())?;
            let mesh = site.agents.last().context("it was just added")?.inbound;
            for name in accounts {
                let next = names.get(index + 1).filter(|_| name != SHARED);
                let calls = next.map(|next| anyhow::Ok((site.address()?, host(next)))).transpose()?;
                let sample = Sample { name, version: kind.name(), listen: site.address()?, calls };
                instances.push(Instance { kind, sample, mesh });
            }
        }
        let entry = site.address()?;
        Ok(Self { site, homes: homes.to_vec(), entry, instances, servers: Vec::new() })
    }

    /// Where the load generator calls.
    pub(super) fn entry(&self) -> SocketAddr {
        self.entry
    }

    /// The platforms, in the order in which they were named.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.homes.iter().map(Home::kind)
    }

    /// The services in the order in which they call each other, the load generator first.
    pub(super) fn chain(&self) -> Vec<&'static str> {
        let own = self.kinds().map(own_service);
        let shared = (self.homes.len() >= SHARED_BY).then_some(SHARED);
        ["loadgen"].into_iter().chain(own).chain(shared).collect()
    }

    /// The service that the load generator calls.
    pub(super) fn first(&self) -> &'static str {
        self.chain()[1]
    }

    /// The service that is called last.
    pub(super) fn last(&self) -> &'static str {
        self.chain()[self.chain().len() - 1]
    }

    pub(super) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    pub(super) fn servers(&self) -> &[Platform] {
        &self.servers
    }

    /// The platform whose registry is killed: the one that the shared service is preferred on.
    pub(super) fn victim(&self) -> &Platform {
        &self.servers[0]
    }

    /// The load generator's agent.
    pub(super) fn front(&self) -> &AgentLayout {
        &self.site.agents[0]
    }

    /// Whose certificates are looked at, and where.
    pub(super) fn serving(&self) -> Vec<(&'static str, SocketAddr)> {
        let own = self.instances.iter().filter(|instance| instance.sample.name != SHARED);
        own.map(|instance| (instance.sample.name, instance.mesh)).collect()
    }

    async fn start_servers(&self) -> anyhow::Result<Vec<Platform>> {
        try_join_all(self.homes.iter().cloned().map(start)).await
    }

    fn write_agents(&self) -> anyhow::Result<()> {
        let mut registries: String = self.servers.iter().map(|(_, server)| server.section()).collect();
        if self.homes.len() >= SHARED_BY {
            let both: Vec<&str> = self.kinds().take(SHARED_BY).map(Kind::name).collect();
            registries.push_str(&format!(
                "[[join]]\nregistries = {both:?}\nservices = [\"{SHARED}.default\"]\nprefer = {both:?}\n"
            ));
        }
        for agent in &self.site.agents {
            let mut text = registries.clone();
            if agent.name == self.front().name {
                text.push_str(&workload_text("loadgen", Some(self.entry)));
            }
            for Instance { sample, .. } in self.instances.iter().filter(|it| it.kind.name() == agent.name) {
                text.push_str(&workload_text(
                    sample.name,
                    sample.calls.as_ref().map(|(address, _)| *address),
                ));
                text.push_str(&port_text(sample.name, sample.listen));
            }
            self.site.write_agent(agent, &text)?;
        }
        Ok(())
    }

    async fn announce(&self) -> anyhow::Result<()> {
        for (kind, server) in &self.servers {
            for instance in self.instances.iter().filter(|instance| instance.kind == *kind) {
                let (server, instance, name) = (server.clone(), instance.clone(), instance.sample.name);
                let announced = apart(move || server.announce(&instance)).await?;
                announced.with_context(|| format!("{kind} does not take {name}"))?;
                eprintln!("{kind}: has {name}");
            }
        }
        Ok(())
    }

    /// Waits until every agent would call every instance.
    async fn until_seen(&self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for agent in &self.site.agents {
            loop {
                let sight = Sight::by(agent).await;
                let Some(missing) = self.instances.iter().find(|instance| !instance.is_seen(&sight)) else {
                    break;
                };
                if tokio::time::Instant::now() > deadline {
                    let (name, kind) = (missing.sample.name, missing.kind);
                    let seen = sight.endpoint(missing).and_then(|endpoint| endpoint.reason.clone());
                    let why = seen
                        .unwrap_or_else(|| format!("{kind} does not tell of it: {}", sight.state(kind).1));
                    bail!("agent {} does not call {name} on {kind}: {why}", agent.name);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

impl Scene for Application {
    fn site(&self) -> &Site {
        &self.site
    }

    async fn start(&mut self, children: &mut Children) -> anyhow::Result<()> {
        self.site.write_hub("")?;
        let hub = async {
            children.start_hub(&self.site).await?;
            children.join_agents(&self.site).await
        };
        let ((), servers) = try_join(hub, self.start_servers()).await?;
        self.servers = servers;
        self.write_agents()?;
        // What Nomad has, Nomad runs.
        let ours = self.instances.iter().filter(|instance| instance.kind != Kind::Nomad);
        let samples: Vec<Sample> = ours.map(|instance| instance.sample.clone()).collect();
        children.start_samples(&samples, self.site.root()).await?;
        self.announce().await?;
        children.start_agents(&self.site).await?;
        self.until_seen().await
    }

    async fn end(self) {
        self.site.remove().await;
        let (servers, instances) = (self.servers, self.instances);
        let ended = apart(move || {
            for (kind, server) in servers {
                for instance in instances.iter().filter(|instance| instance.kind == kind) {
                    if let Err(error) = server.withdraw(instance) {
                        eprintln!("weft: {kind}: {error:#}");
                    }
                }
            }
        });
        if let Err(error) = ended.await {
            eprintln!("weft: {error:#}");
        }
    }
}

/// The service that lives on this platform alone.
fn own_service(kind: Kind) -> &'static str {
    match kind {
        Kind::Consul => "orders",
        Kind::Nomad => "payments",
        Kind::Kubernetes => "reviews",
        Kind::Eureka => "catalog",
        Kind::Knot => "names",
    }
}

/// The address on which the agent of a platform's host takes mesh traffic. Kubernetes takes no loopback addresses.
fn mesh_host(kind: Kind) -> anyhow::Result<IpAddr> {
    if kind != Kind::Kubernetes {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let chosen = own_address().filter(|address| address.is_ipv4() && !address.is_loopback());
    chosen.context(
        "kubernetes takes no loopback addresses for pods, and this machine has no other with a route",
    )
}
