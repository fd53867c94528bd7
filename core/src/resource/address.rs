//! Addresses in little memory: every endpoint has two, nearly all of them of IPv4.

use std::{
    fmt,
    net::{AddrParseError, SocketAddr, SocketAddrV4, SocketAddrV6},
    str::FromStr,
};

use serde::{Deserialize, Serialize, Serializer};

/// An IP address and a port in 16 bytes, half of what the standard library's takes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "SocketAddr")]
pub struct Address(Family);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Family {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

impl Address {
    /// As the standard library has it.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        match &self.0 {
            Family::V4(address) => SocketAddr::V4(*address),
            Family::V6(address) => SocketAddr::V6(**address),
        }
    }
}

impl<T: Into<SocketAddr>> From<T> for Address {
    fn from(address: T) -> Self {
        Self(match address.into() {
            SocketAddr::V4(address) => Family::V4(address),
            SocketAddr::V6(address) => Family::V6(Box::new(address)),
        })
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.socket().serialize(serializer)
    }
}

impl FromStr for Address {
    type Err = AddrParseError;
    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        text.parse::<SocketAddr>().map(Self::from)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_small_and_comes_back_as_it_was() {
        for text in ["10.1.2.3:80", "[2001:db8::1]:15008", "[fe80::1%7]:65535", "0.0.0.0:0"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.socket(), text.parse::<SocketAddr>().unwrap());
            assert_eq!(address.to_string(), text);
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        }
        assert_eq!((size_of::<Address>(), size_of::<Option<Address>>()), (16, 16));
    }
}
