//! What the configuration means for the proxy.

use weft_core::name::HostName;
use weft_proxy::{
    AccessLogTarget, AllowedLocal, InboundConfig, Limits, ListenAddress, OutboundKind, OutboundListener,
    ProxyConfig, WorkloadListeners,
};

use crate::config::{self, AgentConfig, Allowed, UpstreamConfig, WorkloadConfig};

/// Whether the mesh port may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Policy is not known yet: nobody gets in.
    Closed,
    /// Every registry that carries policy has spoken.
    Open,
}

/// The proxy's configuration.
///
/// # Errors
/// When a service of an upstream has no host name.
pub fn proxy_config(config: &AgentConfig, inbound: Inbound) -> anyhow::Result<ProxyConfig> {
    let listen = config.inbound.clone().filter(|_| inbound == Inbound::Open);
    Ok(ProxyConfig {
        workers: config.workers,
        inbound: listen.map(|listen| InboundConfig { listen }),
        workloads: config.workloads.iter().map(workload).collect::<anyhow::Result<_>>()?,
        fault_header: config.fault_header,
        access_log: match &config.access_log {
            config::AccessLogTarget::Off => AccessLogTarget::Off,
            config::AccessLogTarget::Stdout => AccessLogTarget::Stdout,
            config::AccessLogTarget::File(path) => AccessLogTarget::File(path.clone()),
        },
        metric_prefix: config.metric_prefix.as_str().into(),
        limits: Limits { distrusted: config.drain_deadline, ..config.limits },
    })
}

fn workload(config: &WorkloadConfig) -> anyhow::Result<WorkloadListeners> {
    let allowed = match &config.allowed {
        Some(Allowed::AnyLocal) => AllowedLocal::Any,
        Some(Allowed::Uids(uids)) => AllowedLocal::Uids(uids.clone()),
        // Without listeners there is nobody to let in.
        None => AllowedLocal::Uids(Vec::new()),
    };
    let by_host = config.outbound.iter().map(|address| {
        Ok(OutboundListener {
            address: listen_address(address),
            kind: OutboundKind::ByHost,
            allowed: allowed.clone(),
        })
    });
    let upstreams = config.upstreams.iter().map(|upstream| {
        Ok(OutboundListener {
            address: listen_address(&upstream.listen),
            kind: upstream_kind(upstream)?,
            allowed: allowed.clone(),
        })
    });
    let outbound = by_host.chain(upstreams).collect::<anyhow::Result<_>>()?;
    Ok(WorkloadListeners { workload: config.workload.clone(), outbound })
}

fn upstream_kind(upstream: &UpstreamConfig) -> anyhow::Result<OutboundKind> {
    let service = HostName::new(&upstream.service.mesh_host())?;
    Ok(OutboundKind::Upstream { service, port: upstream.port.clone() })
}

fn listen_address(address: &config::ListenAddress) -> ListenAddress {
    match address {
        config::ListenAddress::Tcp(address) => ListenAddress::Tcp(*address),
        config::ListenAddress::Unix(path) => ListenAddress::Unix(path.clone()),
    }
}
