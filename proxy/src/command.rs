//! What workers are told, and how they tell each other.

use std::{
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use weft_core::workload::Source;

use crate::{
    config::{AllowedLocal, OutboundKind},
    connections::ConnectionInfo,
    dial::Caller,
    slots::{Place, Places},
    socket::Socket,
};

/// Names a listener within the process.
pub(crate) type ListenerId = u64;

/// What a listener is for.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// The mesh port.
    Inbound,
    /// A workload's way out.
    Outbound(Arc<OutboundRole>),
}

impl Role {
    /// For people: the workload, or the mesh port.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Inbound => "the mesh port",
            Self::Outbound(role) => role.caller.workload.name.as_str(),
        }
    }
}

/// What an outbound listener is for.
#[derive(Debug)]
pub(crate) struct OutboundRole {
    /// In whose name calls are made.
    pub(crate) caller: Arc<Caller>,
    /// The same, as records name it.
    pub(crate) source: Source,
    /// How the destination is found.
    pub(crate) kind: OutboundKind,
    /// Which local processes may connect.
    pub(crate) allowed: AllowedLocal,
}

/// A connection on its way to another worker.
#[derive(Debug)]
pub(crate) enum Handoff {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept on this listening socket too, as many as there are places.
    Listen(ListenerId, Role, Socket, Arc<Places>),
    /// Stop accepting there. If true, what was accepted drains: it is not that workload's any more.
    Unlisten(ListenerId, bool),
    /// Serve a connection that another worker accepted. It carries its role, for the listener may be gone by then.
    Serve(ListenerId, Role, Handoff, Place),
    /// Begin to drain, and close what is left after the deadline. The answer comes when nothing is left: how many
    /// connections were closed at the deadline.
    Drain(Duration, oneshot::Sender<u32>),
    /// List the connections of the pools.
    Connections(oneshot::Sender<Vec<ConnectionInfo>>),
    /// How answers of our own look from now on.
    FaultHeader(bool),
    /// End at once.
    Stop,
}

/// How many connections a worker has; on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Load(AtomicU32);

impl Load {
    /// Connections now.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub(crate) fn increase(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn decrease(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The other end of every worker, for handing connections over and for telling all.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    /// By worker.
    pub(crate) commands: Arc<[mpsc::Sender<Command>]>,
    /// By worker.
    pub(crate) loads: Arc<[Load]>,
}
