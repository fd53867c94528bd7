//! Where a relay's stream goes on after a disconnect.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::{ControlError, MOST_SCOPES, error::named, message};
use crate::{
    name::RegistryName,
    registry::{Resume, Scope},
};

/// How far an agent has come in each scope that a hub relays to it.
///
/// One blob speaks for all scopes, so that a driver which keeps only the latest never skips what another scope had
/// still to say. Positions mean something only within the epoch (the store) of the hub that gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResumePoint {
    /// Which hub store the positions belong to.
    pub epoch: Bytes,
    /// The position of each scope, sorted by scope.
    pub positions: Vec<(Scope, u64)>,
    /// Which part of the hub's services they are about, as a digest; 0 for all.
    pub part: u64,
    /// Which life of that store told the last of them; empty where its hub says none.
    pub life: Bytes,
}

impl ResumePoint {
    /// Notes that a scope is known up to `position`.
    pub fn advance(&mut self, scope: &Scope, position: u64) {
        match self.positions.binary_search_by(|(known, _)| known.cmp(scope)) {
            Ok(at) => self.positions[at].1 = position,
            Err(at) => self.positions.insert(at, (scope.clone(), position)),
        }
    }

    /// As the registry contract carries it.
    #[must_use]
    pub fn to_resume(&self) -> Resume {
        Resume(self.to_message().encode_to_vec().into())
    }

    /// Reads what [`Self::to_resume`] made.
    ///
    /// # Errors
    /// When the bytes are not such a blob: a full list is needed then.
    pub fn from_resume(resume: &Resume) -> Result<Self, ControlError> {
        Self::from_message(message::ResumePoint::decode(resume.0.clone())?)
    }

    /// As it is on the wire.
    #[must_use]
    pub fn to_message(&self) -> message::ResumePoint {
        let position = |(scope, position): &(Scope, u64)| message::ScopePosition {
            registry: scope.registry.to_string(),
            part: scope.part.to_string(),
            position: *position,
        };
        message::ResumePoint {
            epoch: self.epoch.clone(),
            positions: self.positions.iter().map(position).collect(),
            part: self.part,
            life: self.life.clone(),
        }
    }

    /// Checks a resume point of the other side.
    ///
    /// # Errors
    /// When a registry's name breaks its rule, or there are more than [`MOST_SCOPES`].
    pub fn from_message(message: message::ResumePoint) -> Result<Self, ControlError> {
        let count = message.positions.len();
        if count > MOST_SCOPES {
            return Err(ControlError::TooMany { field: "positions", count });
        }
        let mut positions = BTreeMap::new();
        for entry in message.positions {
            let registry = named("registry", RegistryName::new(&entry.registry))?;
            positions.insert(Scope { registry, part: entry.part.into() }, entry.position);
        }
        let positions = positions.into_iter().collect();
        Ok(Self { epoch: message.epoch, positions, part: message.part, life: message.life })
    }
}
