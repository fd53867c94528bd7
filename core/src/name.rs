//! Checked names, each its own type, cheap to clone.
//!
//! A name is checked once, where it enters (a file, a registry, a socket); afterwards its type is the proof. Names are
//! reference-counted strings, so that thousands of endpoints share one `reviews`; only instances, which share nothing,
//! own theirs, and save the counters.

mod pattern;

use std::fmt;

use arcstr::ArcStr;
use serde::{Deserialize, Serialize};

pub use pattern::ServicePattern;

use crate::intern::Pool;

/// The namespace of a service whose name says none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: {reason}")]
pub struct NameError {
    /// What was expected, in the words of the documentation.
    pub kind: &'static str,
    /// What was given, cut to 80 characters.
    pub text: String,
    /// Which rule it breaks.
    pub reason: &'static str,
}

impl NameError {
    pub(crate) fn new(kind: &'static str, text: &str, reason: &'static str) -> Self {
        Self { kind, text: text.chars().take(80).collect(), reason }
    }
}

/// Declares a checked string type that is shared by all who use it.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:expr) => {
        checked_text!($(#[$doc])* $name, ArcStr, $kind, $check);

        impl $name {
            /// Shares the text with all equal ones of the pool.
            #[allow(dead_code)] // Not every kind of name comes in thousands.
            pub(crate) fn intern(&mut self, pool: &mut Pool) {
                pool.text(&mut self.0);
            }
        }
    };
}

/// Declares a checked string type with the usual conversions.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $text:ty, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name($text);

        impl $name {
            /// Checks `text`.
            ///
            /// # Errors
            /// Names the rule that `text` breaks.
            pub fn new(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                check(text).map_err(|reason| NameError::new($kind, text, reason))?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().into()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// One to 63 of `[a-z0-9_-]`, a letter or digit at both ends: a DNS label, and the underscore that Consul allows.
fn label(text: &str) -> Result<(), &'static str> {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) if alphanumeric(first) && alphanumeric(last) => {}
        (None, _) => return Err("it is empty"),
        _ => return Err("it must begin and end with a lower-case letter or a digit"),
    }
    if bytes.len() > 63 {
        return Err("it is longer than 63 characters");
    }
    if !bytes.iter().all(|&b| alphanumeric(b) || b == b'-' || b == b'_') {
        return Err("only lower-case letters, digits, '-' and '_' are allowed");
    }
    Ok(())
}

/// One to 253 visible ASCII characters.
fn opaque(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > 253 {
        return Err("it is longer than 253 bytes");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("only visible ASCII characters are allowed");
    }
    Ok(())
}

/// A host name: labels joined by dots, at most 253 bytes, lower case.
fn host(text: &str) -> Result<(), &'static str> {
    if text.len() > 253 {
        return Err("it is longer than 253 bytes");
    }
    text.split('.').try_for_each(label)
}

checked_name!(
    /// The name of a configured registry, such as `static`, `hub` or `consul-east`.
    RegistryName, "registry name", label
);
checked_name!(
    /// The name of a local workload in the agent's configuration.
    WorkloadName, "workload name", label
);
checked_name!(
    /// The first part of a service's name: `reviews` in `reviews.default`.
    ServiceLabel, "service name", label
);
checked_name!(
    /// A namespace: `default` in `reviews.default`.
    Namespace, "namespace", label
);
checked_name!(
    /// The name of a service's port, such as `http`.
    PortName, "port name", label
);
checked_text!(
    /// One instance of a service within its registry: a pod, an allocation, a host and port.
    InstanceName, Box<str>, "instance name", opaque
);
checked_name!(
    /// The name of a route or a policy within its registry.
    RuleName, "rule name", opaque
);
checked_name!(
    /// What speaks as a whole in a registry: a slice, a Consul service, an allocation's service, a file.
    OriginName, "origin name", opaque
);
checked_name!(
    /// A host name, lower case, without a port or a final dot.
    HostName, "host name", host
);

/// The name of a service within its registry: `reviews.default`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName {
    /// Two labels with a dot between them. One text and not two: every endpoint carries it.
    text: ArcStr,
}

impl ServiceName {
    /// Reads `name.namespace`; a bare `name` means the namespace `default`.
    ///
    /// # Errors
    /// Names the rule that `text` breaks.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let (label, namespace) = text.split_once('.').unwrap_or((text, DEFAULT_NAMESPACE));
        ServiceLabel::new(label)?;
        Namespace::new(namespace)?;
        let is_whole = text.len() > label.len();
        Ok(Self { text: if is_whole { text.into() } else { format!("{label}.{namespace}").into() } })
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `reviews` in `reviews.default`.
    #[must_use]
    pub fn label(&self) -> &str {
        self.parts().0
    }

    /// `default` in `reviews.default`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.text.split_once('.').unwrap_or((&self.text, DEFAULT_NAMESPACE))
    }

    /// Shares the text with all equal ones of the pool.
    pub(crate) fn intern(&mut self, pool: &mut Pool) {
        pool.text(&mut self.text);
    }

    /// The host name under which every workload reaches the service: `reviews.default.mesh`.
    #[must_use]
    pub fn mesh_host(&self) -> String {
        format!("{self}.mesh")
    }

    /// The service's name as a host name, which shares its text.
    pub(crate) fn host(&self) -> HostName {
        HostName(self.text.clone())
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

impl std::str::FromStr for ServiceName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> String {
        name.as_str().into()
    }
}

/// A service of the whole mesh: its registry and its name there. Two registries' `web.default` are two services.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ServiceKey {
    /// The registry whose partition holds the service.
    pub registry: RegistryName,
    /// Its name there.
    pub service: ServiceName,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.service)
    }
}
