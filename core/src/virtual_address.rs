//! Stable virtual addresses, one of each family per service, so that captured TCP can be told apart by name.
//!
//! IPv4 addresses come from 240.0.0.0/4 (reserved by RFC 1112 §4, routed nowhere), IPv6 ones from a /64 of a unique
//! local prefix (RFC 4193). Both are derived from one 28-bit number. An assignment survives restarts (it is
//! serialisable), and a number that was given up is not given to another service for a week: caches of names live long.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::name::ServiceKey;

/// How long a number stays with the service that gave it up.
pub const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The numbers 0 and the last (255.255.255.255, broadcast) are never given.
const NUMBERS: std::ops::Range<u32> = 1..(1 << 28) - 1;
/// `fd57:6566:7400::/64`: "Weft" in the 40 random bits' place, the same in every mesh so that it is recognised.
const IPV6_PREFIX: [u16; 4] = [0xfd57, 0x6566, 0x7400, 0];

/// One service's pair of addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct VirtualAddress(u32);

impl VirtualAddress {
    /// The pair with this number; none outside 1 to 2^28 − 2.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        NUMBERS.contains(&number).then_some(Self(number))
    }

    /// The address in 240.0.0.0/4.
    #[must_use]
    pub fn ipv4(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(0xf000_0000 | self.0)
    }

    /// The address in the unique local prefix.
    #[must_use]
    pub fn ipv6(self) -> Ipv6Addr {
        let [a, b, c, d] = IPV6_PREFIX;
        let [high, low] = [self.0 >> 16, self.0 & 0xffff].map(|half| half as u16);
        Ipv6Addr::new(a, b, c, d, 0, 0, high, low)
    }

    /// The pair that an IPv4 address belongs to; none outside the range.
    #[must_use]
    pub fn of_ipv4(address: Ipv4Addr) -> Option<Self> {
        let bits = address.to_bits();
        if bits >> 28 == 0xf { Self::from_number(bits & 0x0fff_ffff) } else { None }
    }

    /// The pair that an IPv6 address belongs to; none outside the prefix.
    #[must_use]
    pub fn of_ipv6(address: Ipv6Addr) -> Option<Self> {
        let [a, b, c, d, 0, 0, high, low] = address.segments() else { return None };
        if [a, b, c, d] != IPV6_PREFIX {
            return None;
        }
        Self::from_number(u32::from(high) << 16 | u32::from(low))
    }
}

impl TryFrom<u32> for VirtualAddress {
    type Error = String;
    fn try_from(number: u32) -> Result<Self, String> {
        Self::from_number(number).ok_or_else(|| format!("{number} is not the number of a virtual address"))
    }
}

impl From<VirtualAddress> for u32 {
    fn from(address: VirtualAddress) -> u32 {
        address.0
    }
}

/// All assignments, past ones in quarantine included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub struct VirtualAddresses {
    assigned: BTreeMap<u32, Assignment>,
    #[serde(skip)]
    by_service: BTreeMap<ServiceKey, u32>,
}

/// As they are read from disk.
#[derive(Deserialize)]
struct Kept {
    assigned: BTreeMap<u32, Assignment>,
}

impl From<Kept> for VirtualAddresses {
    fn from(Kept { assigned }: Kept) -> Self {
        let by_service = assigned.iter().map(|(number, it)| (it.service.clone(), *number)).collect();
        Self { assigned, by_service }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Assignment {
    service: ServiceKey,
    /// Seconds since the Unix epoch; none while the service exists.
    given_up: Option<u64>,
}

impl VirtualAddresses {
    /// The service that an address stands for, also while in quarantine.
    #[must_use]
    pub fn service(&self, address: VirtualAddress) -> Option<&ServiceKey> {
        self.assigned.get(&address.0).map(|assignment| &assignment.service)
    }

    /// The service's address: the one it had, or a free one near the hash of its name, so that agents which lost their
    /// state mostly agree. None when the range is full.
    pub fn assign(&mut self, service: &ServiceKey, now: Duration) -> Option<VirtualAddress> {
        if let Some(number) = self.by_service.get(service) {
            if let Some(assignment) = self.assigned.get_mut(number) {
                assignment.given_up = None;
            }
            return Some(VirtualAddress(*number));
        }
        self.forget(now);
        let count = NUMBERS.end - NUMBERS.start;
        let first = preferred(service) % count;
        let number = (0..count)
            .map(|step| NUMBERS.start + (first + step) % count)
            .find(|number| !self.assigned.contains_key(number))?;
        self.assigned.insert(number, Assignment { service: service.clone(), given_up: None });
        self.by_service.insert(service.clone(), number);
        Some(VirtualAddress(number))
    }

    /// The service is gone; its address rests for [`QUARANTINE`].
    pub fn give_up(&mut self, service: &ServiceKey, now: Duration) {
        let assignment = self.by_service.get(service).and_then(|number| self.assigned.get_mut(number));
        if let Some(assignment) = assignment {
            assignment.given_up.get_or_insert(now.as_secs());
        }
    }

    /// Frees what has rested long enough. `now` is the time since the Unix epoch.
    fn forget(&mut self, now: Duration) {
        let over = |given_up: Option<u64>| {
            given_up.is_some_and(|at| now.as_secs().saturating_sub(at) >= QUARANTINE.as_secs())
        };
        self.assigned.retain(|_, assignment| !over(assignment.given_up));
        let assigned = &self.assigned;
        self.by_service.retain(|_, number| assigned.contains_key(number));
    }
}

/// The first 28 bits of the SHA-256 of the service's full name.
fn preferred(service: &ServiceKey) -> u32 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, service.to_string().as_bytes());
    digest.as_ref().iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte)) >> 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{RegistryName, ServiceName};

    fn service(name: &str) -> ServiceKey {
        ServiceKey {
            registry: RegistryName::new("static").unwrap(),
            service: ServiceName::new(name).unwrap(),
        }
    }

    #[test]
    fn both_families_lead_back_to_the_service() {
        let mut addresses = VirtualAddresses::default();
        let address = addresses.assign(&service("reviews.default"), Duration::ZERO).unwrap();
        assert_eq!(address.ipv4().octets()[0] >> 4, 0xf);
        assert_eq!(VirtualAddress::of_ipv4(address.ipv4()), Some(address));
        assert_eq!(VirtualAddress::of_ipv6(address.ipv6()), Some(address));
        assert_eq!(addresses.service(address), Some(&service("reviews.default")));
        for foreign in ["255.255.255.255", "240.0.0.0", "10.0.0.1"] {
            assert_eq!(VirtualAddress::of_ipv4(foreign.parse().unwrap()), None, "{foreign}");
        }
        assert_eq!(VirtualAddress::of_ipv6("fd57:6566:7400:1::1".parse().unwrap()), None);
    }

    #[test]
    fn an_address_is_kept_over_a_restart_and_rests_for_a_week() {
        let week = QUARANTINE;
        let mut addresses = VirtualAddresses::default();
        let first = addresses.assign(&service("a"), Duration::ZERO).unwrap();
        addresses.give_up(&service("a"), Duration::ZERO);
        let text = serde_json::to_string(&addresses).unwrap();
        let mut restored = serde_json::from_str::<VirtualAddresses>(&text).unwrap();
        assert_eq!(restored, addresses);
        restored.assign(&service("b"), week - Duration::from_secs(1)).unwrap();
        assert_eq!(restored.service(first), Some(&service("a")), "still resting");
        assert_eq!(
            restored.assign(&service("a"), week - Duration::from_secs(1)),
            Some(first),
            "its own again"
        );
        restored.give_up(&service("a"), week);
        restored.assign(&service("c"), week * 2).unwrap();
        assert_eq!(restored.service(first), None, "free after a week");
    }

    #[test]
    fn two_services_never_share_an_address() {
        let mut addresses = VirtualAddresses::default();
        let clash = preferred(&service("a"));
        addresses
            .assigned
            .insert(clash % (NUMBERS.end - 1) + 1, Assignment { service: service("z"), given_up: None });
        let a = addresses.assign(&service("a"), Duration::ZERO).unwrap();
        let b = addresses.assign(&service("b"), Duration::ZERO).unwrap();
        assert_ne!(a, b);
        assert_eq!(addresses.service(a), Some(&service("a")));
    }
}
