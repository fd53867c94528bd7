//! One thing wrong in a file, self-contained: it can be shown, logged or sent when the file is long closed.

use std::{fmt, sync::Arc};

use serde::Serialize;

/// Whether a fault keeps the file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file works, but probably not as meant.
    Warning,
}

impl Severity {
    /// The word people read.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Where something stands in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Place {
    /// The file as it was named to us.
    pub file: Arc<str>,
    /// Line, from 1; 0 when the fault is the file itself.
    pub line: u32,
    /// Column in characters, from 1; 0 when the fault is the file itself.
    pub column: u32,
    /// How many characters are meant, at least 1 within a line.
    pub width: u32,
    /// The text of the line, without its end, secrets starred out.
    #[serde(skip)]
    pub line_text: Arc<str>,
}

impl Place {
    /// A whole file: one that is missing, or not text.
    #[must_use]
    pub fn whole_file(file: &str) -> Self {
        Self { file: file.into(), line: 0, column: 0, width: 0, line_text: "".into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// A second place that a fault speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Related {
    /// What stands there.
    pub message: String,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
}

/// One thing wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Fault {
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What was expected there; may be empty.
    pub expected: String,
    /// How to mend it; may be empty.
    pub help: String,
    /// Other places that matter, such as the first of two.
    pub related: Vec<Related>,
}

impl Fault {
    /// A fault for which the file is refused.
    #[must_use]
    pub fn error(place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            place,
            expected: String::new(),
            help: String::new(),
            related: Vec::new(),
        }
    }

    /// A fault that does not keep the file from being used.
    #[must_use]
    pub fn warning(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, message) }
    }

    /// Says what was expected.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }

    /// Says how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Offers the nearest valid word, when there is one.
    #[must_use]
    pub fn did_you_mean(self, nearest: Option<&str>) -> Self {
        match nearest {
            Some(word) => self.help(format!("did you mean `{word}`?")),
            None => self,
        }
    }

    /// Points to another place.
    #[must_use]
    pub fn related(mut self, place: Place, message: impl Into<String>) -> Self {
        self.related.push(Related { message: message.into(), place });
        self
    }

    /// Whether the file is refused for it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// One line: place, message and what was expected; for logs and status.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.severity.word(), self.message)?;
        if !self.expected.is_empty() {
            write!(f, " ({})", self.expected)?;
        }
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        for related in &self.related {
            write!(f, "; {} at {}", related.message, related.place)?;
        }
        Ok(())
    }
}

/// Faults as a JSON array, for programs.
#[must_use]
pub fn to_json(faults: &[Fault]) -> serde_json::Value {
    serde_json::to_value(faults).unwrap_or_default()
}
