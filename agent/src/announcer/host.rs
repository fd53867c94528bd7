//! How this host is reached, and what its ports are to others.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use weft_core::{
    locality::Locality,
    name::{InstanceName, NameError, RegistryName},
    registry::{LocalInstance, Registry},
    resource::{Endpoint, Health, Labels, SaidBy, Sayer, ServicePort, TlsMode},
};

use super::Wish;
use crate::config::{AgentConfig, AnnouncementConfig};

/// Why nothing can be announced.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No route leads anywhere.
    #[error("this host's address is not known: say it, `[announce] address = \"…\"`")]
    Address,
    /// The kernel chooses it.
    #[error("what is announced needs a fixed mesh port: `[inbound] listen` says none")]
    MeshPort,
    /// The host's name is none of an instance.
    #[error("this host's name cannot be used: say another, `[announce] instance = \"…\"`")]
    Instance(#[from] NameError),
}

/// How others reach this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where its agent takes mesh traffic.
    mesh: SocketAddr,
    /// What its instances' names begin with.
    name: String,
    locality: Locality,
}

impl Host {
    /// As the configuration says; `node` is the host's name in the mesh, where it has joined one.
    ///
    /// # Errors
    /// When something is neither said nor to be found out.
    pub fn of(config: &AgentConfig, node: Option<&str>) -> Result<Self, HostError> {
        let listens = config.inbound.iter().flatten().next().copied();
        let port =
            listens.map(|listen| listen.port()).filter(|port| *port != 0).ok_or(HostError::MeshPort)?;
        let address = config.announce.address;
        let address = address.or_else(|| listens.map(|it| it.ip()).filter(|ip| !ip.is_unspecified()));
        let address = address.or_else(own_address).ok_or(HostError::Address)?;
        let name = config.announce.instance.as_ref().map(ToString::to_string);
        let name = name.or_else(|| node.map(str::to_owned)).unwrap_or_else(host_name);
        Ok(Self { mesh: SocketAddr::new(address, port), name, locality: config.locality.clone() })
    }

    /// What is announced of a port, in these registries.
    ///
    /// # Errors
    /// When the host's name is none of an instance.
    pub fn wish(
        &self,
        announced: &AnnouncementConfig,
        registries: &BTreeMap<RegistryName, Arc<dyn Registry>>,
    ) -> Result<Wish, HostError> {
        let AnnouncementConfig { workload, port, terms } = announced;
        let labels = workload.labels.iter().chain(terms.labels.iter());
        let labels: Labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let is_own = workload.locality != Locality::default();
        let endpoint = Endpoint {
            service: port.service.clone(),
            port_name: port.name.clone(),
            // A hub lets no node join whose name holds a dot, so that no other node's instances can begin with this one's name.
            instance: InstanceName::new(&format!("{}.{}", self.name, workload.name))?,
            // Callers of the mesh name the port alone. Others find the host, if the application listens there.
            address: SocketAddr::new(self.mesh.ip(), port.address.port()).into(),
            mesh_address: Some(self.mesh.into()),
            identity: Some(workload.identity.clone()),
            said_by: SaidBy::all(Sayer::Metadata),
            tls: TlsMode::Required,
            labels,
            weight: terms.weight,
            locality: if is_own { workload.locality.clone() } else { self.locality.clone() },
            health: Health::Healthy,
        };
        let service_port =
            ServicePort { name: port.name.clone(), number: terms.number, protocol: port.protocol };
        let is_wanted = |name: &RegistryName| terms.registries.contains(name);
        let registries = registries.iter().filter(|(name, _)| is_wanted(name));
        Ok(Wish {
            instance: LocalInstance { endpoint, port: service_port, note: String::new() },
            application: port.address,
            check: terms.check.clone(),
            registries: registries.map(|(name, registry)| (name.clone(), registry.clone())).collect(),
        })
    }
}

/// The address that traffic to others leaves from. Nothing is sent: a datagram socket is only connected, to addresses that
/// are kept for documentation (RFC 5737, RFC 3849) and so lead along the default route. None without such a route.
#[must_use]
pub fn own_address() -> Option<IpAddr> {
    let leaves_by = |own: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((own, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_unspecified()).then_some(address)
    };
    leaves_by(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()).or_else(|| {
        let elsewhere = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        leaves_by(Ipv6Addr::UNSPECIFIED.into(), elsewhere.into())
    })
}

/// The host's name as the kernel knows it.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".into() } else { name }
}
