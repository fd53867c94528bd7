//! `[admin]`: where the operator's verbs and the scraper of metrics connect to.

use std::{net::SocketAddr, path::PathBuf};

use weft_core::config::{Located, Readable, Section, Value};

use super::unix_path::too_long;

/// The operator's door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The Unix socket of the full API.
    pub socket: PathBuf,
    /// Where health, version and metrics are served, read-only; none when off.
    pub listen: Option<SocketAddr>,
}

/// What is written, with defaults.
pub(super) struct RawAdmin {
    pub(super) socket: PathBuf,
    pub(super) listen: Option<Located<SocketAddr>>,
}

impl RawAdmin {
    pub(super) fn checked(&self) -> AdminConfig {
        AdminConfig { socket: self.socket.clone(), listen: self.listen.as_ref().map(|listen| listen.value) }
    }
}

pub(super) fn read(
    root: &Section<'_>,
    run_dir: &Located<PathBuf>,
    default_listen: Located<SocketAddr>,
) -> RawAdmin {
    let default = || Some(default_listen.clone());
    let section = root.section("admin");
    let written: Option<Located<PathBuf>> = section.as_ref().and_then(|section| section.read("socket"));
    let in_run_dir = || Located { value: run_dir.value.join("admin.sock"), place: run_dir.place.clone() };
    let Located { value: socket, place } = written.unwrap_or_else(in_run_dir);
    if let Some(fault) = too_long(&socket, place) {
        root.report(fault);
    }
    let Some(section) = section else { return RawAdmin { socket, listen: default() } };
    let listen = section.get("listen").map_or_else(default, |value| listen(&value));
    RawAdmin { socket, listen }
}

fn listen(value: &Value<'_>) -> Option<Located<SocketAddr>> {
    if value.as_text() == Some("off") { None } else { Located::read(value) }
}
