//! The hub: what an agent that is connected costs it, how long a change takes to all of them, and how they come back after
//! its restart. The agents are light: each is the real link to a hub with a certificate of its own, and throws away what it hears.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, future::try_join_all};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::{net::TcpStream, sync::watch, task::JoinSet};
use weft_agent::{
    admin::client::AdminClient,
    hub::{authority::AuthorityFolder, operator::node_identity, token::Token},
    registries::hub::{HubLink, HubRegistry, LinkConfig, LinkState, join},
};
use weft_core::{
    control::{NodeReport, VERSIONS, message::JoinRequest},
    identity::TrustDomain,
    name::RegistryName,
    publish::Publisher,
    registry::{Event, Registry, Scope},
    resource::Resource,
    tls::{Bundle, Certificate, Credentials, RootPin, TlsContext},
};
use weft_testbed::{Port, Scratch};

use crate::{
    ENDPOINTS, Options,
    agent::Measured,
    report::{Row, quantile},
};

/// Services that the hub relays: how many does not matter to what an agent costs.
const SERVICES: usize = 100;
/// How often something changes.
const CHANGES: u64 = 20;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How many shake hands at a time when all connect first.
const TOGETHER: usize = 50;

/// One agent.
struct Light {
    state: watch::Receiver<LinkState>,
    /// The last change that it heard of, counted from one, and when.
    heard_at: watch::Receiver<(u64, Instant)>,
}

struct Mesh {
    scratch: Scratch,
    port: Port,
    hub: Option<Measured>,
}

pub(crate) fn measure(options: &Options) -> anyhow::Result<Row> {
    eprintln!("hub, {} agents", options.agents);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut mesh = Mesh { scratch: Scratch::new("bench-hub")?, port: Port::free()?, hub: None };
    mesh.write()?;
    mesh.start(&options.weft_bin)?;
    runtime.block_on(mesh.listening())?;
    let idle = mesh.hub()?.settled_megabytes()?;
    let began = Instant::now();
    let lights = runtime.block_on(connect(&mesh, options.agents))?;
    let mut row =
        Row { backend: "hub", services: SERVICES, endpoints: SERVICES * ENDPOINTS, ..Row::default() };
    row.ready_s = began.elapsed().as_secs_f64();
    row.memory_mb = mesh.hub()?.settled_megabytes()? - idle;
    row.more.insert("agents", lights.len() as f64);
    row.more.insert("memory_per_agent_mb", row.memory_mb / lights.len() as f64);
    eprintln!(
        "  {} agents after {:.1} s, {:.1} MB above {idle:.1}",
        lights.len(),
        row.ready_s,
        row.memory_mb
    );

    let mut took = Vec::new();
    let cpu = mesh.hub()?.cpu_seconds()?;
    for number in 1..=CHANGES {
        std::thread::sleep(Duration::from_millis(fastrand::u64(200..600)));
        let changed = Instant::now();
        mesh.write_probe(number)?;
        took.extend(runtime.block_on(heard(&lights, number, changed))?);
    }
    row.cpu_s = mesh.hub()?.cpu_seconds()? - cpu;
    took.sort_by(f64::total_cmp);
    (row.change_p50_ms, row.change_p99_ms) = (quantile(&took, 0.5), quantile(&took, 0.99));
    row.more.insert("change_last_ms", quantile(&took, 1.0));
    eprintln!("  a change to all: p50 {:.0} ms, p99 {:.0} ms", row.change_p50_ms, row.change_p99_ms);

    mesh.hub()?.process().kill();
    runtime.block_on(all(&lights, false))?;
    let began = Instant::now();
    mesh.hub()?.process().start_again()?;
    let back = runtime.block_on(all(&lights, true))?;
    let mut after: Vec<f64> =
        back.iter().map(|at| at.saturating_duration_since(began).as_secs_f64()).collect();
    after.sort_by(f64::total_cmp);
    row.more.insert("back_first_s", quantile(&after, 0.0));
    row.more.insert("back_p50_s", quantile(&after, 0.5));
    row.more.insert("back_last_s", quantile(&after, 1.0));
    row.more.insert("back_most_in_100_ms", most_within(&after, 0.1) as f64);
    eprintln!("  after a restart all were back within {:.1} s", quantile(&after, 1.0));
    drop(lights);
    Ok(row)
}

/// The most of the sorted `times` that lie within one span of this length.
fn most_within(times: &[f64], span: f64) -> usize {
    let within = |first: usize| times[first..].iter().take_while(|time| **time < times[first] + span).count();
    (0..times.len()).map(within).max().unwrap_or(0)
}

impl Mesh {
    fn hub(&self) -> anyhow::Result<&Measured> {
        self.hub.as_ref().context("the hub runs")
    }

    /// An authority, the hub's file, and what it relays.
    fn write(&self) -> anyhow::Result<()> {
        let state = self.scratch.path().join("hub");
        AuthorityFolder::of_state(&state).initialise(&TrustDomain::new("bench.mesh")?, SystemTime::now())?;
        let mut text = String::new();
        for service in 0..SERVICES {
            text.push_str(&service_text(&format!("s{service}"), ENDPOINTS, 8080));
        }
        self.scratch.write("mesh.d/services.toml", text)?;
        self.write_probe(0)?;
        let (root, port) = (self.scratch.path().display(), self.port.number());
        self.scratch.write(
            "hub.toml",
            format!(
                "listen = \"127.0.0.1:{port}\"\nstate_dir = {state:?}\nrun_dir = \"{root}/run\"\n[admin]\nlisten = \"off\"\n\
                 [[registry]]\nkind = \"static\"\npath = \"{root}/mesh.d\"\n"
            ),
        )?;
        Ok(())
    }

    /// The one service that changes: its endpoint's port is the number of the change.
    fn write_probe(&self, number: u64) -> anyhow::Result<()> {
        let path = self.scratch.write(".probe", service_text("probe", 1, 10_000 + number))?;
        Ok(std::fs::rename(path, self.scratch.path().join("mesh.d/probe.toml"))?)
    }

    fn start(&mut self, binary: &Path) -> anyhow::Result<()> {
        let config = self.scratch.path().join("hub.toml").display().to_string();
        self.hub = Some(Measured::start(&self.scratch, "hub", binary, &["hub", "--config", &config])?);
        Ok(())
    }

    async fn listening(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port.number())).await.is_err() {
            if Instant::now() > deadline {
                bail!("the hub does not listen: {}", self.hub()?.process().output());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Joins under a name of its own, as a host does, and gives the link that an agent would have then.
    async fn link(&self, node: &str) -> anyhow::Result<HubLink> {
        let identity = "spiffe://bench.mesh/ns/default/sa/web";
        let query = format!("/tokens?node={node}&identity={identity}");
        let socket = self.scratch.path().join("hub/hub.sock");
        let answer: Value = AdminClient::of_hub(&socket).post(&query).await?;
        let token = Token::parse(answer["token"].as_str().unwrap_or_default())?;
        let (address, domain) = (format!("127.0.0.1:{}", self.port.number()), &token.trust_domain);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let request = JoinRequest {
            secret: token.secret.to_vec().into(),
            node: node.to_owned(),
            signing_request: CertificateParams::default().serialize_request(&key)?.der().to_vec().into(),
            lowest_version: VERSIONS.0,
            highest_version: VERSIONS.1,
        };
        let joined = join(&address, RootPin::from(token.root_pin), domain, request).await?;
        let chain =
            joined.chain.iter().map(|certificate| CertificateDer::from(certificate.to_vec())).collect();
        let certificate = Certificate::new(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
        let roots = std::fs::read_to_string(self.scratch.path().join("hub/ca/bundle.pem"))?;
        let credentials = Credentials::default()
            .with_identity(certificate)
            .with_bundle(Bundle::from_pem(domain.clone(), &roots)?);
        Ok(HubLink::start(LinkConfig {
            addresses: vec![address].into(),
            node: node_identity(domain, node)?,
            node_name: node.to_owned(),
            tls: Arc::new(TlsContext::new(Publisher::new(credentials).reader())),
            report: Some(watch::channel(NodeReport::default()).1),
        }))
    }
}

fn service_text(name: &str, endpoints: usize, port: u64) -> String {
    let mut text = format!(
        "[[service]]\nname = \"{name}.default\"\nports = [{{ name = \"http\", number = 80, protocol = \"http\" }}]\n"
    );
    for endpoint in 0..endpoints {
        text.push_str(&format!(
            "[[service.endpoint]]\ninstance = \"{name}-{endpoint}\"\nport = \"http\"\naddress = \"10.1.0.{endpoint}:{port}\"\n\
             mesh = \"10.1.0.{endpoint}:15008\"\nidentity = \"spiffe://bench.mesh/ns/default/sa/{name}\"\n"
        ));
    }
    text
}

/// Connects so many agents, and waits until each has heard everything.
async fn connect(mesh: &Mesh, agents: usize) -> anyhow::Result<Vec<Light>> {
    let mut lights = Vec::new();
    for first in (0..agents).step_by(TOGETHER) {
        let nodes = first..(first + TOGETHER).min(agents);
        let links = nodes.map(|number| async move { mesh.link(&format!("node-{number}")).await });
        let some: Vec<Light> = try_join_all(links).await?.into_iter().map(Light::start).collect();
        heard(&some, 0, Instant::now()).await?;
        lights.extend(some);
    }
    Ok(lights)
}

/// When each has heard of that change, in milliseconds since `began`.
async fn heard(lights: &[Light], number: u64, began: Instant) -> anyhow::Result<Vec<f64>> {
    let each = lights.iter().map(|light| async move {
        let mut heard = light.heard_at.clone();
        // The first is counted from one: nothing heard yet is none.
        let reached = heard.wait_for(|(last, _)| *last > number);
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        let unheard = || format!("an agent did not hear of a change: {:?}", *light.state.borrow());
        let (_, at) = *reached.with_context(unheard)??;
        Ok::<_, anyhow::Error>(at.saturating_duration_since(began).as_secs_f64() * 1e3)
    });
    try_join_all(each).await
}

/// Waits until the links of all are up, or down; when each was.
async fn all(lights: &[Light], up: bool) -> anyhow::Result<Vec<Instant>> {
    let mut waiting = JoinSet::new();
    for light in lights {
        let mut state = light.state.clone();
        waiting.spawn(async move {
            let reached = state.wait_for(|state| matches!(state, LinkState::Connected { .. }) == up);
            let reached = tokio::time::timeout(PATIENCE, reached).await;
            reached.is_ok_and(|reached| reached.is_ok()).then(Instant::now)
        });
    }
    let times = waiting.join_all().await;
    times
        .into_iter()
        .collect::<Option<_>>()
        .context("a link did not come up, or did not notice the end of the hub")
}

impl Light {
    fn start(link: HubLink) -> Self {
        let state = link.state();
        let (told, heard_at) = watch::channel((0, Instant::now()));
        tokio::spawn(follow(link, told));
        Self { state, heard_at }
    }
}

/// Hears everything, again and again, and keeps only which change was last.
async fn follow(link: HubLink, told: watch::Sender<(u64, Instant)>) {
    let Ok(name) = RegistryName::new("hub") else { return };
    let registry = HubRegistry::new(name.clone(), link);
    loop {
        let mut events = registry.watch(Scope::whole(name.clone()), None);
        let mut pending = None;
        while let Some(Ok(event)) = events.next().await {
            match event {
                Event::Replace { resources, .. } => pending = resources.iter().find_map(change).or(pending),
                Event::Commit { .. } => {
                    if let Some(number) = pending.take() {
                        told.send_replace((number + 1, Instant::now()));
                    }
                }
                Event::Reset { .. } | Event::Ready { .. } => {}
            }
        }
    }
}

/// The number of the change, where a resource tells of one.
fn change(resource: &Resource) -> Option<u64> {
    let Resource::Endpoint(endpoint) = resource else { return None };
    let is_probe = endpoint.service.as_str() == "probe.default";
    is_probe.then(|| u64::from(endpoint.address.socket().port()).saturating_sub(10_000))
}
