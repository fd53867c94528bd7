//! A token that proves who asks, read again and again: it is renewed under a running agent.
//!
//! Only where it lies is configured, never the token itself: the configuration is shown to operators and kept in
//! version control. It appears in no error, no log and no debug output.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{io::AsyncReadExt, time::timeout};
use weft_core::{
    config::{Fault, Section},
    registry::RegistryError,
};

/// The longest token, in bytes: service account tokens of Kubernetes have about one thousand.
const MAX_TOKEN: usize = 64 << 10;
/// How long a token may take to be read.
const READ: Duration = Duration::from_secs(5);

/// Where a token lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// There is none: anonymous.
    None,
    /// A file, white space around the token not counted.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
}

/// A token. Shows itself to nobody but whoever sends it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token that a server gave.
    ///
    /// # Errors
    /// When it is empty, too long or not visible ASCII, which no header could carry.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        if text.len() > MAX_TOKEN {
            return Err("it is longer than 64 KiB");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it holds more than visible ASCII characters");
        }
        Ok(Self(text.to_owned()))
    }

    /// The token itself, for a header.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Credential {
    /// Reads `token_file` and `token_env`, at most one of which is written. With neither, `variable` of the environment
    /// holds the token where it is set: what the platform's own tools look at.
    #[must_use]
    pub fn read(section: &Section<'_>, variable: &str) -> Option<Self> {
        Self::read_named(section, ("token_file", "token_env"), Some(variable))
    }

    /// The same under other keys: that of a file and that of a variable's name.
    #[must_use]
    pub fn read_named(
        section: &Section<'_>,
        (file_key, variable_key): (&'static str, &'static str),
        variable: Option<&str>,
    ) -> Option<Self> {
        let file = section.get(file_key).map(|value| weft_core::config::Readable::read(&value));
        let named = section.get(variable_key).map(|value| value.text("a variable's name").map(str::to_owned));
        let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
        match (file, named) {
            (Some(_), Some(_)) => {
                let both = format!("`{variable_key}` beside `{file_key}`");
                let fault = Fault::error(section.key_place(variable_key), both);
                section.report(
                    fault.expected(format!("expected at most one of `{file_key}`, `{variable_key}`")),
                );
                None
            }
            (Some(file), None) => Some(Self::File(file?)),
            (None, Some(named)) => Some(Self::Variable(named?)),
            (None, None) => {
                Some(variable.filter(is_set).map_or(Self::None, |name| Self::Variable(name.to_owned())))
            }
        }
    }

    /// The token as it is now; none for an anonymous one.
    ///
    /// # Errors
    /// When it cannot be read, or what lies there is no token.
    pub async fn token(&self) -> Result<Option<Token>, RegistryError> {
        let denied =
            |place: String, why: String| RegistryError::Denied(format!("no token in {place}: {why}"));
        let (text, place) = match self {
            Self::None => return Ok(None),
            Self::File(path) => {
                let place = path.display().to_string();
                // A file may lie on another host, or be none at all.
                let text = timeout(READ, read(path)).await.unwrap_or_else(|_| {
                    let why = format!("it cannot be read within {} s", READ.as_secs());
                    Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why))
                });
                (text.map_err(|error| denied(place.clone(), error.to_string()))?, place)
            }
            Self::Variable(name) => {
                let place = format!("the variable {name}");
                (env::var(name).map_err(|_| denied(place.clone(), "it is not set".into()))?, place)
            }
        };
        Token::new(text.trim()).map(Some).map_err(|why| denied(place, why.into()))
    }
}

/// Reads no more than shows that it is no token.
async fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(MAX_TOKEN as u64 + 2).read_to_string(&mut text).await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_read_again_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let credential = Credential::File(path.clone());
        let missing = credential.token().await.unwrap_err().to_string();
        assert!(missing.contains(path.to_str().unwrap()), "{missing}");
        for text in ["one", " two\n"] {
            std::fs::write(&path, text).unwrap();
            let token = credential.token().await.unwrap().unwrap();
            assert_eq!(token.secret(), text.trim());
            assert!(!format!("{token:?}").contains(text.trim()));
        }
        for wrong in ["", "\n", "two words", "a\nb", "schl\u{fc}ssel"] {
            std::fs::write(&path, wrong).unwrap();
            let error = credential.token().await.unwrap_err().to_string();
            assert!(wrong.trim().is_empty() || !error.contains(wrong), "{error}");
        }
        std::fs::write(&path, "x".repeat(MAX_TOKEN + 1)).unwrap();
        assert!(credential.token().await.unwrap_err().to_string().contains("longer than 64 KiB"));
        assert_eq!(Credential::None.token().await, Ok(None));
        assert!(Credential::Variable("WEFT_NO_SUCH_VARIABLE".into()).token().await.is_err());
    }
}
