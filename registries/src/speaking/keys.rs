//! The keys of an instance's record, the same on every platform: service meta, tags `key=value`, annotations, metadata.
//!
//! Whatever begins as they do is meant for the mesh. One that is none of them is misspelt, and nobody knows what it was to
//! say: it is told, it is no label, and it is no leave for plaintext.

use weft_core::config::nearest;

/// Where the instance's agent takes mesh traffic: a port of the instance's own address.
pub const MESH_PORT: &str = "weft-mesh-port";
/// Who must answer there: a SPIFFE ID.
pub const IDENTITY: &str = "weft-identity";
/// What the application speaks: `http`, `http2`, `grpc` or `tcp`.
pub const PROTOCOL: &str = "weft-protocol";
/// Its relative share of requests, 0 to 65535.
pub const WEIGHT: &str = "weft-weight";
/// Where it runs: `region/zone/subzone`.
pub const LOCALITY: &str = "weft-locality";

/// Whether the instance's own agent had its registry take it out of service: then that agent may end it, and whoever
/// did so otherwise is not contradicted.
pub const DRAINING: &str = "weft-draining";

/// All of them. They steer the mesh, so they are no labels.
pub const ALL: [&str; 6] = [MESH_PORT, IDENTITY, PROTOCOL, WEIGHT, LOCALITY, DRAINING];

/// How many misspelt keys of one record are told one by one.
const MAX_STRAYS: usize = 4;

/// Whether a key is meant for the mesh, rightly spelt or not: `weft`, then `-`, `_` or `.`, in any case. One with a slash
/// is of a name's owner, as Kubernetes writes it, and none of these.
#[must_use]
pub fn is_ours(key: &str) -> bool {
    let (Some(word), Some(separator)) = (key.get(..4), key.as_bytes().get(4)) else { return false };
    word.eq_ignore_ascii_case("weft") && matches!(separator, b'-' | b'_' | b'.') && !key.contains('/')
}

/// What is wrong with those keys of a record that are meant for the mesh and are none of its keys: a sentence for each, with
/// the key that is meant where one is near.
#[must_use]
pub fn strays<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut strays = keys.into_iter().filter(|key| is_ours(key) && !ALL.contains(key));
    let mut told: Vec<String> = strays.by_ref().take(MAX_STRAYS).map(stray).collect();
    let more = strays.count();
    if more > 0 {
        told.push(format!("and {more} more such keys"));
    }
    told
}

fn stray(key: &str) -> String {
    let written = crate::names::quoted(key);
    match nearest(&key.replace('.', "-"), ALL) {
        Some(near) => format!("{written} is no key of the mesh: {near} may be meant"),
        None => format!("{written} is no key of the mesh: those are {}", ALL.join(", ")),
    }
}
