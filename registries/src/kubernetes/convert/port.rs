//! Ports: what a service's speak, and which of them a slice's are.

use weft_core::{
    name::{PortName, ServiceName},
    resource::{AppProtocol, Service, ServicePort},
};

use crate::{
    kubernetes::objects::Port,
    names,
    speaking::{Rules, read_protocol},
};

/// Reads a service's port, with a fault where its protocol is unknown. `recorded` is what the service's own annotation
/// says that it speaks.
///
/// # Errors
/// Says why it is none for us.
pub(super) fn read(
    port: &Port,
    service: &ServiceName,
    recorded: Option<AppProtocol>,
    rules: &Rules,
) -> Result<(ServicePort, Option<String>), String> {
    let described = || match (port.name(), port.port) {
        ("", number) => format!("port {}", number.unwrap_or_default()),
        (name, _) => format!("port {}", names::quoted(name)),
    };
    if !port.is_tcp() {
        let protocol = names::quoted(port.protocol.as_deref().unwrap_or_default());
        return Err(format!("{} is left out: it is {protocol}, and only TCP is carried", described()));
    }
    let number = port.port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0);
    let number = number.ok_or_else(|| format!("{} is left out: no number from 1 to 65535", described()))?;
    let name = names::port_name(port.name())
        .map_err(|fault| format!("{} is left out: {}", described(), fault.message))?;
    let mut fault = None;
    let protocol = rules.declared_protocol(service).or(recorded).or_else(|| {
        let declared = port.app_protocol.as_deref().filter(|word| !word.is_empty());
        let known = declared.and_then(of_word);
        if let (Some(word), None) = (declared, known) {
            let word = names::quoted(word);
            fault = Some(format!("{}: its appProtocol {word} is none that we know", described()));
        }
        known.or_else(|| of_name(port.name()))
    });
    let protocol = protocol.unwrap_or_else(|| rules.protocol(service));
    Ok((ServicePort { name, number, protocol }, fault))
}

/// The service's port that a slice's port is, with its number at the instance.
///
/// # Errors
/// Says why it is none.
pub(super) fn of_slice(
    name: &str,
    number: Option<u64>,
    service: &Service,
) -> Result<(PortName, u64), String> {
    let read = names::port_name(name).ok();
    let known = read.filter(|name| service.ports.iter().any(|port| port.name == *name));
    let Some(known) = known else {
        return Err(format!("its port {} is none of the service's", names::quoted(name)));
    };
    let number = number.ok_or_else(|| format!("its port {} has no number", names::quoted(name)))?;
    Ok((known, number))
}

/// What an `appProtocol` means. TLS of the application's own is opaque to us.
fn of_word(word: &str) -> Option<AppProtocol> {
    match word {
        "https" | "tls" | "kubernetes.io/wss" => Some(AppProtocol::Tcp),
        "kubernetes.io/ws" => Some(AppProtocol::Http),
        word => read_protocol(word),
    }
}

/// What a port's name says by the convention `protocol[-suffix]`.
fn of_name(name: &str) -> Option<AppProtocol> {
    let name = name.to_ascii_lowercase();
    match name.split('-').next().unwrap_or_default() {
        "http" => Some(AppProtocol::Http),
        "http2" | "h2c" => Some(AppProtocol::Http2),
        "grpc" if name == "grpc-web" || name.starts_with("grpc-web-") => Some(AppProtocol::Http),
        "grpc" => Some(AppProtocol::Grpc),
        "tcp" | "https" | "tls" | "mongo" | "mysql" | "postgres" | "redis" => Some(AppProtocol::Tcp),
        _ => None,
    }
}
