//! The proxy that a kubeconfig names for its cluster: asked for a tunnel (`CONNECT`, RFC 9110), in which TLS is spoken with the
//! API server itself, so that the proxy sees no credential and no answer.

use data_encoding::BASE64;
use http::{HeaderValue, Uri, uri::Authority};
use hyper_util::client::legacy::connect::{HttpConnector, proxy::Tunnel};
use percent_encoding::percent_decode_str;

use crate::http_client::connector;

/// A proxy, and who asks it.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    address: Uri,
    /// Marked as a secret.
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Reads `http://USER:PASSWORD@HOST:PORT`, where user and password may be missing.
    ///
    /// # Errors
    /// Says what it is instead, without a word of what may be a secret.
    pub(super) fn read(url: &str) -> Result<Self, String> {
        let supported = "only http://HOST:PORT is supported";
        let url: Uri = url.parse().map_err(|_| format!("that is no URL: {supported}"))?;
        if url.scheme_str() != Some("http") {
            let scheme = url.scheme_str().unwrap_or("no scheme");
            return Err(format!("of {scheme}: {supported}"));
        }
        let authority = url.authority().map(Authority::as_str).unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let authorization = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let mut shown: Vec<u8> = percent_decode_str(name).collect();
            shown.push(b':');
            shown.extend(percent_decode_str(password));
            let value = HeaderValue::from_str(&format!("Basic {}", BASE64.encode(&shown)));
            value.map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        let address = format!("http://{host}").parse().map_err(|_| format!("of no host: {supported}"))?;
        Ok(Self {
            address,
            authorization: authorization.transpose().map_err(|_| "whose user cannot be sent".to_owned())?,
        })
    }

    /// Makes connections through it.
    pub(super) fn connector(&self) -> Tunnel<HttpConnector> {
        let tunnel = Tunnel::new(self.address.clone(), connector());
        match &self.authorization {
            Some(authorization) => tunnel.with_auth(authorization.clone()),
            None => tunnel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_maybe_a_user() {
        let read = |url: &str| {
            let proxy = Proxy::read(url)?;
            let shown = proxy.authorization.map(|it| it.to_str().unwrap().to_owned());
            Ok::<_, String>((proxy.address.to_string(), shown))
        };
        assert_eq!(read("http://proxy:3128").unwrap(), ("http://proxy:3128/".into(), None));
        let (address, shown) = read("http://me:p%40ss@10.0.0.1:3128/").unwrap();
        let expected = format!("Basic {}", BASE64.encode(b"me:p@ss"));
        assert_eq!((address.as_str(), shown), ("http://10.0.0.1:3128/", Some(expected)));
        for (url, why) in [
            ("socks5://me:SECRET@proxy:1080", "of socks5: only http://HOST:PORT"),
            ("https://proxy", "of https: only"),
            ("proxy:3128", "of no scheme: only"),
            ("http://me:SECRET@", "no"),
            ("not a URL SECRET", "that is no URL"),
        ] {
            let told = read(url).unwrap_err();
            assert!(told.contains(why) && !told.contains("SECRET"), "{url}: {told}");
        }
    }
}
