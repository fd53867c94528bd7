//! What every demonstration has: a folder, ports, a hub that signs, agents, and the parts of the files that a user would write.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;
use weft_core::identity::{SpiffeId, TrustDomain};

/// How long a leaf certificate lives; it is renewed after a third of that.
pub(super) const LEAF_LIFETIME: &str = "9s";
/// The trust domain.
pub(super) const TRUST_DOMAIN: &str = "demo.mesh";
/// The longest path, in bytes, in which the demonstration's folder may lie: a Unix socket's has at most 107.
const LONGEST_PLACE: usize = 60;

/// One agent: a "host" of the demonstration.
#[derive(Clone, Debug)]
pub(super) struct AgentLayout {
    pub(super) name: &'static str,
    pub(super) inbound: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) folder: PathBuf,
    /// Accounts of the workloads on it.
    pub(super) accounts: Vec<&'static str>,
}

impl AgentLayout {
    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("weft.toml")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }
}

/// The place of a demonstration.
#[derive(Debug)]
pub(super) struct Site {
    folder: TempDir,
    ports: Ports,
    pub(super) hub: SocketAddr,
    pub(super) agents: Vec<AgentLayout>,
}

impl Site {
    /// A new folder, with a hub and no agent yet.
    pub(super) fn create() -> anyhow::Result<Self> {
        let (folder, mut ports) = (folder()?, Ports::default());
        Ok(Self { folder, hub: ports.next(Ipv4Addr::LOCALHOST.into())?, ports, agents: Vec::new() })
    }

    /// A loopback address that nobody else has.
    pub(super) fn address(&mut self) -> anyhow::Result<SocketAddr> {
        self.ports.next(Ipv4Addr::LOCALHOST.into())
    }

    /// Adds an agent whose mesh port is on `mesh`.
    pub(super) fn add_agent(
        &mut self,
        name: &'static str,
        mesh: IpAddr,
        accounts: Vec<&'static str>,
    ) -> anyhow::Result<()> {
        let (inbound, admin) = (self.ports.next(mesh)?, self.address()?);
        self.agents.push(AgentLayout { name, inbound, admin, folder: self.root().join(name), accounts });
        Ok(())
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

    /// Writes the hub's file, which ends with these registries.
    pub(super) fn write_hub(&self, registries: &str) -> io::Result<()> {
        fs::create_dir_all(self.hub_folder())?;
        let text = format!(
            "listen = \"{}\"\nstate_dir = {:?}\n\n[ca]\nleaf_ttl = \"{LEAF_LIFETIME}\"\n\n\
             [admin]\nsocket = {:?}\nlisten = \"off\"\n\n{registries}",
            self.hub,
            self.hub_folder(),
            self.root().join("hub.sock"),
        );
        fs::write(self.hub_config(), text)
    }

    /// Writes an agent's file: what all agents share, and then `rest`.
    pub(super) fn write_agent(&self, agent: &AgentLayout, rest: &str) -> io::Result<()> {
        fs::create_dir_all(&agent.folder)?;
        let text = format!(
            "state_dir = {:?}\nrun_dir = {:?}\nworkers = 1\ndrain_deadline = \"5s\"\n\n\
             [admin]\nsocket = {:?}\nlisten = \"{}\"\n\n[inbound]\nlisten = \"{}\"\n\n[hub]\naddress = \"{}\"\n\n{rest}",
            agent.folder.join("state"),
            agent.folder.join("run"),
            agent.socket(),
            agent.admin,
            agent.inbound,
            self.hub,
        );
        fs::write(agent.config(), text)
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

/// The name by which a service is called.
pub(super) fn host(service: &str) -> String {
    format!("{service}.default.mesh")
}

/// A workload, by the name of its account, which may call others at `outbound`.
pub(super) fn workload_text(account: &str, outbound: Option<SocketAddr>) -> String {
    let mut text = format!("\n[[workload]]\nname = \"{account}\"\nidentity = \"{}\"\n", identity(account));
    if let Some(outbound) = outbound {
        let uid = rustix::process::getuid().as_raw();
        text.push_str(&format!("outbound = \"{outbound}\"\nuid = {uid}\n"));
    }
    text
}

/// What the workload above it serves.
pub(super) fn port_text(service: &str, address: SocketAddr) -> String {
    format!(
        "[[workload.port]]\nservice = \"{service}.default\"\nname = \"http\"\naddress = \"{address}\"\n\
         protocol = \"http\"\n"
    )
}

/// Ports that nobody listens on, below the range from which the kernel takes ports of outgoing connections.
#[derive(Debug, Default)]
struct Ports {
    taken: Vec<u16>,
}

impl Ports {
    fn next(&mut self, host: IpAddr) -> anyhow::Result<SocketAddr> {
        for _ in 0..10_000 {
            let port = fastrand::u16(15_100..32_000);
            let address = SocketAddr::from((host, port));
            if !self.taken.contains(&port) && TcpListener::bind(address).is_ok() {
                self.taken.push(port);
                return Ok(address);
            }
        }
        anyhow::bail!("no free port on {host}")
    }
}
