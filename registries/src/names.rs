//! From the names of other platforms to ours, and back to a person when that cannot be.
//!
//! Other catalogs allow more than we do: upper case, dots, slashes, line breaks. A name that has no equal here is left
//! out and told, with the name in quotes and cut short, so that nobody's log is written by somebody's service.

use weft_core::{
    name::{OriginName, PortName, ServiceName},
    registry::OriginFault,
};

/// Reads a service's name as another platform writes it. Upper case becomes lower case: DNS, by which these platforms
/// find services too, knows no difference. Not so in a namespace: two that differ in nothing else have other owners.
///
/// # Errors
/// Says which rule the name breaks.
pub fn service_name(name: &str, namespace: &str) -> Result<ServiceName, OriginFault> {
    if name.contains('.') {
        return Err(fault(name, "a service whose name has a dot in it cannot be told from its namespace"));
    }
    let text = format!("{}.{}", name.to_ascii_lowercase(), namespace);
    ServiceName::new(&text).map_err(|error| fault(name, error.reason))
}

/// Reads a port's name as another platform writes it; `http` where it has none.
///
/// # Errors
/// Says which rule the name breaks.
pub fn port_name(name: &str) -> Result<PortName, OriginFault> {
    let lower = name.to_ascii_lowercase();
    PortName::new(if lower.is_empty() { "http" } else { &lower }).map_err(|error| fault(name, error.reason))
}

/// The origin of what another platform calls `parts`, joined by slashes; those in all parts but the last are escaped, so
/// that no two things are one. What no origin may be called is hashed, so that whatever stands there is one origin, and
/// always the same one.
#[must_use]
pub fn origin_name(parts: &[&str]) -> OriginName {
    let last = parts.len().saturating_sub(1);
    let escaped = |(index, part): (usize, &&str)| match index == last {
        true => (*part).to_owned(),
        false => part.replace('%', "%25").replace('/', "%2F"),
    };
    let text = parts.iter().enumerate().map(escaped).collect::<Vec<_>>().join("/");
    OriginName::new(&text).unwrap_or_else(|_| {
        let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        OriginName::new(&format!("unnameable-{digest:016x}")).expect("letters, digits and a dash")
    })
}

/// A fault about the thing that another platform calls `name`: the faulty part was left out.
#[must_use]
pub fn fault(name: &str, message: impl Into<String>) -> OriginFault {
    OriginFault { message: message.into(), place: quoted(name), keeps_last_good: false }
}

/// The platform in whose own domain a host name lies: what a service lists there as an alias is that platform's to give.
/// Of a domain that an operator chose instead of the usual one nothing is known here.
#[must_use]
pub fn platform_of(host: &str) -> Option<&'static str> {
    let labels: Vec<&str> = host.trim_end_matches('.').rsplit('.').collect();
    match labels.as_slice() {
        ["local", "cluster", ..] | ["svc", ..] => Some("Kubernetes"),
        ["consul", ..] => Some("Consul"),
        ["nomad", ..] => Some("Nomad"),
        ["mesh", ..] => Some("the mesh"),
        // `web.default.svc.example.org`: of a cluster with a domain of its own.
        [.., "svc", _, _] => Some("Kubernetes"),
        _ => None,
    }
}

/// A foreign text for a person: escaped, in quotes, at most 80 characters of it.
#[must_use]
pub fn quoted(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{dots}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_names_become_ours_or_are_told() {
        assert_eq!(service_name("Web_App", "default").unwrap().as_str(), "web_app.default");
        for (name, reason) in [
            ("", "it is empty"),
            ("a/b", "only lower-case letters"),
            ("a\nb", "only lower-case letters"),
            ("a.b", "a dot"),
            (&*"x".repeat(64), "longer than 63"),
        ] {
            let fault = service_name(name, "default").unwrap_err();
            assert!(fault.message.contains(reason), "{fault:?}");
            assert!(!fault.place.contains('\n') && fault.place.len() < 100, "{fault:?}");
        }
        assert!(service_name("web", "Prod").is_err());
        assert_eq!(port_name("").unwrap().as_str(), "http");
        assert_eq!(port_name("HTTP").unwrap().as_str(), "http");
        assert!(port_name("a b").is_err());
    }

    #[test]
    fn what_lies_in_the_domain_of_a_platform_is_known() {
        for (host, platform) in [
            ("bank.default.svc.cluster.local", Some("Kubernetes")),
            ("web.default.svc", Some("Kubernetes")),
            ("web.default.svc.example.org", Some("Kubernetes")),
            ("shop.service.consul", Some("Consul")),
            ("shop.service.dc1.consul.", Some("Consul")),
            ("shop.nomad", Some("Nomad")),
            ("shop.default.mesh", Some("the mesh")),
            ("svc.example.org", None),
            ("consul.example.org", None),
            ("orders", None),
            ("orders.local", None),
        ] {
            assert_eq!(platform_of(host), platform, "{host}");
        }
    }

    #[test]
    fn every_origin_has_a_name_of_its_own() {
        assert_eq!(origin_name(&["default", "web"]).as_str(), "default/web");
        let alike = [["a/b", "c"], ["a", "b/c"], ["a%2Fb", "c"]].map(|parts| origin_name(&parts));
        assert_eq!(alike.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{alike:?}");
        let odd = origin_name(&["default", "a\nb"]);
        assert_eq!(odd, origin_name(&["default", "a\nb"]));
        assert_ne!(odd, origin_name(&["default", "a\tb"]));
    }
}
