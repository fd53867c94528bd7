//! Free ports, none given twice.
//!
//! Below the range of outgoing connections, one of which could else take a port before the server does, and below Nomad's
//! 20000 to 32000 for jobs. Between the choice of a port and its use, and while its server is down, nothing is bound to it;
//! what keeps another test from choosing it meanwhile is a socket whose name holds the number in the kernel's abstract
//! namespace. Such names are as local to the network namespace as ports are, and vanish with their process.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use crate::error::Error;

const FIRST: u16 = 10_000;
const COUNT: u16 = 10_000;

/// A port of 127.0.0.1 that is this value's alone among all users of this crate on the machine, for TCP and UDP.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UnixListener,
}

impl Port {
    /// Takes one that nobody uses.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when none is found.
    pub fn free() -> Result<Self, Error> {
        let random = RandomState::new();
        for attempt in 0..u64::from(COUNT) {
            let offset = random.hash_one(attempt) % u64::from(COUNT);
            let number = FIRST + u16::try_from(offset).unwrap_or_default();
            if let Ok(reservation) = reserve(number)
                && bindable(number)
            {
                return Ok(Self { number, _reservation: reservation });
            }
        }
        Err(Error::system("find a free port")(io::ErrorKind::AddrNotAvailable.into()))
    }

    /// Its number, from 10000 to 19999.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// A hundred ports of Nomad's range for jobs, from which one Nomad client of this crate hands out and no other does.
#[derive(Debug)]
pub(crate) struct JobPorts {
    pub(crate) first: u16,
    pub(crate) last: u16,
    _reservation: UnixListener,
}

impl JobPorts {
    /// Takes the first hundred that is free.
    pub(crate) fn free() -> Result<Self, Error> {
        let found = (20_000..32_000).step_by(100).find_map(|first| Some((first, reserve(first).ok()?)));
        let none = || Error::system("find ports for jobs")(io::ErrorKind::AddrNotAvailable.into());
        let (first, reservation) = found.ok_or_else(none)?;
        Ok(Self { first, last: first + 99, _reservation: reservation })
    }
}

fn reserve(number: u16) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("weft-testbed/port/{number}"))?)
}

fn bindable(number: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, number);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn none_is_given_twice_or_while_somebody_listens() {
        let ports: Vec<Port> = (0..500).map(|_| Port::free().unwrap()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), 500);
        assert!(numbers.iter().all(|number| (10_000..20_000).contains(number)));
        assert!(reserve(ports[0].number()).is_err());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0].number())).unwrap();
        assert!(!bindable(ports[0].number()));
        drop(listener);
        assert!(bindable(ports[0].number()));
    }
}
