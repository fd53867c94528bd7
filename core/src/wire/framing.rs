//! What a mesh connection carries after hello and answer, agreed by ALPN (RFC 7301) in the handshake.

use std::fmt;

/// The framing of a mesh connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Framing {
    /// `weft-h2/1`: HTTP requests, multiplexed over HTTP/2.
    Http2,
    /// `weft-h1/1`: what HTTP/2 cannot carry unchanged: Upgrade, Expect, HTTP/1.0.
    Http1,
    /// `weft-tcp/1`: opaque bytes; `close_notify` is the half-close.
    Tcp,
    /// `weft-mux/1`: HTTP/2 CONNECT streams, each with an end-to-end TLS connection of its own. No hello.
    Mux,
}

impl Framing {
    /// All of them, the preferred first.
    pub const ALL: [Self; 4] = [Self::Http2, Self::Http1, Self::Tcp, Self::Mux];

    /// Those that an agent of this build accepts. Offering another one in a handshake would promise what nobody keeps.
    pub const SERVED: [Self; 3] = [Self::Http2, Self::Http1, Self::Tcp];

    /// Its ALPN name. The `/1` changes only when the frames of hello and answer do.
    #[must_use]
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::Http2 => "weft-h2/1",
            Self::Http1 => "weft-h1/1",
            Self::Tcp => "weft-tcp/1",
            Self::Mux => "weft-mux/1",
        }
    }

    /// The framing with this ALPN name.
    #[must_use]
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|framing| framing.alpn().as_bytes() == name)
    }

    /// The framing that a handshake agreed on (rustls' `alpn_protocol`); none when the peer offered no ALPN, and then
    /// it speaks no Weft.
    #[must_use]
    pub fn negotiated(alpn: Option<&[u8]>) -> Option<Self> {
        Self::from_alpn(alpn?)
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.alpn())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for framing in Framing::ALL {
            assert_eq!(Framing::negotiated(Some(framing.alpn().as_bytes())), Some(framing));
        }
        assert_eq!(Framing::negotiated(Some(b"weft-h2/2")), None);
        assert_eq!(Framing::negotiated(None), None);
    }
}
