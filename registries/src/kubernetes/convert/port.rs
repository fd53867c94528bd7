//! Ports: what a service's speak, and which of them a slice's are.

use weft_core::{
    name::{PortName, ServiceName},
    resource::{AppProtocol, Service, ServicePort},
};

use crate::{kubernetes::objects::Port, names, speaking::Rules};

/// What is spoken by the words that Kubernetes' users write, in an `appProtocol` and before the first dash of a port's
/// name. TLS of the application's own is opaque to us.
const WORDS: [(&str, AppProtocol); 33] = [
    ("http", AppProtocol::Http),
    ("http1", AppProtocol::Http),
    ("http/1.1", AppProtocol::Http),
    ("ws", AppProtocol::Http),
    ("kubernetes.io/ws", AppProtocol::Http),
    ("grpc-web", AppProtocol::Http),
    ("http2", AppProtocol::Http2),
    ("h2c", AppProtocol::Http2),
    ("kubernetes.io/h2c", AppProtocol::Http2),
    ("grpc", AppProtocol::Grpc),
    ("tcp", AppProtocol::Tcp),
    ("https", AppProtocol::Tcp),
    ("tls", AppProtocol::Tcp),
    ("wss", AppProtocol::Tcp),
    ("kubernetes.io/wss", AppProtocol::Tcp),
    ("amqp", AppProtocol::Tcp),
    ("amqps", AppProtocol::Tcp),
    ("cassandra", AppProtocol::Tcp),
    ("kafka", AppProtocol::Tcp),
    ("ldap", AppProtocol::Tcp),
    ("ldaps", AppProtocol::Tcp),
    ("memcached", AppProtocol::Tcp),
    ("mongo", AppProtocol::Tcp),
    ("mongodb", AppProtocol::Tcp),
    ("mqtt", AppProtocol::Tcp),
    ("mysql", AppProtocol::Tcp),
    ("nats", AppProtocol::Tcp),
    ("postgres", AppProtocol::Tcp),
    ("postgresql", AppProtocol::Tcp),
    ("redis", AppProtocol::Tcp),
    ("smtp", AppProtocol::Tcp),
    ("ssh", AppProtocol::Tcp),
    ("thrift", AppProtocol::Tcp),
];

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
        let Some(word) = port.app_protocol.as_deref().filter(|word| !word.is_empty()) else {
            return of_name(port.name());
        };
        of_word(word).or_else(|| {
            let word = names::quoted(word);
            fault =
                Some(format!("{}: its appProtocol {word} is none that we know: taken as tcp", described()));
            // Whatever it is, who names it does not mean HTTP, and opaque bytes carry everything.
            Some(AppProtocol::Tcp)
        })
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

/// Has ports speak what those spoke that they were before: a port is the one of its name, and where there is none of that
/// name, the one of its number. What was not there before speaks as it says.
pub(super) fn keep_protocols(ports: &mut [ServicePort], before: &[ServicePort]) {
    for port in ports {
        let by = |is_it: &dyn Fn(&ServicePort) -> bool| before.iter().find(|it| is_it(it));
        if let Some(known) = by(&|it| it.name == port.name).or_else(|| by(&|it| it.number == port.number)) {
            port.protocol = known.protocol;
        }
    }
}

fn of_word(word: &str) -> Option<AppProtocol> {
    let is_meant = |(known, _): &&(&str, AppProtocol)| known.eq_ignore_ascii_case(word);
    WORDS.iter().find(is_meant).map(|(_, protocol)| *protocol)
}

/// What a port's name says by the convention `protocol[-suffix]`.
fn of_name(name: &str) -> Option<AppProtocol> {
    let name = name.to_ascii_lowercase();
    let word = match name.split_once('-') {
        Some(("grpc", rest)) if rest == "web" || rest.starts_with("web-") => "grpc-web",
        Some((word, _)) => word,
        None => &name,
    };
    of_word(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_first_of_all_the_one_of_its_name() {
        let port =
            |name: &str, number, protocol| ServicePort { name: name.parse().unwrap(), number, protocol };
        let before = [port("a", 80, AppProtocol::Http2), port("b", 81, AppProtocol::Grpc)];
        let mut ports = ["b 80", "c 81", "d 82"].map(|text| {
            let (name, number) = text.split_once(' ').unwrap();
            port(name, number.parse().unwrap(), AppProtocol::Tcp)
        });
        keep_protocols(&mut ports, &before);
        let spoken = ports.map(|port| port.protocol);
        assert_eq!(spoken, [AppProtocol::Grpc, AppProtocol::Grpc, AppProtocol::Tcp]);
    }

    #[test]
    fn what_is_spoken_is_said_in_one_language_and_an_unknown_word_is_opaque() {
        let service: ServiceName = "db.default".parse().unwrap();
        let told = |name: &str, word: Option<&str>| {
            let port = Port {
                name: Some(name.into()),
                port: Some(5432),
                app_protocol: word.map(Into::into),
                ..Port::default()
            };
            let (port, fault) = read(&port, &service, None, &Rules::default()).unwrap();
            (port.protocol, fault.unwrap_or_default())
        };
        for word in ["mysql", "postgresql", "amqp", "redis", "mongodb"] {
            for (name, declared) in [("x", Some(word)), (word, None), (&*format!("{word}-a"), None)] {
                assert_eq!(told(name, declared), (AppProtocol::Tcp, String::new()), "{name} {declared:?}");
            }
        }
        for (name, protocol) in
            [("grpc-web-a", AppProtocol::Http), ("GRPC-a", AppProtocol::Grpc), ("main", AppProtocol::Http)]
        {
            assert_eq!(told(name, None), (protocol, String::new()), "{name}");
        }
        let (protocol, fault) = told("http", Some("example.com/own"));
        assert_eq!(protocol, AppProtocol::Tcp);
        assert!(fault.contains("\"example.com/own\" is none that we know: taken as tcp"), "{fault}");
    }
}
