//! Which addresses another platform's catalog may send calls to.
//!
//! Whoever writes to a catalog decides where the mesh's agents connect to. Some addresses mean something else on every
//! host, and must not come from a network: the host itself, whatever is on its link (where clouds serve credentials),
//! and groups. Where a network carries IPv4 in IPv6, such an address can be written in the other family: what it leads to
//! is looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_core::{name::HostName, resource::Address};

const LOOPBACK: &str = "this very host on every host: allow_loopback = true on the registry allows it";
/// What distributions write into `/etc/hosts` for the host itself, beside `localhost`.
const THIS_HOST: [&str; 6] = [
    "localhost.localdomain",
    "localhost4.localdomain4",
    "localhost6.localdomain6",
    "localhost6",
    "ip6-localhost",
    "ip6-loopback",
];

/// Checks an address and port of a catalog.
///
/// # Errors
/// Says why it cannot be an endpoint.
pub fn endpoint_address(ip: IpAddr, port: u64, allow_loopback: bool) -> Result<Address, String> {
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    let port = port.ok_or("its port is not between 1 and 65535")?;
    let ip = ip.to_canonical();
    if let Some(reason) = refusal(ip, allow_loopback) {
        return Err(format!("{ip} is {reason}"));
    }
    if let Some(inner) = embedded(ip)
        && let Some(reason) = refusal(inner.into(), allow_loopback)
    {
        return Err(format!("{ip} leads to {inner}, which is {reason}"));
    }
    Ok(SocketAddr::new(ip, port).into())
}

/// Checks a host name of a catalog that is passed on to be called: neither an address in any form, which would be none that
/// was checked, nor a name by which hosts know themselves.
///
/// # Errors
/// Says why it is not passed on.
pub fn endpoint_host(name: &HostName, allow_loopback: bool) -> Result<(), &'static str> {
    let last = name.as_str().rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if is_number {
        // Resolvers take `127.1` and `0x7f000001` for addresses.
        return Err("an address and no name");
    }
    let is_itself = last == "localhost" || THIS_HOST.contains(&name.as_str());
    match is_itself && !allow_loopback {
        true => Err(LOOPBACK),
        false => Ok(()),
    }
}

/// The IPv4 address that an IPv6 address leads to by its form: through NAT64 (RFC 6052, and RFC 8215's prefix as /96), by 6to4 (RFC 3056), as an
/// IPv4-compatible one (RFC 4291) or an IPv4-translated one (RFC 2765).
fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        _ if matches!(ip, Ipv6Addr::UNSPECIFIED | Ipv6Addr::LOCALHOST) => None,
        [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// Reads an address as catalogs write it: an IP address of either family, with or without brackets.
///
/// # Errors
/// Says that it is none.
pub fn read_ip(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| format!("{} is no IP address", crate::names::quoted(text)))
}

/// The same, of an endpoint that the catalog may know by a name. `instead` says what its platform has for that.
///
/// # Errors
/// Says that it is none, and of a name what to do about it.
pub(crate) fn endpoint_ip(text: &str, instead: &str) -> Result<IpAddr, String> {
    read_ip(text).map_err(|error| match HostName::new(&text.to_ascii_lowercase()) {
        Ok(_) => format!(
            "{error}, and names are not looked up here: {instead}, or follow the name as a registry of kind = \"dns\""
        ),
        Err(_) => error,
    })
}

fn refusal(ip: IpAddr, allow_loopback: bool) -> Option<&'static str> {
    if ip.is_loopback() {
        return (!allow_loopback).then_some(LOOPBACK);
    }
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        _ if link_local => Some("an address of the link, which means another host on every link"),
        _ if ip.is_unspecified() || matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 0) => {
            Some("no address of a host")
        }
        _ if ip.is_multicast() => Some("the address of a group"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("the address of a group"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_other_hosts_are_passed_on() {
        let take = |name: &str, loopback| endpoint_host(&HostName::new(name).unwrap(), loopback).is_ok();
        for name in ["orders", "orders.example", "localhost.example", "0x.example", "1.example", "0xg", "a1"]
        {
            assert!(take(name, false), "{name}");
        }
        for name in ["localhost", "a.localhost", "localhost.localdomain", "ip6-loopback"] {
            assert_eq!((take(name, false), take(name, true)), (false, true), "{name}");
        }
        for name in
            ["127.0.0.1", "169.254.169.254", "10.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1"]
        {
            assert_eq!((take(name, false), take(name, true)), (false, false), "{name}");
        }
    }

    #[test]
    fn a_name_instead_of_an_address_is_told_with_what_to_do() {
        let told = |text: &str| endpoint_ip(text, "do that").unwrap_err();
        assert!(
            told("DB.example")
                .contains("no IP address, and names are not looked up here: do that, or follow")
        );
        assert!(told("DB.example").ends_with("kind = \"dns\""));
        assert_eq!(
            (told("10.0.0.1:80"), told("")),
            (read_ip("10.0.0.1:80").unwrap_err(), read_ip("").unwrap_err())
        );
    }

    #[test]
    fn only_addresses_of_other_hosts_are_taken() {
        let take = |ip: &str, port, loopback| endpoint_address(read_ip(ip)?, port, loopback);
        assert_eq!(take("10.1.2.3", 80, false).unwrap().to_string(), "10.1.2.3:80");
        assert_eq!(take("[fd00::1]", 65535, false).unwrap().to_string(), "[fd00::1]:65535");
        assert_eq!(take("::ffff:10.1.2.3", 80, false).unwrap().to_string(), "10.1.2.3:80");
        assert_eq!(take("127.0.0.1", 80, true).unwrap().to_string(), "127.0.0.1:80");
        for (ip, port) in [
            ("127.0.0.1", 80),
            ("::1", 80),
            ("::ffff:127.0.0.1", 80),
            ("169.254.169.254", 80),
            ("fe80::1", 80),
            ("0.0.0.0", 80),
            ("0.1.2.3", 80),
            ("::", 80),
            ("224.0.0.1", 80),
            ("ff02::1", 80),
            ("255.255.255.255", 80),
            ("::ffff:169.254.169.254", 80),
            ("::ffff:0.0.0.0", 80),
            ("64:ff9b::127.0.0.1", 80),
            ("64:ff9b::169.254.169.254", 80),
            ("64:ff9b::0.0.0.0", 80),
            ("64:ff9b::224.0.0.1", 80),
            ("2002:7f00:1::", 80),
            ("2002:a9fe:a9fe::1", 80),
            ("2002::1", 80),
            ("::127.0.0.1", 80),
            ("::169.254.169.254", 80),
            ("::0.0.0.2", 80),
            ("::ffff:0:127.0.0.1", 80),
            ("10.0.0.1", 0),
            ("10.0.0.1", 70_000),
            ("10.0.0.1\n", 80),
            ("web.example", 80),
        ] {
            assert!(take(ip, port, false).is_err(), "{ip}:{port}");
        }
        assert!(take("169.254.1.1", 80, true).is_err());
        for ip in ["64:ff9b::10.1.2.3", "2002:a01:203::1", "::10.1.2.3", "2001:db8::7f00:1"] {
            assert!(take(ip, 80, false).is_ok(), "{ip}");
        }
        assert!(take("::127.0.0.1", 80, true).is_ok());
    }
}
