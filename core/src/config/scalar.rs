//! How each simple type is read: what is expected of it, with an example, in one place.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    units::{Size, parse_duration, parse_size},
    value::{Located, Readable, Value},
};
use crate::{
    identity::{SpiffeId, TrustDomain},
    locality::Locality,
    name::{
        HostName, InstanceName, Namespace, PortName, RegistryName, RuleName, ServiceLabel, ServiceName,
        ServicePattern, WorkloadName,
    },
};

/// A port number, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u16);

/// An address that can be connected to: its port is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketPort(pub SocketAddr);

/// A host name or address, with a port from 1 to 65535.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A host name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port`, `1.2.3.4:port` or `[::1]:port`.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let SocketPort(address) = connectable(address)?;
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| format!("`{}` names no port", shorten(text)))?;
        let port: u16 = port.parse().map_err(|_| format!("`{}` is no port", shorten(port)))?;
        if port == 0 {
            return Err("the port is 0".into());
        }
        // Digits and dots only would be an address, and that it is not one was seen above.
        if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(format!("`{}` is no address", shorten(host)));
        }
        let host = HostName::new(&host.to_ascii_lowercase()).map_err(|error| error.to_string())?;
        Ok(Self { host: host.to_string(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.port).fmt(f),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn connectable(address: SocketAddr) -> Result<SocketPort, String> {
    if address.port() == 0 { Err("the port is 0".into()) } else { Ok(SocketPort(address)) }
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(_) => format!("`{text}` has no port"),
        Err(_) => format!("`{}` is no address with a port", shorten(text)),
    })
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A type written as a string.
macro_rules! read_text {
    ($($type:ty, $expected:literal, $parse:expr;)*) => {
        $(impl Readable for $type {
            fn read(value: &Value<'_>) -> Option<Self> {
                value.parse($expected, $parse)
            }
        })*
    };
}

read_text! {
    RegistryName, "a registry name, such as \"static\"", RegistryName::new;
    WorkloadName, "a workload name, such as \"web\"", WorkloadName::new;
    ServiceLabel, "a service name, such as \"reviews\"", ServiceLabel::new;
    Namespace, "a namespace, such as \"default\"", Namespace::new;
    PortName, "a port name, such as \"http\"", PortName::new;
    InstanceName, "an instance name, such as \"reviews-1\"", InstanceName::new;
    RuleName, "a name, such as \"split\"", RuleName::new;
    HostName, "a host name in lower case, such as \"reviews.example\"", HostName::new;
    ServiceName, "a service, such as \"reviews.default\"", ServiceName::new;
    ServicePattern, "services, such as \"web.default\", \"*.default\" or \"*\"", str::parse::<ServicePattern>;
    TrustDomain, "a trust domain, such as \"demo.mesh\"", TrustDomain::new;
    SpiffeId, "an identity, such as \"spiffe://demo.mesh/ns/default/sa/web\"", SpiffeId::parse;
    Locality, "a locality, such as \"eu/a\"", Locality::new;
    Duration, "a duration, such as \"15s\", \"1m30s\" or \"250ms\"", parse_duration;
    Size, "a size, such as \"64KiB\" or \"1MiB\"", parse_size;
    SocketAddr, "an address and port, such as \"127.0.0.1:15001\" or \"[::1]:15001\"", socket_address;
    SocketPort, "an address and port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
        |text: &str| socket_address(text).and_then(connectable);
    HostPort, "a host and port, such as \"hub.example:15012\"", HostPort::parse;
    PathBuf, "a path, such as \"/etc/weft\"", |text: &str| match text {
        "" => Err("the path is empty"),
        text if text.contains('\0') => Err("the path holds a NUL"),
        text => Ok(PathBuf::from(text)),
    };
    String, "a string", |text: &str| Ok::<_, std::convert::Infallible>(text.to_owned());
}

impl Readable for bool {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.boolean()
    }
}

/// A whole number with the range of its type, or a narrower one.
macro_rules! read_integer {
    ($($type:ty, $min:expr, $max:expr, $make:expr;)*) => {
        $(impl Readable for $type {
            fn read(value: &Value<'_>) -> Option<Self> {
                let number = value.integer($min..=u64::from($max))?;
                // The range was checked just now.
                <_>::try_from(number).ok().map($make)
            }
        })*
    };
}

read_integer! {
    u8, 0, u8::MAX, |number: u8| number;
    u16, 0, u16::MAX, |number: u16| number;
    u32, 0, u32::MAX, |number: u32| number;
    Port, 1, u16::MAX, Port;
}

/// Labels: names and texts. A name is 1 to 253 visible ASCII characters, a text at most 253 bytes.
impl Readable for BTreeMap<String, String> {
    fn read(value: &Value<'_>) -> Option<Self> {
        let entries = value.entries("labels, such as { version = \"v1\" }")?;
        let read: Vec<Option<(String, String)>> =
            entries.iter().map(|(key, text)| label(key, text)).collect();
        read.into_iter().collect()
    }
}

fn label(key: &Located<String>, value: &Value<'_>) -> Option<(String, String)> {
    let text = value.text("a string")?;
    if let Err(error) = InstanceName::new(&key.value) {
        let fault =
            super::Fault::error(key.place.clone(), format!("this is not a label name: {}", error.reason));
        value.report(fault);
        return None;
    }
    if text.len() > 253 || text.chars().any(char::is_control) {
        value.reject("this is not a label's text", "expected at most 253 bytes without control characters");
        return None;
    }
    Some((key.value.clone(), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_ports_are_read_and_written_back() {
        for text in ["hub.example:15012", "127.0.0.1:1", "[::1]:15012"] {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), text);
        }
        for text in ["hub", "hub:0", "hub:70000", ":1", "1.2.3:4", "::1:5", "hub example:1"] {
            assert!(HostPort::parse(text).is_err(), "{text}");
        }
    }
}
