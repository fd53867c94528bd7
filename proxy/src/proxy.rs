//! The proxy as its owner sees it: started, reloaded, drained.

use std::{collections::BTreeMap, io, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::{mpsc, oneshot};
use weft_core::{
    name::WorkloadName,
    publish::Reader,
    table::Table,
    tls::{Credentials, TlsContext},
    workload::Source,
};

use crate::{
    command::{Command, ListenerId, Load, OutboundRole, Peers, Role},
    config::{ListenAddress, ProxyConfig},
    connections::ConnectionInfo,
    dial::{Caller, Dialer},
    inspector::Inspector,
    record::{Records, TapReceiver},
    run::{self, Start},
    slots::Places,
    socket::Socket,
};

/// Commands that may wait for a worker.
const COMMANDS: usize = 1024;

/// A running proxy. Dropped without a drain, it ends at once.
#[derive(Debug)]
pub struct Proxy {
    peers: Peers,
    threads: Vec<JoinHandle<()>>,
    listeners: BTreeMap<Key, Listening>,
    callers: Callers,
    config: ProxyConfig,
    records: Arc<Records>,
    /// Of the mesh port, whatever its addresses.
    mesh_places: Arc<Places>,
    next: u64,
}

type Callers = BTreeMap<WorkloadName, Arc<Caller>>;

/// What makes two listeners of successive configurations the same: purpose and configured address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Inbound(ListenAddress),
    Outbound(WorkloadName, ListenAddress),
}

#[derive(Debug)]
struct Listening {
    id: ListenerId,
    role: Role,
    socket: Socket,
}

/// Where a proxy listens, with the ports that the system chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The mesh port's addresses.
    pub inbound: Vec<ListenAddress>,
    /// By workload, in the order of configured addresses.
    pub outbound: Vec<(WorkloadName, ListenAddress)>,
}

/// Why the proxy cannot start, or take a configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be made.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: ListenAddress,
        /// Why.
        source: io::Error,
    },
    /// A thread could not be made.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
    /// The access log could not be opened.
    #[error("cannot open the access log")]
    AccessLog(#[source] io::Error),
    /// The configuration has no workers.
    #[error("a proxy needs at least one worker")]
    NoWorkers,
}

impl Proxy {
    /// Binds all listeners and starts the workers.
    ///
    /// # Errors
    /// When a listener cannot be bound or a thread not be made; nothing is left running then.
    pub fn start(
        config: ProxyConfig,
        table: Reader<Table>,
        credentials: Reader<Credentials>,
    ) -> Result<Self, StartError> {
        if config.workers == 0 {
            return Err(StartError::NoWorkers);
        }
        let (commands, receivers): (Vec<_>, Vec<_>) =
            (0..config.workers).map(|_| mpsc::channel(COMMANDS)).unzip();
        let loads = (0..config.workers).map(|_| Load::default()).collect();
        let peers = Peers { commands: commands.into(), loads };
        let records = Arc::new(Records::new(&config.access_log).map_err(StartError::AccessLog)?);
        let start = Start {
            peers: peers.clone(),
            records: records.clone(),
            table,
            dialer: Dialer {
                tls: Arc::new(TlsContext::new(credentials.clone())),
                credentials,
                quiet: Arc::default(),
            },
            limits: config.limits,
            slots: Arc::default(),
            fault_header: config.fault_header,
        };
        let mut this = Self {
            peers,
            threads: Vec::new(),
            listeners: BTreeMap::new(),
            callers: BTreeMap::new(),
            config: ProxyConfig { workloads: Vec::new(), inbound: None, ..config.clone() },
            records,
            mesh_places: Arc::default(),
            next: 0,
        };
        for (index, commands) in receivers.into_iter().enumerate() {
            let start = start.clone();
            let thread = std::thread::Builder::new().name(format!("weft-worker-{index}"));
            let run = move || {
                if let Err(error) = run::run(index, start, commands) {
                    tracing::error!(%error, "a worker could not start");
                }
            };
            this.threads.push(thread.spawn(run).map_err(StartError::Worker)?);
        }
        this.reload(config)?;
        Ok(this)
    }

    /// Adds and removes listeners; those that stay are not touched. The number of workers stays what it was.
    ///
    /// # Errors
    /// When a new listener cannot be bound; nothing is changed then.
    pub fn reload(&mut self, config: ProxyConfig) -> Result<(), StartError> {
        let (wanted, callers) = self.wanted(&config);
        let mut added = Vec::new();
        for (key, role) in &wanted {
            let unchanged = self.listeners.get(key).is_some_and(|old| same_role(&old.role, role));
            if !unchanged {
                added.push((key.clone(), role.clone(), self.socket(key)?));
            }
        }
        let gone: Vec<_> = self.listeners.keys().filter(|key| !wanted.contains_key(key)).cloned().collect();
        let replaced = added.iter().map(|(key, ..)| key.clone());
        for key in gone.into_iter().chain(replaced) {
            if let Some(old) = self.listeners.remove(&key) {
                // Who came by a listener that is gone stays, as long as the workload does.
                let parting = wanted.contains_key(&key) || !is_caller_kept(&old.role, &callers);
                self.tell(|| Command::Unlisten(old.id, parting));
            }
        }
        for (key, role, socket) in added {
            self.listen(key, role, socket)?;
        }
        self.callers = callers;
        let fault_header = config.fault_header;
        self.tell(|| Command::FaultHeader(fault_header));
        self.config = config;
        Ok(())
    }

    /// A listener whose role changed keeps its socket, so that nothing queued on it is lost.
    fn socket(&self, key: &Key) -> Result<Socket, StartError> {
        let (Key::Inbound(address) | Key::Outbound(_, address)) = key;
        let socket = match self.listeners.get(key) {
            Some(old) => old.socket.try_clone(),
            None => Socket::bind(address),
        };
        socket.map_err(|source| StartError::Listen { address: address.clone(), source })
    }

    /// The listeners that a configuration asks for, and the callers behind them: those that are unchanged stay the same.
    fn wanted(&mut self, config: &ProxyConfig) -> (BTreeMap<Key, Role>, Callers) {
        let (mut wanted, mut callers) = (BTreeMap::new(), Callers::new());
        for address in config.inbound.iter().flat_map(|inbound| &inbound.listen) {
            wanted.insert(Key::Inbound(ListenAddress::Tcp(*address)), Role::Inbound);
        }
        for listeners in &config.workloads {
            let workload = &listeners.workload;
            let same = |caller: &Arc<Caller>| caller.workload == *workload;
            let caller = self.callers.get(&workload.name).filter(|caller| same(caller)).cloned();
            let caller = caller.unwrap_or_else(|| {
                self.next += 1;
                Arc::new(Caller { number: self.next, workload: workload.clone() })
            });
            callers.insert(workload.name.clone(), caller.clone());
            for listener in &listeners.outbound {
                let source = Source {
                    workload: Some(workload.name.clone()),
                    identity: workload.identity.clone(),
                    labels: workload.labels.clone(),
                };
                let (kind, allowed) = (listener.kind.clone(), listener.allowed.clone());
                let role = OutboundRole { caller: caller.clone(), source, kind, allowed };
                let key = Key::Outbound(workload.name.clone(), listener.address.clone());
                wanted.insert(key, Role::Outbound(Arc::new(role)));
            }
        }
        (wanted, callers)
    }

    fn listen(&mut self, key: Key, role: Role, socket: Socket) -> Result<(), StartError> {
        self.next += 1;
        let id = self.next;
        let places = if matches!(role, Role::Inbound) { self.mesh_places.clone() } else { Arc::default() };
        for commands in self.peers.commands.iter() {
            let shared = socket.try_clone().map_err(StartError::Worker)?;
            send(commands, Command::Listen(id, role.clone(), shared, places.clone()));
        }
        self.listeners.insert(key, Listening { id, role, socket });
        Ok(())
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for commands in self.peers.commands.iter() {
            send(commands, command());
        }
    }

    /// For looking at it from elsewhere while it runs.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector {
            peers: self.peers.clone(),
            records: self.records.clone(),
            metric_prefix: self.config.metric_prefix.clone(),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let mut addresses = Addresses::default();
        for (key, listening) in &self.listeners {
            let Some(address) = listening.socket.address() else { continue };
            match key {
                Key::Inbound(_) => addresses.inbound.push(address),
                Key::Outbound(workload, _) => addresses.outbound.push((workload.clone(), address)),
            }
        }
        addresses
    }

    /// The pooled connections to other agents, of all workers.
    pub async fn connections(&self) -> Vec<ConnectionInfo> {
        self.inspector().connections().await
    }

    /// All metrics in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.inspector().metrics()
    }

    /// Shows every request from now on.
    #[must_use]
    pub fn tap(&self) -> TapReceiver {
        self.inspector().tap()
    }

    /// Metrics, access log and tap, to be read without the proxy.
    #[must_use]
    pub fn records(&self) -> Arc<Records> {
        self.records.clone()
    }

    /// Connections of local processes and of other agents that are served now.
    #[must_use]
    pub fn load(&self) -> u32 {
        self.inspector().load()
    }

    /// Stops accepting and waits until all that is under way is done, at most until `deadline`; what is left then is
    /// closed politely. Returns how many connections that were.
    pub async fn drain(&mut self, deadline: Duration) -> u32 {
        self.listeners.clear();
        let mut answers = Vec::new();
        for commands in self.peers.commands.iter() {
            let (done, answer) = oneshot::channel();
            if commands.send(Command::Drain(deadline, done)).await.is_ok() {
                answers.push(answer);
            }
        }
        let mut cut = 0;
        for answer in answers {
            cut += answer.await.unwrap_or(0);
        }
        cut
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tell(|| Command::Stop);
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// Whether the workload of a listener is what it was.
fn is_caller_kept(role: &Role, callers: &Callers) -> bool {
    let Role::Outbound(role) = role else { return true };
    callers.get(&role.caller.workload.name).is_some_and(|caller| Arc::ptr_eq(caller, &role.caller))
}

/// The same purpose in the same hands: a listener that is so need not be touched.
fn same_role(old: &Role, new: &Role) -> bool {
    match (old, new) {
        (Role::Inbound, Role::Inbound) => true,
        (Role::Outbound(old), Role::Outbound(new)) => {
            Arc::ptr_eq(&old.caller, &new.caller) && old.kind == new.kind && old.allowed == new.allowed
        }
        _ => false,
    }
}

/// Commands come one at a time from one owner, so the channel has room unless connections are handed over faster than a
/// worker takes them; then it has room again soon.
fn send(commands: &mpsc::Sender<Command>, mut command: Command) {
    loop {
        match commands.try_send(command) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
            Err(mpsc::error::TrySendError::Full(back)) => {
                command = back;
                std::thread::yield_now();
            }
        }
    }
}
