use std::str::FromStr;

use super::{DEFAULT_NAMESPACE, NameError, ServiceName};

/// Services by name: `web.default`, `*.default`, `web.*` or `*`; a bare `web` means `web.default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePattern {
    /// None fits any.
    label: Option<String>,
    /// None fits any.
    namespace: Option<String>,
}

impl ServicePattern {
    /// Whether one of the patterns fits a service; where none are declared, any service is admitted.
    #[must_use]
    pub fn admits(declared: Option<&[Self]>, service: &ServiceName) -> bool {
        declared.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.fits(service)))
    }

    /// Whether a service is meant.
    #[must_use]
    pub fn fits(&self, service: &ServiceName) -> bool {
        let is = |wanted: &Option<String>, part: &str| wanted.as_ref().is_none_or(|wanted| wanted == part);
        is(&self.label, service.label()) && is(&self.namespace, service.namespace())
    }

    /// Whether it is for this service and no other.
    #[must_use]
    pub fn is_exactly(&self, service: &ServiceName) -> bool {
        self.label.is_some() && self.namespace.is_some() && self.fits(service)
    }
}

impl FromStr for ServicePattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "*" {
            return Ok(Self { label: None, namespace: None });
        }
        let (label, namespace) = text.split_once('.').unwrap_or((text, DEFAULT_NAMESPACE));
        let starred = |part: &str| part.contains('*') && part != "*";
        if starred(label) || starred(namespace) {
            let reason = "a star stands for a whole part of the name, as in \"*.default\"";
            return Err(NameError::new("pattern of services", text, reason));
        }
        // Whatever stands for a star makes the rest a name that can be checked.
        ServiceName::new(&format!("{}.{}", label.replace('*', "x"), namespace.replace('*', "x")))?;
        let part = |part: &str| (part != "*").then(|| part.to_owned());
        Ok(Self { label: part(label), namespace: part(namespace) })
    }
}
