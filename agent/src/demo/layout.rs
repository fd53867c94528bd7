//! The sample mesh on two hosts: its ports, and the files that a user would write for it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    children::Children,
    scene::Scene,
    service::Sample,
    site::{AgentLayout, Site, host, identity, port_text, workload_text},
};

/// Shares of the two versions, in percent.
pub(super) const SHARES: [(&str, u32); 2] = [("v1", 75), ("v2", 25)];

/// The whole demonstration.
#[derive(Debug)]
pub(super) struct Layout {
    /// Its agent `one` runs the load generator and reviews, `two` runs web.
    pub(super) site: Site,
    /// Where the load generator calls as `loadgen`.
    pub(super) loadgen_outbound: SocketAddr,
    /// Where the service `web` calls as `web`.
    web_outbound: SocketAddr,
    web: SocketAddr,
    reviews: [SocketAddr; 2],
}

impl Scene for Layout {
    fn site(&self) -> &Site {
        &self.site
    }

    /// Brings the mesh up in the order in which an operator would.
    async fn start(&mut self, children: &mut Children) -> anyhow::Result<()> {
        self.write_files()?;
        children.start_hub(&self.site).await?;
        children.join_agents(&self.site).await?;
        children.start_samples(&self.samples(), self.site.root()).await?;
        children.start_agents(&self.site).await
    }

    async fn end(self) {
        self.site.remove().await;
    }
}

impl Layout {
    pub(super) fn create() -> anyhow::Result<Self> {
        let mut site = Site::create()?;
        site.add_agent("one", Ipv4Addr::LOCALHOST.into(), vec!["loadgen", "reviews"])?;
        site.add_agent("two", Ipv4Addr::LOCALHOST.into(), vec!["web"])?;
        Ok(Self {
            loadgen_outbound: site.address()?,
            web_outbound: site.address()?,
            web: site.address()?,
            reviews: [site.address()?, site.address()?],
            site,
        })
    }

    /// `one` and `two`.
    pub(super) fn agents(&self) -> [&AgentLayout; 2] {
        [&self.site.agents[0], &self.site.agents[1]]
    }

    pub(super) fn routes_file(&self) -> PathBuf {
        self.mesh_folder().join("routes.toml")
    }

    /// Whose certificates are looked at, and where.
    pub(super) fn serving(&self) -> Vec<(&'static str, SocketAddr)> {
        let [one, two] = self.agents();
        vec![("web", two.inbound), ("reviews", one.inbound)]
    }

    fn mesh_folder(&self) -> PathBuf {
        self.site.root().join("mesh.d")
    }

    fn samples(&self) -> Vec<Sample> {
        let reviews = SHARES.into_iter().zip(self.reviews).map(|((version, _), listen)| Sample {
            name: "reviews",
            version,
            listen,
            calls: None,
        });
        let calls = Some((self.web_outbound, host("reviews")));
        reviews.chain([Sample { name: "web", version: "v1", listen: self.web, calls }]).collect()
    }

    fn write_files(&self) -> anyhow::Result<()> {
        let folder = self.mesh_folder();
        fs::create_dir_all(&folder)?;
        self.site.write_hub(&format!(
            "[[registry]]\nkind = \"static\"\nname = \"static\"\npath = {folder:?}\nallow_loopback = true\n"
        ))?;
        for agent in self.agents() {
            self.site.write_agent(agent, &self.agent_text(agent))?;
        }
        fs::write(folder.join("services.toml"), self.services_text())?;
        fs::write(self.routes_file(), routes_text())?;
        fs::write(folder.join("policies.toml"), policies_text())?;
        Ok(())
    }

    fn agent_text(&self, agent: &AgentLayout) -> String {
        let mut text = "[[registry]]\nkind = \"hub\"\nname = \"hub\"\n".to_owned();
        if agent.name == "one" {
            text.push_str(&workload_text("loadgen", Some(self.loadgen_outbound)));
            for ((version, _), address) in SHARES.into_iter().zip(self.reviews) {
                text.push_str(&format!(
                    "\n[[workload]]\nname = \"reviews-{version}\"\nidentity = \"{}\"\n\
                     labels = {{ version = \"{version}\" }}\n{}",
                    identity("reviews"),
                    port_text("reviews", address)
                ));
            }
        } else {
            text.push_str(&workload_text("web", Some(self.web_outbound)));
            text.push_str(&port_text("web", self.web));
        }
        text
    }

    fn services_text(&self) -> String {
        let [one, two] = self.agents();
        let mut text = service_text("web");
        text.push_str(&endpoint_text("web-1", "web", self.web, two.inbound, "v1"));
        text.push_str(&service_text("reviews"));
        for ((version, _), address) in SHARES.into_iter().zip(self.reviews) {
            let instance = format!("reviews-{version}");
            text.push_str(&endpoint_text(&instance, "reviews", address, one.inbound, version));
        }
        text
    }
}

fn service_text(name: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}.default\"\nports = [{{ name = \"http\", number = 80, protocol = \"http\" }}]\n\n"
    )
}

fn endpoint_text(
    instance: &str,
    account: &str,
    address: SocketAddr,
    mesh: SocketAddr,
    version: &str,
) -> String {
    format!(
        "[[service.endpoint]]\ninstance = \"{instance}\"\nport = \"http\"\naddress = \"{address}\"\n\
         mesh = \"{mesh}\"\nidentity = \"{}\"\nlabels = {{ version = \"{version}\" }}\n\n",
        identity(account)
    )
}

fn routes_text() -> String {
    let backends: String = SHARES
        .iter()
        .map(|(version, share)| {
            format!("  {{ subset = {{ version = \"{version}\" }}, weight = {share} }},\n")
        })
        .collect();
    format!(
        "# Change the weights and save: the next request follows.\n\
         [[route]]\nname = \"reviews\"\nservice = \"reviews.default\"\n\n\
         [[route.rule]]\nname = \"split\"\nbackends = [\n{backends}]\n"
    )
}

fn policies_text() -> String {
    let allow = |service: &str, caller: &str| {
        format!(
            "[[policy]]\nname = \"only-{caller}\"\ntarget = {{ service = \"{service}.default\" }}\naction = \"allow\"\n\
             [[policy.rule]]\nfrom = [{{ identity = \"{}\" }}]\nto = [{{ methods = [\"GET\"] }}]\n\n",
            identity(caller)
        )
    };
    format!("{}{}", allow("web", "loadgen"), allow("reviews", "web"))
}
