//! Whether a node may announce something. Pure.

use weft_core::{
    control::{ControlError, message::RefusalCode},
    identity::{SYSTEM_NAMESPACE, SpiffeId},
    name::ServiceName,
    registry::LocalInstance,
    resource::{Address, Endpoint, TlsMode},
};
use weft_registries::address::endpoint_address;

use crate::hub::{
    records::{AnnouncementRecord, KeepFault, is_of_node},
    store::StoreError,
};

/// How many labels an announcement may have, and how long each may be, in bytes.
const MOST_LABELS: (usize, usize) = (64, 256);

/// Why something is not announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceRefusal {
    /// The node's token does not say so.
    #[error("node {node} was not granted {identity}, and so cannot announce it")]
    NotGranted {
        /// Who announced.
        node: String,
        /// As whom.
        identity: String,
    },
    /// Another node's name.
    #[error("instance `{instance}` is not node {node}'s: its instances are called `{node}` or `{node}.…`")]
    NotItself {
        /// Who announced.
        node: String,
        /// What.
        instance: String,
    },
    /// The service is another identity's.
    #[error(
        "service `{service}` is announced as {theirs} by node {owner}: node {node} cannot announce it as {ours}"
    )]
    Conflict {
        /// Which service.
        service: ServiceName,
        /// By whom it was announced first.
        owner: String,
        /// As whom.
        theirs: String,
        /// Who announced now.
        node: String,
        /// As whom.
        ours: String,
    },
    /// Another node announces this very instance.
    #[error("`{instance}` is announced by node {owner}: node {node} cannot announce it too")]
    Taken {
        /// What.
        instance: String,
        /// By whom it was announced first.
        owner: String,
        /// Who announced now.
        node: String,
    },
    /// It cannot be called, or not by others.
    #[error("{0}")]
    Unfit(String),
    /// The message makes no sense.
    #[error(transparent)]
    Message(#[from] ControlError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AnnounceRefusal {
    /// Why an announcement of a node's instance was not kept.
    pub(super) fn of(fault: KeepFault, node: &str, endpoint: &Endpoint) -> Self {
        match fault {
            KeepFault::Taken(owner) => {
                Self::Taken { instance: endpoint.instance.to_string(), owner, node: node.to_owned() }
            }
            KeepFault::Store(fault) => Self::Store(fault),
        }
    }

    /// As the protocol says it.
    #[must_use]
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::NotGranted { .. } | Self::NotItself { .. } => RefusalCode::NotGranted,
            Self::Conflict { .. } | Self::Taken { .. } => RefusalCode::Conflict,
            Self::Unfit(_) | Self::Message(_) => RefusalCode::Malformed,
            Self::Store(_) => RefusalCode::Unavailable,
        }
    }
}

/// Judges an announcement by itself.
///
/// # Errors
/// Names what it may not be.
pub(super) fn alone(
    node: &str,
    granted: &[SpiffeId],
    instance: &LocalInstance,
    allow_loopback: bool,
) -> Result<(), AnnounceRefusal> {
    let endpoint = &instance.endpoint;
    let name = endpoint.instance.as_str();
    if !is_of_node(name, node) {
        let (node, instance) = (node.to_owned(), name.to_owned());
        return Err(AnnounceRefusal::NotItself { node, instance });
    }
    let unfit = |reason: &str| Err(AnnounceRefusal::Unfit(format!("`{name}`: {reason}")));
    let Some(identity) = &endpoint.identity else { return unfit("it names no identity") };
    if identity.namespace() == SYSTEM_NAMESPACE || !granted.contains(identity) {
        let (node, identity) = (node.to_owned(), identity.to_string());
        return Err(AnnounceRefusal::NotGranted { node, identity });
    }
    let (Some(mesh), TlsMode::Required) = (&endpoint.mesh_address, endpoint.tls) else {
        return unfit("it speaks no mesh");
    };
    for address in [mesh, &endpoint.address].map(Address::socket) {
        let fit = endpoint_address(address.ip(), address.port().into(), allow_loopback);
        if let Err(reason) = fit {
            return unfit(&reason.replace("on the registry", "in the hub's [announcements]"));
        }
    }
    let is_long = |text: &str| text.len() > MOST_LABELS.1;
    if endpoint.labels.len() > MOST_LABELS.0
        || endpoint.labels.iter().any(|(key, value)| is_long(key) || is_long(value))
    {
        return unfit("it has more than 64 labels, or longer ones than 256 bytes");
    }
    Ok(())
}

/// Judges it beside all that is announced of its service, and by whose the service is: that of who announced it first.
///
/// # Errors
/// Names the node that was there before.
pub(super) fn beside<'a>(
    node: &str,
    key: &str,
    endpoint: &Endpoint,
    of_service: impl Iterator<Item = (&'a String, &'a AnnouncementRecord)>,
) -> Result<(), AnnounceRefusal> {
    let others = of_service.filter(|(other, _)| *other != key).map(|(_, record)| record);
    let theirs = |record: &&AnnouncementRecord| record.instance.endpoint.identity != endpoint.identity;
    match others.min_by_key(|record| record.since).filter(theirs) {
        Some(owner) => Err(conflict(node, endpoint, &owner.node, owner.instance.endpoint.identity.as_ref())),
        None => Ok(()),
    }
}

/// That a service is another identity's.
pub(super) fn conflict(
    node: &str,
    endpoint: &Endpoint,
    owner: &str,
    theirs: Option<&SpiffeId>,
) -> AnnounceRefusal {
    let text = |identity: Option<&SpiffeId>| identity.map(ToString::to_string).unwrap_or_default();
    AnnounceRefusal::Conflict {
        service: endpoint.service.clone(),
        owner: owner.to_owned(),
        theirs: text(theirs),
        node: node.to_owned(),
        ours: text(endpoint.identity.as_ref()),
    }
}
