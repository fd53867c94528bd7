//! How a local instance is announced at the hub: over the agent's one stream.
//!
//! The open stream is what keeps it there. So it is announced anew on every stream, at once, and never renewed on one that
//! stands; what the hub answers is on its disk.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use weft_core::{
    control::{
        announcement::{announcement_key, encode_announcement},
        message::RefusalCode,
    },
    registry::{LocalInstance, RegistryError},
};

use super::link::{CertificateFault, HubLink, LinkState};
use crate::announcing::Place;

/// How often an announcement is looked after: that the stream stands is known without a word.
const LOOKED_AFTER: Duration = Duration::from_secs(5);
/// When the hub is asked again that refused one.
const REFUSED: Duration = Duration::from_secs(60);

/// The hub.
pub(super) struct HubPlace {
    link: HubLink,
    state: watch::Receiver<LinkState>,
    /// Since when the stream stands on which it was last announced, or tried to be.
    stream: Option<SystemTime>,
}

impl HubPlace {
    pub(super) fn new(link: HubLink) -> Self {
        Self { state: link.state(), link, stream: None }
    }

    fn standing(&self) -> Option<SystemTime> {
        since(&self.state.borrow())
    }
}

impl Place for HubPlace {
    fn name(&self) -> &str {
        "the hub"
    }

    fn renewed_every(&self) -> Duration {
        LOOKED_AFTER
    }

    fn refused_pause(&self) -> Duration {
        REFUSED
    }

    async fn announce(&mut self, instance: &LocalInstance) -> Result<(), RegistryError> {
        self.stream = self.standing();
        self.link.announce(encode_announcement(instance)).await.map_err(fault)
    }

    async fn renew(&mut self, _instance: &LocalInstance) -> Result<bool, RegistryError> {
        match &*self.state.borrow() {
            LinkState::Connected { since, .. } => Ok(self.stream == Some(*since)),
            LinkState::Connecting => Err(RegistryError::Unreachable("the hub has not answered yet".into())),
            LinkState::Away { reason, .. } => Err(RegistryError::Unreachable(reason.clone())),
        }
    }

    async fn withdraw(&mut self, instance: &LocalInstance) -> Result<(), RegistryError> {
        self.link.withdraw(announcement_key(&instance.endpoint)).await.map_err(fault)
    }

    /// The link says so, once for all; and what broke with the former stream is announced on the one that stands.
    fn is_known_away(&self) -> bool {
        self.standing().is_none() || self.standing() != self.stream
    }

    /// A new stream knows nothing of what was announced on the former one.
    async fn stirred(&mut self) {
        let known = self.stream;
        let another = |state: &LinkState| since(state).is_some_and(|since| Some(since) != known);
        if self.state.wait_for(another).await.is_err() {
            // The link has ended, and so will the lease.
            std::future::pending::<()>().await;
        }
    }
}

/// Since when a stream stands; none while there is none.
pub(super) fn since(state: &LinkState) -> Option<SystemTime> {
    match state {
        LinkState::Connected { since, .. } => Some(*since),
        LinkState::Connecting | LinkState::Away { .. } => None,
    }
}

fn fault(fault: CertificateFault) -> RegistryError {
    match fault {
        CertificateFault::Away(reason) => RegistryError::Unreachable(reason),
        CertificateFault::Refused { code, message } => match code {
            RefusalCode::NotGranted | RefusalCode::Conflict => RegistryError::Denied(message),
            RefusalCode::Malformed | RefusalCode::Version => RegistryError::Malformed(message),
            _ => RegistryError::Unreachable(message),
        },
    }
}
