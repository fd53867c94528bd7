//! Where a registry's server is and how it proves itself.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use weft_core::{
    config::{Fault, HostPort, OneOrMany, Readable, Section, Size, Value},
    registry::RegistryError,
};

/// The greatest answer when the file says none: ten thousand services of Consul take about 30 MB.
const MAX_ANSWER: u64 = 64 << 20;

/// Where a server is.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    secure: bool,
    authority: HostPort,
    /// Begins with a slash when there is one, and never ends with one.
    base: String,
}

/// What a registry's section says about its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where it is.
    pub url: ServerUrl,
    /// The authorities that may vouch for it; those of the system when none is named.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and key, where it wants them.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name in its certificate, where that is not its host.
    pub server_name: Option<String>,
    /// The greatest answer, in bytes.
    pub max_answer: usize,
}

impl ServerUrl {
    /// Reads `http[s]://host[:port][/base]`.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (secure, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err("it begins with neither http:// nor https://".into()),
        };
        if rest.contains('@') {
            return Err(
                "it holds a user or a password, which have keys of their own where they are taken".into()
            );
        }
        if rest.contains(['?', '#']) {
            return Err("it holds a query or a fragment".into());
        }
        let (authority, base) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if secure { 443 } else { 80 };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let authority =
            HostPort::parse(&if has_port { authority.to_owned() } else { format!("{authority}:{port}") })?;
        let base = base.trim_end_matches('/');
        if !base.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("its path holds more than visible ASCII characters".into());
        }
        Ok(Self { secure, authority, base: if base.is_empty() { String::new() } else { format!("/{base}") } })
    }

    /// What a variable of the environment says of a platform's own tools: it may lack the scheme, and be empty.
    #[must_use]
    pub fn from_variable(said: &str, secure: bool, default: &str) -> String {
        match said {
            "" => default.to_owned(),
            whole if whole.contains("://") => whole.to_owned(),
            bare => format!("http{}://{bare}", if secure { "s" } else { "" }),
        }
    }

    /// Whether others on the way read what is sent to it: plain HTTP to another host.
    #[must_use]
    pub fn is_overheard(&self) -> bool {
        let host = self.authority.host.as_str();
        let is_name = host == "localhost" || host.ends_with(".localhost");
        let is_here = is_name || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        !self.secure && !is_here
    }

    /// The whole address of a path below the base.
    #[must_use]
    pub fn uri(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}{}", if self.secure { "s" } else { "" }, self.authority, self.base)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Readable for ServerUrl {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.parse("the address of a server, such as \"http://127.0.0.1:8500\"", Self::parse)
    }
}

impl ServerSettings {
    /// Reads `address`, `ca_file`, `certificate_file` with `key_file`, `server_name` and `max_answer`. `address` is the
    /// server when the file names none.
    #[must_use]
    pub fn read(section: &Section<'_>, address: &str) -> Option<Self> {
        let url = match section.get("address") {
            Some(value) => ServerUrl::read(&value),
            None => ServerUrl::parse(address).ok(),
        };
        Self::read_at(section, vec![url?])?.pop()
    }

    /// The same where a variable of the environment, which says `address`, may stand in for the file. What it says is told
    /// when it cannot be used.
    #[must_use]
    pub fn read_or_from(section: &Section<'_>, variable: &str, address: &str) -> Option<Self> {
        if !section.has("address")
            && let Err(why) = ServerUrl::parse(address)
        {
            let fault =
                Fault::error(section.place(), format!("the variable {variable} cannot be used: {why}"));
            section.report(fault.help("say where the server is: address = \"http://…\""));
        }
        Self::read(section, address)
    }

    /// The same with `addresses`, one or several, of servers that prove themselves alike.
    #[must_use]
    pub fn read_several(section: &Section<'_>, address: &str) -> Option<Vec<Self>> {
        let urls = match section.get("addresses") {
            Some(value) => {
                let OneOrMany(urls) = OneOrMany::<ServerUrl>::read(&value)?;
                if urls.is_empty() {
                    value.reject("no address is named", "expected at least one");
                    return None;
                }
                urls
            }
            None => vec![ServerUrl::parse(address).ok()?],
        };
        Self::read_at(section, urls)
    }

    fn read_at(section: &Section<'_>, urls: Vec<ServerUrl>) -> Option<Vec<Self>> {
        let ca_file = section.read("ca_file");
        let certificate: Option<PathBuf> = section.read("certificate_file");
        let key: Option<PathBuf> = section.read("key_file");
        let server_name: Option<String> = section.get("server_name").and_then(|value| {
            value.parse("a host name", |text| ServerName::try_from(text.to_owned()).map(|_| text.to_owned()))
        });
        let max_answer = section.read_or("max_answer", Size(MAX_ANSWER));
        if certificate.is_some() != key.is_some() {
            let (written, lacking) = if key.is_some() {
                ("key_file", "certificate_file")
            } else {
                ("certificate_file", "key_file")
            };
            let fault = Fault::error(section.key_place(written), format!("`{written}` without `{lacking}`"));
            section.report(fault.expected("expected both or none"));
            return None;
        }
        let max_answer = usize::try_from(max_answer.0).ok()?;
        let certificate = certificate.zip(key);
        let settings = |url| Self {
            url,
            ca_file: ca_file.clone(),
            certificate: certificate.clone(),
            server_name: server_name.clone(),
            max_answer,
        };
        Some(urls.into_iter().map(settings).collect())
    }

    /// Warns of a secret that goes to one of these servers over plain HTTP. It is named by the first of `keys` that is
    /// written, else by the `variable` of the environment that holds it.
    pub fn warn_of_overheard<'s>(
        section: &Section<'_>,
        servers: impl IntoIterator<Item = &'s Self>,
        keys: &[&'static str],
        variable: &str,
    ) {
        let Some(server) = servers.into_iter().find(|server| server.url.is_overheard()) else { return };
        let key = keys.iter().find(|key| section.has(key));
        let (place, name) =
            key.map_or_else(|| (section.place(), variable), |key| (section.key_place(key), key));
        let message = format!(
            "the secret of `{name}` goes over plain HTTP to {}: whoever is on the way can read and use it",
            server.url
        );
        section.report(
            Fault::warning(place, message).help("say https:// in the address, or ask an agent on this host"),
        );
    }

    pub(super) fn connector(
        &self,
        tcp: HttpConnector,
    ) -> Result<HttpsConnector<HttpConnector>, RegistryError> {
        let config = self.tls()?;
        let mut builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        if let Some(name) = &self.server_name {
            let name = ServerName::try_from(name.clone()).map_err(|error| unusable("server_name", error))?;
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        Ok(builder.enable_http1().wrap_connector(tcp))
    }

    fn tls(&self) -> Result<ClientConfig, RegistryError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS", error))?
            .with_root_certificates(self.roots()?);
        match &self.certificate {
            None => Ok(builder.with_no_client_auth()),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| unreadable(certificate, error))
            }
        }
    }

    fn roots(&self) -> Result<RootCertStore, RegistryError> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| unreadable(path, error))?;
                }
            }
            // Without TLS nobody asks for them, and reading them takes milliseconds.
            None if self.url.secure => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            None => {}
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error| unreadable(path, error))?;
    if certificates.is_empty() {
        Err(unreadable(path, "there is no certificate in it"))
    } else {
        Ok(certificates)
    }
}

fn unreadable(path: &Path, why: impl fmt::Display) -> RegistryError {
    RegistryError::Unreachable(format!("{} cannot be used: {why}", path.display()))
}

fn unusable(what: &str, why: impl fmt::Display) -> RegistryError {
    RegistryError::Unreachable(format!("{what} cannot be used: {why}"))
}

/// Spreads what many agents would do at once: between three quarters and five quarters of a time.
#[must_use]
pub fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// The pause after so many failures in a row before this one: the first, doubled with each, the longest at most, spread.
#[must_use]
pub fn growing_pause((first, longest): (Duration, Duration), failures: u32) -> Duration {
    jittered(longest.min(first.saturating_mul(2_u32.saturating_pow(failures))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_are_spread() {
        let second = Duration::from_secs(1);
        for (failures, pause) in [(0, 1), (1, 2), (3, 8), (4, 10), (u32::MAX, 10)] {
            let drawn = growing_pause((second, 10 * second), failures);
            let spread = (second * pause).mul_f64(0.75)..=(second * pause).mul_f64(1.25);
            assert!(spread.contains(&drawn), "{failures}: {drawn:?}");
        }
        // However far the longest is from the first, it is come to.
        assert!(growing_pause((second, 1000 * second), u32::MAX) >= 750 * second);
    }
}
