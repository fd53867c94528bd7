//! Listening sockets: one per port, known to every worker; who accepts may hand the connection to the worker that has
//! the fewest.
//!
//! Accepting never ends and never spins: a peer's error is ignored, a lack of resources waits. When a listener is
//! removed, what the kernel queued on it is accepted first: closing the socket would reset those connections.

use std::{collections::HashMap, io, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::oneshot,
    time::sleep,
};

use crate::{
    command::{Command, Handoff, ListenerId, Role},
    executor::LocalExecutor,
    inbound, outbound,
    quiet::About,
    signal::{DRAINING, PARTING, Signal},
    slots::{Place, Places},
    socket::Socket,
    stream::LocalStream,
    worker::Worker,
};

/// How long a lack of file descriptors or memory is waited for.
const RESOURCES: Duration = Duration::from_millis(100);
/// How long a connection without a request may wait for one while the worker drains, and at most half of the deadline:
/// a caller that is about to send one cannot know that it may not, and one that got an answer was told.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
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

/// What a listener's connections are for.
#[derive(Clone)]
pub(crate) struct Purpose {
    id: ListenerId,
    role: Role,
    /// Raised when they drain.
    drain: Rc<Signal>,
}

/// A worker's listeners.
#[derive(Default)]
pub(crate) struct Listeners {
    /// Each accepts until its sender is dropped.
    active: HashMap<ListenerId, (Purpose, oneshot::Sender<()>)>,
}

impl Listeners {
    /// Begins to accept.
    pub(crate) fn add(
        &mut self,
        worker: &Rc<Worker>,
        id: ListenerId,
        role: Role,
        socket: Socket,
        places: Arc<Places>,
    ) {
        let listener = match LocalListener::new(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a listening socket could not be registered");
                return;
            }
        };
        let (stop, stopped) = oneshot::channel();
        let purpose = Purpose { id, role, drain: worker.way_out() };
        self.active.insert(id, (purpose.clone(), stop));
        LocalExecutor.spawn(accept(worker.clone(), listener, purpose, places, stopped));
    }

    /// Stops accepting, after what is queued. With `parting`, what was accepted drains, as when the worker does, but
    /// without a deadline.
    pub(crate) fn remove(&mut self, id: ListenerId, parting: bool) {
        if let Some((Purpose { drain, .. }, _stopped)) = self.active.remove(&id)
            && parting
        {
            drain.raise(DRAINING);
            LocalExecutor.spawn(async move {
                sleep(GRACE).await;
                drain.raise(PARTING);
            });
        }
    }

    /// Stops accepting everywhere.
    pub(crate) fn clear(&mut self) {
        self.active.clear();
    }

    /// What a connection that another worker accepted is for. The listener may be gone by then: its connection is told
    /// so with its first answer.
    pub(crate) fn purpose(&self, worker: &Worker, id: ListenerId, role: Role) -> Purpose {
        match self.active.get(&id) {
            Some((purpose, _)) => purpose.clone(),
            None => {
                let drain = worker.way_out();
                drain.raise(DRAINING);
                Purpose { id, role, drain }
            }
        }
    }
}

async fn accept(
    worker: Rc<Worker>,
    listener: LocalListener,
    purpose: Purpose,
    places: Arc<Places>,
    mut stopped: oneshot::Receiver<()>,
) {
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
            Ok(stream) => place(&worker, &purpose, &places, stream),
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
fn place(worker: &Rc<Worker>, purpose: &Purpose, places: &Arc<Places>, stream: LocalStream) {
    let loads = &worker.peers.loads;
    let limit = worker.limits.connections;
    let Some(place) = places.take(limit) else {
        if let Some(kept_back) = worker.dialer.quiet.admit(About::Connections(purpose.id)) {
            let listener = purpose.role.name();
            tracing::warn!(%listener, limit, kept_back, "a connection is closed: there are as many as there may be");
        }
        return;
    };
    let fewest = (0..loads.len()).min_by_key(|&index| loads[index].get()).unwrap_or(worker.index);
    if fewest == worker.index || loads[worker.index].get() <= loads[fewest].get() + UNEVEN {
        return serve(worker, purpose, stream, place);
    }
    let handoff = match stream {
        LocalStream::Tcp(stream) => stream.into_std().map(Handoff::Tcp),
        LocalStream::Unix(stream) => stream.into_std().map(Handoff::Unix),
    };
    let Ok(handoff) = handoff else { return };
    // A full channel means that the other worker is busier than its count says.
    if let Err(refused) = worker.peers.commands[fewest].try_send(Command::Serve(
        purpose.id,
        purpose.role.clone(),
        handoff,
        place,
    )) && let Command::Serve(_, _, handoff, place) = refused.into_inner()
    {
        adopt(worker, purpose, handoff, place);
    }
}

/// Serves a connection that was accepted by another worker.
pub(crate) fn adopt(worker: &Rc<Worker>, purpose: &Purpose, handoff: Handoff, place: Place) {
    let stream = match handoff {
        Handoff::Tcp(stream) => TcpStream::from_std(stream).map(LocalStream::Tcp),
        Handoff::Unix(stream) => UnixStream::from_std(stream).map(LocalStream::Unix),
    };
    if let Ok(stream) = stream {
        serve(worker, purpose, stream, place);
    }
}

fn serve(worker: &Rc<Worker>, purpose: &Purpose, stream: LocalStream, place: Place) {
    let counted = worker.count();
    match &purpose.role {
        Role::Outbound(role) => {
            let (role, drain) = (role.clone(), purpose.drain.clone());
            LocalExecutor.spawn(outbound::serve(worker.clone(), role, drain, stream, counted, place));
        }
        Role::Inbound => {
            if let LocalStream::Tcp(stream) = stream {
                LocalExecutor.spawn(inbound::serve(worker.clone(), stream, counted, place));
            }
        }
    }
}
