//! What an operator should know about the configuration and the registries, as data.
//!
//! A diagnostic is a state, not an occurrence: it stands in `weft status` as long as its cause does and goes with it.
//! Logs are for occurrences.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is not in force, works less well than declared, or was decided in a way that may surprise.
    Warning,
    /// Something that was declared is refused.
    Error,
}

impl Severity {
    /// The word for it, for logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where: resources as `registry/name`, files with line and column; most relevant first.
    pub places: Vec<String>,
    /// What is so, what follows from it and what can be done, for a person.
    pub message: String,
}

impl Diagnostic {
    /// Something less than was declared.
    pub fn warning(place: impl fmt::Display, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, place, message)
    }

    /// Something refused.
    pub fn error(place: impl fmt::Display, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, place, message)
    }

    fn new(severity: Severity, place: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { severity, places: vec![place.to_string()], message: message.into() }
    }

    /// Names a further place.
    #[must_use]
    pub fn and_at(mut self, place: impl fmt::Display) -> Self {
        self.places.push(place.to_string());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity.label(), self.places.join(", "), self.message)
    }
}
