//! `[eureka_api]`: where clients of Eureka find the mesh's services.

use std::net::{Ipv4Addr, SocketAddr};

use weft_core::config::{Located, Section};

/// Eureka's own port.
const DEFAULT_PORT: u16 = 8761;

/// Where Eureka's API is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EurekaApiConfig {
    /// Whoever can connect there can read all services, and register what is listed there.
    pub listen: SocketAddr,
}

/// Reads the section; none when there is none, or it is faulty, which was reported.
pub(super) fn read(root: &Section<'_>) -> Option<Located<SocketAddr>> {
    let section = root.section("eureka_api")?;
    match section.has("listen") {
        true => section.read("listen"),
        false => Some(Located { value: (Ipv4Addr::LOCALHOST, DEFAULT_PORT).into(), place: section.place() }),
    }
}
