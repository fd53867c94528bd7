//! Listening sockets: one per port, known to every worker; who accepts may hand the connection to the worker that has
//! the fewest.
//!
//! Accepting never ends and never spins: a peer's error is ignored, a lack of resources waits. When a listener is
//! removed, what the kernel queued on it is accepted first: closing the socket would reset those connections.

use std::{collections::HashMap, io, rc::Rc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::oneshot,
};

use crate::{
    command::{Command, Handoff, ListenerId, Load, Role},
    executor::LocalExecutor,
    inbound, outbound,
    quiet::About,
    socket::Socket,
    stream::LocalStream,
    worker::Worker,
};

/// How long a lack of file descriptors or memory is waited for.
const RESOURCES: Duration = Duration::from_millis(100);
/// How many more connections than another worker a worker keeps before it hands one over.
const UNEVEN: u32 = 1;

enum LocalListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl LocalListener {
    fn new(socket: Socket) -> io::Result<Self> {
        match socket {
            Socket::Tcp(socket) => TcpListener::from_std(socket).map(Self::Tcp),
            Socket::Unix(socket) => UnixListener::from_std(socket).map(Self::Unix),
        }
    }

    async fn accept(&self) -> io::Result<LocalStream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| LocalStream::Tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| LocalStream::Unix(stream)),
        }
    }
}

/// A worker's listeners.
#[derive(Default)]
pub(crate) struct Listeners {
    /// Each accepts until its sender is dropped.
    active: HashMap<ListenerId, oneshot::Sender<()>>,
}

impl Listeners {
    /// Begins to accept.
    pub(crate) fn add(&mut self, worker: &Rc<Worker>, id: ListenerId, role: Role, socket: Socket) {
        let listener = match LocalListener::new(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a listening socket could not be registered");
                return;
            }
        };
        let (stop, stopped) = oneshot::channel();
        self.active.insert(id, stop);
        LocalExecutor.spawn(accept(worker.clone(), listener, role, stopped));
    }

    /// Stops accepting, after what is queued.
    pub(crate) fn remove(&mut self, id: ListenerId) {
        self.active.remove(&id);
    }

    /// Stops accepting everywhere.
    pub(crate) fn clear(&mut self) {
        self.active.clear();
    }
}

async fn accept(worker: Rc<Worker>, listener: LocalListener, role: Role, mut stopped: oneshot::Receiver<()>) {
    let mut stopping = false;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            // Resolves when the sender is dropped. Once it has, only what is queued is taken.
            _ = &mut stopped, if !stopping => {
                stopping = true;
                continue;
            }
            () = std::future::ready(()), if stopping => return,
        };
        match accepted {
            Ok(stream) => place(&worker, &role, stream),
            Err(error) if is_peers(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting waits");
                tokio::time::sleep(RESOURCES).await;
            }
        }
    }
}

/// Errors of the connection that was to be accepted (accept(2)); they say nothing about the listener.
fn is_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable};
    use io::ErrorKind::{Interrupted, NetworkDown, NetworkUnreachable, TimedOut, WouldBlock};
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | TimedOut
            | WouldBlock
    )
}

/// Serves a connection here, or hands it to the worker that has the fewest.
fn place(worker: &Rc<Worker>, role: &Role, stream: LocalStream) {
    let loads = &worker.peers.loads;
    let limit = worker.limits.connections;
    if loads.iter().map(Load::get).fold(0, u32::saturating_add) >= limit {
        if let Some(kept_back) = worker.dialer.quiet.admit(About::Connections) {
            tracing::warn!(limit, kept_back, "a connection is closed: there are as many as there may be");
        }
        return;
    }
    let fewest = (0..loads.len()).min_by_key(|&index| loads[index].get()).unwrap_or(worker.index);
    if fewest == worker.index || loads[worker.index].get() <= loads[fewest].get() + UNEVEN {
        return serve(worker, role, stream);
    }
    let handoff = match stream {
        LocalStream::Tcp(stream) => stream.into_std().map(Handoff::Tcp),
        LocalStream::Unix(stream) => stream.into_std().map(Handoff::Unix),
    };
    let Ok(handoff) = handoff else { return };
    // A full channel means that the other worker is busier than its count says.
    if let Err(refused) = worker.peers.commands[fewest].try_send(Command::Serve(role.clone(), handoff))
        && let Command::Serve(_, handoff) = refused.into_inner()
    {
        adopt(worker, role, handoff);
    }
}

/// Serves a connection that was accepted by another worker.
pub(crate) fn adopt(worker: &Rc<Worker>, role: &Role, handoff: Handoff) {
    let stream = match handoff {
        Handoff::Tcp(stream) => TcpStream::from_std(stream).map(LocalStream::Tcp),
        Handoff::Unix(stream) => UnixStream::from_std(stream).map(LocalStream::Unix),
    };
    if let Ok(stream) = stream {
        serve(worker, role, stream);
    }
}

fn serve(worker: &Rc<Worker>, role: &Role, stream: LocalStream) {
    let counted = worker.count();
    match role {
        Role::Outbound(role) => {
            LocalExecutor.spawn(outbound::serve(worker.clone(), role.clone(), stream, counted));
        }
        Role::Inbound => {
            if let LocalStream::Tcp(stream) = stream {
                LocalExecutor.spawn(inbound::serve(worker.clone(), stream, counted));
            }
        }
    }
}
