//! A running hub, put together.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
};
use weft_core::{
    flow::{Flow, FlowConfig, Source},
    identity::{SpiffeId, TrustDomain},
    merge::Snapshot,
    publish::Reader,
    registry::Registry,
    tls::TlsContext,
};
use weft_registries::{BuildError, Environment};

use super::{
    announced::{AnnouncedRegistry, Announcements},
    authority::{AuthorityFolder, FolderError},
    departed,
    file::{FileFault, HubFile},
    journal::Journal,
    keeper::{Keeper, KeeperError},
    listener::{Door, accept},
    office::Office,
    page::{Operator, Page},
    records::Records,
    relay::Relay,
    roster::Roster,
    states,
    store::{self, EmbeddedStore, StoreError},
    stream::Shared,
};
use crate::{
    admin::Admin,
    config::{EurekaApiConfig, HubConfig, StoreConfig, operator_socket},
    eureka_api::{EurekaApi, Said, Surroundings},
    files::{FileError, make_private_folder},
};

/// How long the relay waits before it tries a journal again that failed.
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);
/// How long an operator's verb may hold the hub's file before another hub must be what has it.
const OPERATOR_IS_DONE_WITHIN: Duration = Duration::from_secs(2);

/// Why a hub did not start.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The state directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The authority's files; `weft ca init` makes them.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The configuration names another mesh.
    #[error("the configuration names the trust domain {configured}, but the authority is {actual}'s")]
    TrustDomain {
        /// As configured.
        configured: TrustDomain,
        /// As the authority's certificates say.
        actual: TrustDomain,
    },
    /// The hub's own file.
    #[error(transparent)]
    Own(#[from] FileFault),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The hub's own certificate.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] BuildError),
    /// The port or a socket.
    #[error("cannot listen on {what}")]
    Listen {
        /// Where.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A running hub.
#[derive(Debug)]
pub struct Hub {
    address: SocketAddr,
    stop_flow: oneshot::Sender<()>,
    flow: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
    _admin: Vec<Admin>,
    _eureka_api: Option<EurekaApi>,
}

impl Hub {
    /// Starts a hub on the runtime that this is called on.
    ///
    /// # Errors
    /// When something that it needs is missing or taken.
    pub async fn start(config: &HubConfig) -> Result<Self, HubError> {
        make_private_folder(&config.state_dir)?;
        let folder = AuthorityFolder::of_state(&config.state_dir);
        let authority = Arc::new(folder.open(config.ca.leaf_ttl, SystemTime::now())?);
        let trust_domain = authority.trust_domain().clone();
        if let Some(configured) = config.trust_domain.clone().filter(|name| *name != trust_domain) {
            return Err(HubError::TrustDomain { configured, actual: trust_domain });
        }
        let file = Arc::new(open_file(&config.state_dir).await?);
        let journal = Arc::new(Journal::open(file.clone())?);
        let records = records(config, file.clone(), &trust_domain).await?;
        let office = Arc::new(Office::new(records.clone(), authority));
        let keeper = Keeper::new(folder.clone(), config.ca.leaf_ttl, office.clone())?;
        let tls = Arc::new(TlsContext::new(keeper.credentials()));

        let announcements = config.announcements.clone();
        let announcements = announcements.map(|terms| Arc::new(Announcements::new(records.clone(), terms)));
        let registries = registries(config, &trust_domain, announcements.as_ref())?;
        let names: Vec<_> = registries.iter().map(|registry| registry.name().clone()).collect();
        let with_policies = registries.iter().filter(|registry| registry.capabilities().configuration);
        let with_policies: Vec<_> = with_policies.map(|registry| registry.name().clone()).collect();
        let flow = flow(config, registries)?;
        let (snapshots, statuses, tables) = (flow.snapshots(), flow.statuses(), flow.tables());
        let handle = flow.handle();
        let past = journal.past().clone();
        let mut relay = Relay::new(journal).awaiting(with_policies);
        relay.restore(names.iter())?;
        let roster = Arc::new(Roster::default());
        let (views, states) = watch::channel(states::views_of(&statuses.load_full()));
        let shared = Shared {
            office: office.clone(),
            past,
            relay: relay.reader(),
            registries: names.iter().map(ToString::to_string).collect(),
            bundles: keeper.bundles(),
            tls: tls.clone(),
            roster: roster.clone(),
            announcements: announcements.clone(),
            states,
        };
        let listen = |what: String| move |source| HubError::Listen { what, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen(config.listen.to_string()))?;
        let address = listener.local_addr().map_err(listen(config.listen.to_string()))?;
        let config_of_tls = tls.hub_server_config(&SpiffeId::hub(&trust_domain));
        let door = Door { config: config_of_tls, trust_domain: trust_domain.to_string(), shared };

        let began = Instant::now();
        let eureka_api = {
            let (snapshots, statuses) = (snapshots.clone(), statuses.clone());
            eureka_api(config, Said { snapshots, statuses, tables }).await?
        };
        let gone = roster.clone();
        let page = Page {
            folder,
            office,
            roster,
            announcements: announcements.clone(),
            shares_store: config.store != StoreConfig::Embedded,
            statuses: statuses.clone(),
            snapshots: snapshots.clone(),
            flow: handle,
            began,
        };
        let admin = admin(config, Arc::new(page)).await?;
        let (stop_flow, stopped) = oneshot::channel::<()>();
        let flow = tokio::spawn(flow.run(async {
            let _stopped = stopped.await;
        }));
        let mut tasks = vec![
            tokio::spawn(keeper.keep()),
            tokio::spawn(file.keep_settled()),
            tokio::spawn(follow(relay, snapshots)),
            tokio::spawn(states::follow(statuses, views)),
            tokio::spawn(departed::follow(records, gone)),
            tokio::spawn(accept(listener, door)),
        ];
        tasks.extend(announcements.map(|announcements| tokio::spawn(announcements.keep())));
        tracing::info!(%address, %trust_domain, "the hub serves");
        Ok(Self { address, stop_flow, flow, tasks, _admin: admin, _eureka_api: eureka_api })
    }

    /// Where it listens; of use with port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, and writes what is unsaved. Agents go on from what they hold.
    pub async fn stop(self) {
        for task in &self.tasks {
            task.abort();
        }
        // It may have ended by itself.
        let _told = self.stop_flow.send(());
        if let Err(error) = self.flow.await {
            tracing::error!(%error, "the flow did not end well");
        }
    }
}

/// Opens the hub's own file. An operator's verb may hold it for a moment while no hub runs.
async fn open_file(state_dir: &Path) -> Result<HubFile, FileFault> {
    let deadline = Instant::now() + OPERATOR_IS_DONE_WITHIN;
    loop {
        match HubFile::open(state_dir) {
            Err(FileFault::InUse(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            file => return file,
        }
    }
}

/// The records, where the configuration says that they lie.
async fn records(config: &HubConfig, file: Arc<HubFile>, mesh: &TrustDomain) -> Result<Records, StoreError> {
    let own = EmbeddedStore::in_file(file.clone())?;
    let StoreConfig::Shared { prefix, server } = &config.store else {
        if let Some(place) = file.say_shared(None)? {
            tracing::warn!(%place, "the records were kept elsewhere; this hub knows only those in its own file");
        }
        return Ok(Records::new(Arc::new(own)));
    };
    let records = Records::new(store::shared(prefix, server, mesh)?);
    let taken = records.take_over(&own).await?;
    if taken > 0 {
        tracing::info!(taken, "the records of this hub's own file were taken over into the shared store");
    }
    let place = records.store().describe();
    file.say_shared(Some(&place))?;
    tracing::info!(%place, "the records are shared");
    Ok(records)
}

/// The registries in the order of the file, and after them what nodes announce.
fn registries(
    config: &HubConfig,
    mesh: &TrustDomain,
    announcements: Option<&Arc<Announcements>>,
) -> Result<Vec<Arc<dyn Registry>>, BuildError> {
    let environment = Environment { trust_domain: Some(mesh.clone()), ..Environment::default() };
    let followed = config.registries.iter().map(|plan| plan.build(&environment));
    let announced = announcements.map(|it| Ok(Arc::new(AnnouncedRegistry(it.clone())) as Arc<dyn Registry>));
    followed.chain(announced).collect()
}

fn flow(config: &HubConfig, registries: Vec<Arc<dyn Registry>>) -> Result<Flow, HubError> {
    let state_dir: PathBuf = config.state_dir.join("registries");
    make_private_folder(&state_dir)?;
    let source = |registry: Arc<dyn Registry>| {
        let plan = config.registries.iter().find(|plan| plan.name.value == *registry.name());
        Source { limits: plan.map(|plan| plan.limits.clone()).unwrap_or_default(), ..Source::new(registry) }
    };
    let sources = registries.into_iter().map(source).collect();
    Ok(Flow::new(FlowConfig { state_dir: Some(state_dir), ..FlowConfig::new(sources) }))
}

/// Brings every snapshot into the relay. The journal's writes block, so they have a thread of their own.
async fn follow(mut relay: Relay, mut snapshots: Reader<Snapshot>) {
    loop {
        let snapshot = snapshots.load_full();
        let taken = tokio::task::spawn_blocking(move || {
            let outcome = relay.take(&snapshot);
            (relay, outcome)
        });
        let Ok((kept, outcome)) = taken.await else { return };
        relay = kept;
        if let Err(fault) = outcome {
            tracing::error!(%fault, "the relay could not be brought up to date");
            tokio::time::sleep(JOURNAL_PAUSE).await;
        } else if !snapshots.changed().await {
            return;
        }
    }
}

async fn eureka_api(config: &HubConfig, said: Said) -> Result<Option<EurekaApi>, HubError> {
    let Some(EurekaApiConfig { listen }) = config.eureka_api else { return Ok(None) };
    let surroundings = Surroundings::of_registries(&config.registries);
    let served = EurekaApi::serve(listen, said, surroundings).await;
    served.map(Some).map_err(|source| HubError::Listen { what: listen.to_string(), source })
}

async fn admin(config: &HubConfig, page: Arc<Page>) -> Result<Vec<Admin>, HubError> {
    let mut served = Vec::new();
    let own = operator_socket(&config.state_dir);
    for socket in [&own, &config.admin.socket] {
        let mut admin = Admin::new();
        let full = Arc::new(Operator(page.clone()));
        let listen = |source| HubError::Listen { what: socket.display().to_string(), source };
        admin.serve_unix(socket, full).map_err(listen)?;
        served.push(admin);
    }
    if let Some(address) = config.admin.listen {
        let mut admin = Admin::new();
        let listen = |source| HubError::Listen { what: address.to_string(), source };
        admin.serve_tcp(address, page).await.map_err(listen)?;
        served.push(admin);
    }
    Ok(served)
}
