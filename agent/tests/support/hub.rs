//! A hub in this process, hosts that join it, and a wire between them that counts and can be cut.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};
use weft_agent::{
    config::{Overrides, load_hub},
    files::{make_private_folder, to_pem, write_private},
    hub::{
        Hub,
        authority::{AuthorityFolder, ProvenRequest},
        operator::{TokenView, node_identity},
        token::Token,
    },
    identity::{HubIdentity, IdentitySettings, join::join},
};
use weft_core::{
    control::NodeReport,
    identity::{SpiffeId, TrustDomain},
    locality::Locality,
    name::WorkloadName,
    publish::Publisher,
    resource::Labels,
    tls::{Bundle, Certificate, Credentials, TlsContext},
    workload::Workload,
};
use weft_registries::hub::{HubLink, LinkConfig};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The local workloads, as they change.
pub(crate) type WorkloadList = Arc<[Arc<Workload>]>;

/// Workloads of these accounts, as the agent hands them to whoever follows.
pub(crate) fn workloads(accounts: &[&str]) -> (watch::Sender<WorkloadList>, watch::Receiver<WorkloadList>) {
    let workload = |account: &&str| {
        Arc::new(Workload {
            name: WorkloadName::new(account).unwrap(),
            identity: SpiffeId::parse(&format!("spiffe://demo.mesh/ns/default/sa/{account}")).unwrap(),
            labels: Labels::default(),
            locality: Locality::default(),
            ports: Vec::new(),
        })
    };
    watch::channel(accounts.iter().map(workload).collect())
}

/// A signing request of a new key.
pub(crate) fn signing_request() -> Bytes {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    Bytes::copy_from_slice(CertificateParams::default().serialize_request(&key).unwrap().der())
}

/// A mesh of one hub.
pub(crate) struct Mesh {
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    hub: Hub,
}

impl Mesh {
    pub(crate) async fn start(leaf: &str) -> Self {
        Self::with_services(leaf, 1).await
    }

    /// A mesh of so many services with one endpoint each.
    pub(crate) async fn with_services(leaf: &str, services: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let domain = TrustDomain::new("demo.mesh").unwrap();
        AuthorityFolder::of_state(&path("hub")).initialise(&domain, SystemTime::now()).unwrap();
        make_private_folder(&path("mesh.d")).unwrap();
        write_services(&path("mesh.d"), services, &BTreeMap::new());
        let text = format!(
            "listen = \"127.0.0.1:0\"\nstate_dir = {:?}\nrun_dir = {:?}\n\n[ca]\nleaf_ttl = {leaf:?}\n\n\
             [admin]\nlisten = \"off\"\n\n[[registry]]\nkind = \"static\"\nname = \"static\"\npath = {:?}\n",
            path("hub"),
            path("run"),
            path("mesh.d"),
        );
        std::fs::write(path("hub.toml"), text).unwrap();
        let (config, _) = load_hub(&path("hub.toml"), &Overrides::default()).unwrap();
        let hub = Hub::start(&config).await.unwrap();
        Self { address: hub.address(), folder, hub }
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where a host of this name keeps its state.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.folder(&format!("state-{name}"))
    }

    /// A new token, asked for as the operator does.
    pub(crate) async fn token(&self, node: &str, accounts: &[&str]) -> Token {
        let identities = accounts.iter().map(|a| format!("&identity=spiffe://demo.mesh/ns/default/sa/{a}"));
        let query = format!("/tokens?node={node}{}", identities.collect::<String>());
        let socket = self.folder("hub/hub.sock");
        let answer: serde_json::Value =
            weft_agent::admin::client::AdminClient::new(&socket).post(&query).await.unwrap();
        Token::parse(answer["token"].as_str().unwrap()).unwrap()
    }

    /// The tokens, as the operator sees them.
    pub(crate) async fn tokens(&self) -> Vec<TokenView> {
        let socket = self.folder("hub/hub.sock");
        weft_agent::admin::client::AdminClient::new(&socket).get("/tokens").await.unwrap()
    }

    /// Lets a host join; gives its state directory.
    pub(crate) async fn join(&self, node: &str, accounts: &[&str]) -> PathBuf {
        let token = self.token(node, accounts).await;
        let state = self.state(node);
        join(&state, &token, Some(&self.address.to_string()), None).await.unwrap();
        state
    }

    /// An agent that joined under this name; its workloads stay for as long as the sender is kept.
    pub(crate) async fn agent(
        &self,
        node: &str,
        accounts: &[&str],
    ) -> (watch::Sender<WorkloadList>, HubIdentity) {
        let state_dir = self.join(node, accounts).await;
        let (sender, workloads) = workloads(accounts);
        let settings = IdentitySettings { state_dir, hubs: vec![self.address.to_string()] };
        (sender, HubIdentity::start(settings, workloads).unwrap())
    }

    /// The state of a node that never joined: what the authority signed was for `account`, a workload's or, for `node`,
    /// a node's, with this lifetime.
    pub(crate) fn forge_node(&self, name: &str, account: &str, lifetime: Duration) -> PathBuf {
        let state = self.state(name);
        make_private_folder(&state).unwrap();
        let (_, key, chain) = self.forge(name, account, lifetime);
        let chain = to_pem("CERTIFICATE", chain.iter().map(AsRef::as_ref));
        write_private(&state.join("node.pem"), (key.serialize_pem() + &chain).as_bytes()).unwrap();
        std::fs::copy(self.folder("hub/ca/bundle.pem"), state.join("bundle.pem")).unwrap();
        let node = serde_json::json!({ "node": name, "trust_domain": "demo.mesh", "hub": "127.0.0.1:1" });
        std::fs::write(state.join("node.json"), node.to_string()).unwrap();
        state
    }

    /// A link to the hub with a certificate of the node's that is good for so long, and stays as it is.
    pub(crate) fn link(&self, node: &str, lifetime: Duration) -> HubLink {
        HubLink::start(self.link_config(node, lifetime))
    }

    /// What such a link needs.
    pub(crate) fn link_config(&self, node: &str, lifetime: Duration) -> LinkConfig {
        let (identity, key, chain) = self.forge(node, "node", lifetime);
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let roots = std::fs::read_to_string(self.folder("hub/ca/bundle.pem")).unwrap();
        let credentials = Credentials::default()
            .with_identity(Certificate::new(chain, key).unwrap())
            .with_bundle(Bundle::from_pem(identity.trust_domain(), &roots).unwrap());
        LinkConfig {
            addresses: [self.address.to_string()].into(),
            node: identity,
            node_name: node.to_owned(),
            tls: Arc::new(TlsContext::new(Publisher::new(credentials).reader())),
            report: Some(watch::channel(NodeReport::default()).1),
        }
    }

    fn forge(
        &self,
        name: &str,
        account: &str,
        lifetime: Duration,
    ) -> (SpiffeId, KeyPair, Vec<CertificateDer<'static>>) {
        let now = SystemTime::now();
        let authority = AuthorityFolder::of_state(&self.folder("hub")).open(lifetime, now).unwrap();
        let identity = if account == "node" {
            node_identity(authority.trust_domain(), name).unwrap()
        } else {
            SpiffeId::new(authority.trust_domain(), "default", account).unwrap()
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        let request = ProvenRequest::read(request.der()).unwrap();
        let issued = authority.issue(&identity, &request, now).unwrap();
        (identity, key, issued.chain)
    }

    /// Trusts the root of another authority too.
    pub(crate) fn add_root(&self) {
        let other = AuthorityFolder::of_state(&self.folder("other"));
        other.initialise(&TrustDomain::new("demo.mesh").unwrap(), SystemTime::now()).unwrap();
        let bundle = self.folder("hub/ca/bundle.pem");
        let both =
            [&bundle, &other.path().join("root.pem")].map(|path| std::fs::read_to_string(path).unwrap());
        write_private(&bundle, both.concat().as_bytes()).unwrap();
    }

    /// Writes the services anew, with other weights for some.
    pub(crate) fn write_services(&self, services: usize, weights: &BTreeMap<usize, u16>) {
        write_services(&self.folder("mesh.d"), services, weights);
    }

    /// Ends the hub; the state stays for as long as this is kept.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.hub.stop().await;
        self.folder
    }
}

fn write_services(folder: &Path, services: usize, weights: &BTreeMap<usize, u16>) {
    let mut text = String::new();
    for number in 0..services {
        let weight = weights.get(&number).unwrap_or(&1);
        write!(
            text,
            "[[service]]\nname = \"service-{number}.default\"\n\
             ports = [{{ name = \"http\", number = 80, protocol = \"http\" }}]\n[[service.endpoint]]\n\
             instance = \"{number}-1\"\nport = \"http\"\naddress = \"10.1.0.1:8080\"\nmesh = \"10.1.0.1:15008\"\n\
             identity = \"spiffe://demo.mesh/ns/default/sa/web\"\nweight = {weight}\n"
        )
        .unwrap();
    }
    write_private(&folder.join("services.toml"), text.as_bytes()).unwrap();
}

/// A wire to the hub that counts what the hub sends and can be cut.
#[derive(Clone)]
pub(crate) struct Counter {
    address: SocketAddr,
    to_agent: Arc<AtomicU64>,
    cut_after: Arc<AtomicU64>,
    refusing: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Counter {
    pub(crate) async fn start(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let counter = Self {
            address: listener.local_addr().unwrap(),
            to_agent: Arc::default(),
            cut_after: Arc::new(AtomicU64::new(u64::MAX)),
            refusing: Arc::default(),
            open: Arc::default(),
        };
        let accepting = counter.clone();
        tokio::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                if !accepting.refusing.load(Ordering::Relaxed) {
                    let wire = tokio::spawn(accepting.clone().carry(agent, hub));
                    accepting.open.lock().unwrap().push(wire.abort_handle());
                }
            }
        });
        counter
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Bytes that the hub sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.to_agent.load(Ordering::Relaxed)
    }

    /// Every wire from now on is cut after so many bytes of the hub's.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.cut_after.store(bytes, Ordering::Relaxed);
    }

    /// Cuts every wire, and lets new ones through or not.
    pub(crate) fn cut(&self, refuse: bool) {
        self.refusing.store(refuse, Ordering::Relaxed);
        self.open.lock().unwrap().drain(..).for_each(|wire| wire.abort());
    }

    /// Waits until the hub has said nothing for a while, and so has said what it had to say.
    pub(crate) async fn settled(&self) {
        let end = Instant::now() + DEADLINE;
        loop {
            let before = self.sent();
            tokio::time::sleep(Duration::from_millis(700)).await;
            if self.sent() == before {
                return;
            }
            assert!(Instant::now() < end, "the hub talks without end");
        }
    }

    async fn carry(self, mut agent: TcpStream, hub: SocketAddr) {
        let Ok(mut hub) = TcpStream::connect(hub).await else { return };
        let (mut from_agent, mut to_agent) = agent.split();
        let (mut from_hub, mut to_hub) = hub.split();
        let limit = self.cut_after.load(Ordering::Relaxed);
        let down = async {
            let mut buffer = vec![0; 16 * 1024];
            let mut sent = 0;
            while let Ok(length @ 1..) = from_hub.read(&mut buffer).await {
                sent += length as u64;
                if sent > limit || to_agent.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
                self.to_agent.fetch_add(length as u64, Ordering::Relaxed);
            }
        };
        tokio::select! {
            () = down => {}
            _ = tokio::io::copy(&mut from_agent, &mut to_hub) => {}
        }
    }
}
