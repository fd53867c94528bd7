//! How a registry's resources are cut into pieces.
//!
//! A service with its endpoints is one piece while that is small, else the service is one and each endpoint its own. So
//! one endpoint's change sends at most [`WHOLE`] bytes, whatever the size of the service, and a mesh of many small
//! services costs an agent one origin each.

use bytes::Bytes;
use weft_core::{
    control::discovery::{EncodedReplace, encode_replace},
    merge::ServiceEntry,
    name::ServiceName,
    resource::{Endpoint, Policy, Resource, Route},
};

use crate::hub::token::sha256;

/// Up to this many encoded bytes, a service with its endpoints is one piece.
pub(super) const WHOLE: usize = 1024;
/// The longest origin name (the rule of `OriginName`), in bytes.
const LONGEST_ORIGIN: usize = 253;

/// A piece with its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedPiece {
    pub(super) origin: Box<str>,
    pub(super) encoded: EncodedReplace,
}

/// The pieces of a service, its endpoints included.
pub(super) fn service_pieces(name: &str, entry: &ServiceEntry) -> Vec<NamedPiece> {
    let service = entry.service.iter().cloned().map(Resource::Service);
    let endpoints = entry.endpoints.iter().cloned().map(Resource::Endpoint);
    let head = origin("service/", name);
    let all: Vec<_> = service.clone().chain(endpoints).collect();
    if all.is_empty() {
        // Only routes speak of it, and they are pieces of their own.
        return Vec::new();
    }
    let whole = encode_replace(&head, &all, &[]);
    if whole.event.len() <= WHOLE {
        return vec![NamedPiece { origin: head, encoded: whole }];
    }
    let service: Vec<_> = service.collect();
    let head = (!service.is_empty()).then(|| piece(head, &service));
    let each = entry
        .endpoints
        .iter()
        .map(|endpoint| piece(endpoint_origin(name, endpoint), &[Resource::Endpoint(endpoint.clone())]));
    head.into_iter().chain(each).collect()
}

/// The piece of a route.
pub(super) fn route_piece(route: &std::sync::Arc<Route>) -> NamedPiece {
    piece(origin("route/", route.name.as_str()), &[Resource::Route(route.clone())])
}

/// The piece of a policy.
pub(super) fn policy_piece(policy: &std::sync::Arc<Policy>) -> NamedPiece {
    piece(origin("policy/", policy.name.as_str()), &[Resource::Policy(policy.clone())])
}

/// The service that a piece of this origin is of, where it is of one: its name is short enough to stand there in full.
pub(super) fn service_of(origin: &str) -> Option<ServiceName> {
    let (kind, rest) = origin.split_once('/')?;
    let name = match kind {
        "service" => rest,
        "endpoint" => rest.split_once('/')?.0,
        _ => return None,
    };
    ServiceName::new(name).ok()
}

/// What is told of a piece that is gone.
pub(super) fn gone(origin: &str) -> Bytes {
    encode_replace(origin, &[], &[]).event
}

fn piece(origin: Box<str>, resources: &[Resource]) -> NamedPiece {
    NamedPiece { encoded: encode_replace(&origin, resources, &[]), origin }
}

/// A service's name is at most 127 bytes, so 64 bits of a hash fit behind it and tell its endpoints apart.
fn endpoint_origin(service: &str, endpoint: &Endpoint) -> Box<str> {
    let family = if endpoint.address.socket().is_ipv6() { "6" } else { "4" };
    let within = format!("{}/{}/{family}", endpoint.port_name, endpoint.instance);
    let hash = data_encoding::HEXLOWER.encode(&sha256(within.as_bytes())[..8]);
    format!("endpoint/{service}/{hash}").into()
}

fn origin(kind: &str, name: &str) -> Box<str> {
    if kind.len() + name.len() <= LONGEST_ORIGIN {
        return format!("{kind}{name}").into();
    }
    let hash = data_encoding::HEXLOWER.encode(&sha256(name.as_bytes())[..16]);
    format!("{kind}#{hash}").into()
}
