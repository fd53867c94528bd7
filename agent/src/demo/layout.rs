//! Where everything of a demonstration lies: its folder, its ports, and the files that a user would write.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;
use weft_core::identity::{SpiffeId, TrustDomain};

/// How long a leaf certificate lives; it is renewed after a third of that.
pub(super) const LEAF_LIFETIME: &str = "9s";
/// The trust domain.
const TRUST_DOMAIN: &str = "demo.mesh";
/// The longest path, in bytes, in which the demonstration's folder may lie: a Unix socket's has at most 107.
const LONGEST_PLACE: usize = 60;
/// Shares of the two versions, in percent.
pub(super) const SHARES: [(&str, u32); 2] = [("v1", 75), ("v2", 25)];

/// One agent: a "host" of the demonstration.
#[derive(Clone, Debug)]
pub(super) struct AgentLayout {
    pub(super) name: &'static str,
    pub(super) inbound: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) folder: PathBuf,
    /// Accounts of the workloads on it.
    pub(super) accounts: &'static [&'static str],
}

impl AgentLayout {
    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("weft.toml")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }
}

/// The whole demonstration.
#[derive(Debug)]
pub(super) struct Layout {
    folder: TempDir,
    pub(super) hub: SocketAddr,
    /// Where the load generator calls as `loadgen`.
    pub(super) loadgen_outbound: SocketAddr,
    /// Where the service `web` calls as `web`.
    pub(super) web_outbound: SocketAddr,
    pub(super) web: SocketAddr,
    pub(super) reviews: [SocketAddr; 2],
    /// `one` runs the load generator and reviews, `two` runs web.
    pub(super) agents: [AgentLayout; 2],
}

impl Layout {
    pub(super) fn create() -> anyhow::Result<Self> {
        let folder = folder()?;
        let mut ports = Ports::default();
        let mut agent = |name: &'static str, accounts: &'static [&'static str]| -> anyhow::Result<_> {
            let own = folder.path().join(name);
            Ok(AgentLayout { name, inbound: ports.next()?, admin: ports.next()?, folder: own, accounts })
        };
        let agents = [agent("one", &["loadgen", "reviews"])?, agent("two", &["web"])?];
        Ok(Self {
            hub: ports.next()?,
            loadgen_outbound: ports.next()?,
            web_outbound: ports.next()?,
            web: ports.next()?,
            reviews: [ports.next()?, ports.next()?],
            agents,
            folder,
        })
    }

    pub(super) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn hub_folder(&self) -> PathBuf {
        self.root().join("hub")
    }

    pub(super) fn hub_config(&self) -> PathBuf {
        self.root().join("hub.toml")
    }

    pub(super) fn services_file(&self) -> PathBuf {
        self.root().join("mesh.d/services.toml")
    }

    pub(super) fn routes_file(&self) -> PathBuf {
        self.root().join("mesh.d/routes.toml")
    }

    pub(super) fn web_host(&self) -> String {
        "web.default.mesh".into()
    }

    /// Removes the folder and all in it. A process that is just being killed may still write there: tries more than once.
    pub(super) async fn remove(self) {
        let path = self.folder.keep();
        let mut left = 50;
        while let Err(error) = fs::remove_dir_all(&path) {
            if error.kind() == io::ErrorKind::NotFound {
                return;
            }
            left -= 1;
            if left == 0 {
                eprintln!("weft: {} could not be removed: {error}", path.display());
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Writes every file that a user would write.
    pub(super) fn write_files(&self) -> anyhow::Result<()> {
        fs::create_dir_all(self.root().join("mesh.d"))?;
        fs::create_dir_all(self.hub_folder())?;
        fs::write(self.hub_config(), self.hub_text())?;
        for agent in &self.agents {
            fs::create_dir_all(&agent.folder)?;
            fs::write(agent.config(), self.agent_text(agent))?;
        }
        fs::write(self.services_file(), self.services_text())?;
        fs::write(self.routes_file(), routes_text())?;
        fs::write(self.root().join("mesh.d/policies.toml"), policies_text())?;
        Ok(())
    }

    fn hub_text(&self) -> String {
        format!(
            "listen = \"{}\"\nstate_dir = {:?}\n\n[ca]\nleaf_ttl = \"{LEAF_LIFETIME}\"\n\n\
             [admin]\nsocket = {:?}\nlisten = \"off\"\n\n\
             [[registry]]\nkind = \"static\"\nname = \"static\"\npath = {:?}\nallow_loopback = true\n",
            self.hub,
            self.hub_folder(),
            self.root().join("hub.sock"),
            self.root().join("mesh.d"),
        )
    }

    fn agent_text(&self, agent: &AgentLayout) -> String {
        let mut text = format!(
            "state_dir = {:?}\nrun_dir = {:?}\nworkers = 1\ndrain_deadline = \"5s\"\n\n\
             [admin]\nsocket = {:?}\nlisten = \"{}\"\n\n[inbound]\nlisten = \"{}\"\n\n[hub]\naddress = \"{}\"\n\n\
             [[registry]]\nkind = \"hub\"\nname = \"hub\"\n",
            agent.folder.join("state"),
            agent.folder.join("run"),
            agent.socket(),
            agent.admin,
            agent.inbound,
            self.hub,
        );
        if agent.name == "one" {
            text.push_str(&client_text("loadgen", self.loadgen_outbound));
            for ((version, _), address) in SHARES.into_iter().zip(self.reviews) {
                text.push_str(&format!(
                    "\n[[workload]]\nname = \"reviews-{version}\"\nidentity = \"{}\"\n\
                     labels = {{ version = \"{version}\" }}\n{}",
                    identity("reviews"),
                    port_text("reviews", address)
                ));
            }
        } else {
            text.push_str(&client_text("web", self.web_outbound));
            text.push_str(&port_text("web", self.web));
        }
        text
    }

    fn services_text(&self) -> String {
        let [one, two] = &self.agents;
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

/// A new folder, where temporary files belong unless the paths of Unix sockets would not fit there.
fn folder() -> anyhow::Result<TempDir> {
    let mut place = std::path::absolute(std::env::temp_dir())?;
    if place.as_os_str().len() > LONGEST_PLACE || place.to_str().is_none() {
        place = "/tmp".into();
    }
    let made = tempfile::Builder::new().prefix("weft-demo-").tempdir_in(&place);
    made.with_context(|| format!("no folder can be made in {} (TMPDIR names another place)", place.display()))
}

/// The identity of an account of the demonstration.
pub(super) fn identity(account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/default/sa/{account}")
}

/// The same, checked.
pub(super) fn spiffe_id(account: &str) -> SpiffeId {
    let domain = TrustDomain::new(TRUST_DOMAIN).expect("a constant that fits");
    SpiffeId::new(&domain, "default", account).expect("accounts of the demonstration fit")
}

/// The trust domain.
pub(super) fn trust_domain() -> &'static str {
    TRUST_DOMAIN
}

fn client_text(name: &str, outbound: SocketAddr) -> String {
    let uid = rustix::process::getuid().as_raw();
    format!(
        "\n[[workload]]\nname = \"{name}\"\nidentity = \"{}\"\noutbound = \"{outbound}\"\nuid = {uid}\n",
        identity(name)
    )
}

fn port_text(service: &str, address: SocketAddr) -> String {
    format!(
        "[[workload.port]]\nservice = \"{service}.default\"\nname = \"http\"\naddress = \"{address}\"\n\
         protocol = \"http\"\n"
    )
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

/// Loopback ports that nobody listens on, below the range from which the kernel takes ports of outgoing connections.
#[derive(Default)]
struct Ports {
    taken: Vec<u16>,
}

impl Ports {
    fn next(&mut self) -> anyhow::Result<SocketAddr> {
        for _ in 0..10_000 {
            let port = fastrand::u16(15_100..32_000);
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            if !self.taken.contains(&port) && TcpListener::bind(address).is_ok() {
                self.taken.push(port);
                return Ok(address);
            }
        }
        anyhow::bail!("no free port on 127.0.0.1")
    }
}
