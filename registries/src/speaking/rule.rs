//! One rule of a registry's section: what it says and for which services.

use std::fmt;

use weft_core::{
    config::{Fault, Port, Readable, Section, Value},
    identity::{SpiffeId, TrustDomain},
    resource::AppProtocol,
};

use super::Instance;

const TLS: [(&str, TlsRule); 3] =
    [("required", TlsRule::Required), ("preferred", TlsRule::Preferred), ("off", TlsRule::Off)];
const PROTOCOLS: [(&str, AppProtocol); 4] = [
    ("http", AppProtocol::Http),
    ("http2", AppProtocol::Http2),
    ("grpc", AppProtocol::Grpc),
    ("tcp", AppProtocol::Tcp),
];

/// `tls = …` of a registry or one of its services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsRule {
    /// Only endpoints that speak mesh are called.
    #[default]
    Required,
    /// Endpoints that speak mesh are called in mutual TLS, others in plaintext.
    Preferred,
    /// Plaintext.
    Off,
}

/// What is said for a registry, or for some of its services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) tls: Option<TlsRule>,
    pub(super) identity: Option<Template>,
    pub(super) mesh_port: Option<u16>,
    pub(super) protocol: Option<AppProtocol>,
}

impl Rule {
    pub(super) fn read(section: &Section<'_>, words: &[&'static str]) -> Option<Self> {
        let word = |key, section: &Section<'_>| section.get(key).map(|value| value.word(&TLS));
        let tls = word("tls", section);
        let identity = section.get("identity").map(|value| Template::read(&value, words));
        let mesh_port = section.get("mesh_port").map(|value| Port::read(&value));
        let protocol = section.get("protocol").map(|value| value.word(&PROTOCOLS));
        let rule = Self {
            tls: written(tls)?,
            identity: written(identity)?,
            mesh_port: written(mesh_port)?.map(|Port(port)| port),
            protocol: written(protocol)?,
        };
        if rule.tls == Some(TlsRule::Off) && (rule.identity.is_some() || rule.mesh_port.is_some()) {
            let key = if rule.identity.is_some() { "identity" } else { "mesh_port" };
            let fault = Fault::error(section.key_place(key), format!("`{key}` beside tls = \"off\""));
            section.report(fault.expected("nobody proves who he is in plaintext: leave one of the two out"));
            return None;
        }
        Some(rule)
    }
}

/// A key that is not written, or its value; none when it is written and wrong, which was reported.
fn written<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

/// An identity with words in braces: `ns/{namespace}/sa/{service}`, or with `spiffe://domain/` before it.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
}

impl Template {
    /// Reads it; `words` may be named beside `service` and `namespace`.
    fn read(value: &Value<'_>, words: &[&'static str]) -> Option<Self> {
        let expected = "an identity with words in braces, such as \"ns/{namespace}/sa/{service}\"";
        let known: Vec<&str> = ["service", "namespace"].into_iter().chain(words.iter().copied()).collect();
        value.parse(expected, |text| Self::parse(text, &known))
    }

    fn parse(text: &str, known: &[&str]) -> Result<Self, String> {
        let template = Self { text: text.to_owned() };
        // Filled with something harmless it must be an identity.
        let listed = || known.iter().map(|word| format!("{{{word}}}")).collect::<Vec<_>>().join(", ");
        let filled = template.filled(|word| known.contains(&word).then_some("x")).map_err(|word| {
            format!("{{{}}} is none of {}", word.chars().take(40).collect::<String>(), listed())
        })?;
        let domain = TrustDomain::new("x").map_err(|error| error.to_string())?;
        identity(&filled, Some(&domain)).map(|_| template)
    }

    /// The identity of an instance.
    ///
    /// # Errors
    /// When a word is unknown for this instance, or what comes out is no identity.
    pub(super) fn fill(
        &self,
        instance: &Instance<'_>,
        trust_domain: Option<&TrustDomain>,
    ) -> Result<SpiffeId, String> {
        let filled = self.filled(|word| match word {
            "service" => Some(instance.service.label()),
            "namespace" => Some(instance.service.namespace()),
            _ => instance.words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value),
        });
        let filled =
            filled.map_err(|word| format!("the identity's rule needs its {word}, which is not known"))?;
        identity(&filled, trust_domain)
    }

    /// The text with every word replaced; the first that is not known otherwise.
    fn filled<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Result<String, String> {
        let mut filled = String::with_capacity(self.text.len() + 32);
        let mut rest = self.text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (word, after) = after.split_once('}').ok_or_else(|| after.to_owned())?;
            filled.push_str(before);
            filled.push_str(value(word).filter(|value| !value.is_empty()).ok_or_else(|| word.to_owned())?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// A word's value must not bring slashes of its own: the identity's form is checked after it is filled in.
fn identity(filled: &str, trust_domain: Option<&TrustDomain>) -> Result<SpiffeId, String> {
    let shown = |error: weft_core::name::NameError| error.to_string();
    if filled.starts_with("spiffe://") {
        return SpiffeId::parse(filled).map_err(shown);
    }
    let domain = trust_domain.ok_or("the identity's rule names no trust domain, and none is configured")?;
    SpiffeId::parse(&format!("spiffe://{domain}/{filled}")).map_err(shown)
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}
