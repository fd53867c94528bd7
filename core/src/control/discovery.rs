//! Events to messages and back.

mod endpoint;
mod strings;

use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use prost::Message as _;

use super::{ControlError, configuration, error::named, message};
use crate::{
    name::{OriginName, RegistryName},
    registry::{Completeness, Event, OriginFault, Scope, Version},
    resource::Resource,
};
use endpoint::{read_endpoint, read_service, write_endpoint, write_service};
use strings::{StringReader, StringWriter};

/// An origin's words, encoded once for all agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedReplace {
    /// The encoded [`message::Event`].
    pub event: Bytes,
    /// The version in it: the first eight bytes of the SHA-256 of the rest, so equal words have equal versions on
    /// every hub and after every restart.
    pub version: u64,
}

/// Encodes what an origin says now.
#[must_use]
pub fn encode_replace(origin: &str, resources: &[Resource], faults: &[OriginFault]) -> EncodedReplace {
    let mut strings = StringWriter::default();
    let mut replace = message::Replace { origin: origin.to_owned(), ..Default::default() };
    for resource in resources {
        match resource {
            Resource::Service(service) => replace.services.push(write_service(&mut strings, service)),
            Resource::Endpoint(endpoint) => replace.endpoints.push(write_endpoint(&mut strings, endpoint)),
            Resource::Route(route) => replace.routes.push(configuration::write_route(route)),
            Resource::Policy(policy) => replace.policies.push(configuration::write_policy(policy)),
        }
    }
    (replace.strings, replace.label_sets) = strings.finish();
    replace.faults = faults.iter().map(write_fault).collect();
    let digest = digest::digest(&digest::SHA256, &replace.encode_to_vec());
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    replace.version = Bytes::copy_from_slice(&first);
    EncodedReplace {
        event: encode(message::EventWord::Replace(Box::new(replace))),
        version: u64::from_be_bytes(first),
    }
}

/// Encodes the begin of a full list.
#[must_use]
pub fn encode_reset() -> Bytes {
    encode(message::EventWord::Reset(message::Reset {}))
}

/// Encodes the end of a full list.
#[must_use]
pub fn encode_ready(completeness: Completeness) -> Bytes {
    encode(message::EventWord::Ready(message::Ready { filtered: completeness == Completeness::Filtered }))
}

/// Encodes a commit of what a registry last confirmed `age` ago.
#[must_use]
pub fn encode_commit(position: u64, age: Duration) -> Bytes {
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    encode(message::EventWord::Commit(message::Commit { position, age_ms }))
}

fn encode(word: message::EventWord) -> Bytes {
    message::Event { word: Some(word) }.encode_to_vec().into()
}

/// A word of a relay, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relayed {
    /// An event that means the same wherever it came from.
    Event(Event),
    /// A commit; its resume point is put together by who reads the stream.
    Commit {
        /// The position, in the hub's count.
        position: u64,
        /// How long ago the hub's registry last said that this is so.
        age: Duration,
    },
}

/// The scope that a batch speaks of.
///
/// # Errors
/// When the registry's name breaks its rule.
pub fn read_scope(batch: &message::Discovery) -> Result<Scope, ControlError> {
    let registry = named("registry", RegistryName::new(&batch.registry))?;
    Ok(Scope { registry, part: batch.part.as_str().into() })
}

/// Reads one encoded event of `scope`.
///
/// # Errors
/// Names the first rule that the event breaks.
pub fn read_event(scope: &Scope, encoded: &Bytes) -> Result<Relayed, ControlError> {
    let event = message::Event::decode(encoded.clone())?;
    let scope = scope.clone();
    Ok(match event.word.ok_or(ControlError::Missing("the event"))? {
        message::EventWord::Replace(replace) => Relayed::Event(read_replace(scope, *replace)?),
        message::EventWord::Reset(_) => Relayed::Event(Event::Reset { scope }),
        message::EventWord::Ready(message::Ready { filtered }) => Relayed::Event(Event::Ready {
            scope,
            completeness: if filtered { Completeness::Filtered } else { Completeness::Full },
        }),
        message::EventWord::Commit(message::Commit { position, age_ms }) => {
            Relayed::Commit { position, age: Duration::from_millis(age_ms) }
        }
    })
}

fn read_replace(scope: Scope, replace: message::Replace) -> Result<Event, ControlError> {
    let mut strings = StringReader::new(replace.strings, &replace.label_sets)?;
    let mut resources = Vec::with_capacity(
        replace.services.len() + replace.endpoints.len() + replace.routes.len() + replace.policies.len(),
    );
    for service in replace.services {
        resources.push(Resource::Service(read_service(&strings, service)?.into()));
    }
    for endpoint in replace.endpoints {
        resources.push(Resource::Endpoint(read_endpoint(&mut strings, endpoint)?.into()));
    }
    for route in replace.routes {
        resources.push(Resource::Route(configuration::read_route(route)?.into()));
    }
    for policy in replace.policies {
        resources.push(Resource::Policy(configuration::read_policy(policy)?.into()));
    }
    Ok(Event::Replace {
        scope,
        origin: named("origin", OriginName::new(&replace.origin))?,
        version: Version(data_encoding::HEXLOWER.encode(&replace.version).into()),
        resources,
        faults: replace.faults.into_iter().map(read_fault).collect(),
    })
}

pub(super) fn write_fault(fault: &OriginFault) -> message::Fault {
    message::Fault {
        message: fault.message.clone(),
        place: fault.place.clone(),
        keeps_last_good: fault.keeps_last_good,
    }
}

pub(super) fn read_fault(fault: message::Fault) -> OriginFault {
    OriginFault { message: fault.message, place: fault.place, keeps_last_good: fault.keeps_last_good }
}

#[cfg(test)]
mod tests;
