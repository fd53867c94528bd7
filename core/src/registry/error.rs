//! What can go wrong while following a registry, told apart by what it means for the state that is held.

/// Why a watch ended. None of these ever removes an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Nobody answered, or the connection broke.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The server refused our credential, or a right is missing.
    #[error("not allowed: {0}")]
    Denied(String),
    /// The server asks to come back later.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// The answer makes no sense.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// Words were lost: a full list is needed.
    #[error("gap: {0}")]
    Gap(String),
    /// The stream broke, and another server that has the same words is there already: no outage.
    #[error("moved: {0}")]
    Moved(String),
}

impl RegistryError {
    /// A short static label, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Denied(_) => "denied",
            Self::Overloaded(_) => "overloaded",
            Self::Malformed(_) => "malformed",
            Self::Gap(_) => "gap",
            Self::Moved(_) => "moved",
        }
    }
}
