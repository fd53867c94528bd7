//! What a server says of our token that was away a moment ago: it lists, and refuses, before it has read its tokens again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use weft_core::registry::RegistryError;

/// How long after it was away a server may not know our token yet.
const NOT_YET: Duration = Duration::from_secs(10);

/// When the server was away last. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Absence(Arc<Mutex<Option<Instant>>>);

impl Absence {
    /// What an error means, in words that name it: a token that a server does not know which was just away belongs to its outage.
    pub(super) fn explain(&self, error: RegistryError, now: Instant) -> RegistryError {
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            RegistryError::Denied(said) if said.contains("ACL not found") => {
                if away.is_none_or(|at| now.saturating_duration_since(at) >= NOT_YET) {
                    // Of a login, the method is what is not known.
                    let is_method = said.contains("auth method");
                    let said = if is_method { said } else { format!("the token is not known: {said}") };
                    return RegistryError::Denied(said);
                }
                RegistryError::Unreachable(format!(
                    "{said}: the server was away, and may not know its tokens yet"
                ))
            }
            RegistryError::Unreachable(_) | RegistryError::Overloaded(_) => {
                *away = Some(now);
                error
            }
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_unknown_only_to_a_server_that_was_there_for_a_while() {
        let (absence, begin) = (Absence::default(), Instant::now());
        let explained = |after: u64| {
            let denied = RegistryError::Denied("GET /v1/catalog/nodes: 403: ACL not found".into());
            absence.explain(denied, begin + Duration::from_secs(after))
        };
        let unknown = |after: u64| explained(after).label();
        let said = explained(0).to_string();
        let method = RegistryError::Denied("403: ACL not found: auth method \"x\" not found".into());
        assert_eq!(absence.explain(method.clone(), begin), method);
        assert!(said.contains("the token is not known: GET /v1/catalog/nodes: 403: ACL not found"), "{said}");
        assert_eq!(unknown(0), "denied", "it was never away");
        absence.explain(RegistryError::Unreachable("refused".into()), begin + Duration::from_secs(20));
        assert_eq!((unknown(21), unknown(29)), ("unreachable", "unreachable"));
        assert_eq!(unknown(30), "denied", "what it says so does not count as being away");
        let lacks = RegistryError::Denied("403: Permission denied".into());
        absence.explain(RegistryError::Unreachable("refused".into()), begin);
        assert_eq!(absence.explain(lacks.clone(), begin), lacks);
    }
}
