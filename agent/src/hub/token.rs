//! One-time join tokens.
//!
//! A token is a text that an operator carries from the hub to a host: where the hub is, which root it must prove, and a
//! secret that buys one node certificate. The hub keeps only the secret's hash, so its store gives no token away.

use aws_lc_rs::{digest, rand};
use data_encoding::BASE64URL_NOPAD;
use prost::Message;
use weft_core::identity::TrustDomain;

/// What every token begins with.
const PREFIX: &str = "weft-join-1.";
/// How many bytes of its hash a token carries, to tell a mistyped or cut one from a wrong one.
const CHECKSUM: usize = 4;
/// The longest text that is read as a token.
const MAX_LENGTH: usize = 1024;

/// A one-time token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Where the hub is, as `host:port`; empty when the operator says it.
    pub hub: String,
    /// The only node that may use it, which is then the joining host's name; none when the host names itself.
    pub node: Option<String>,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// The SHA-256 of the root certificate that the hub must chain to.
    pub root_pin: [u8; 32],
    /// What buys the certificate.
    pub secret: [u8; 32],
}

/// Why a text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as tokens do.
    #[error("this is not a join token: it does not begin with \"weft-join-1.\"")]
    Prefix,
    /// It is too long, or holds characters that a token never has.
    #[error("this join token holds characters that no token has, or is too long")]
    Text,
    /// A part is missing or changed.
    #[error("this join token is cut short or mistyped")]
    Checksum,
    /// Its content makes no sense.
    #[error("this join token's content makes no sense; was it made by another version?")]
    Content,
}

#[derive(Clone, PartialEq, Message)]
struct TokenMessage {
    #[prost(string, tag = "1")]
    hub: String,
    #[prost(string, tag = "2")]
    trust_domain: String,
    #[prost(bytes = "vec", tag = "3")]
    root_pin: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    secret: Vec<u8>,
    #[prost(string, tag = "5")]
    node: String,
}

impl Token {
    /// A token with a new secret.
    #[must_use]
    pub fn new(hub: &str, node: Option<&str>, trust_domain: &TrustDomain, root: &[u8]) -> Self {
        Self {
            hub: hub.to_owned(),
            node: node.map(str::to_owned),
            trust_domain: trust_domain.clone(),
            root_pin: sha256(root),
            secret: random(),
        }
    }

    /// Reads what [`Self::to_text`] wrote; white space around it is ignored.
    ///
    /// # Errors
    /// Says what is wrong, without repeating the text: it is a secret.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if encoded.len() > MAX_LENGTH {
            return Err(TokenError::Text);
        }
        let bytes = match BASE64URL_NOPAD.decode(encoded.as_bytes()) {
            Ok(bytes) => bytes,
            Err(fault) if fault.kind == data_encoding::DecodeKind::Symbol => return Err(TokenError::Text),
            // A length or trailing bits that base64 never has: something is missing.
            Err(_) => return Err(TokenError::Checksum),
        };
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(TokenError::Checksum)?;
        if sha256(content)[..CHECKSUM] != *checksum {
            return Err(TokenError::Checksum);
        }
        let message = TokenMessage::decode(content).map_err(|_| TokenError::Content)?;
        Ok(Self {
            hub: message.hub,
            node: Some(message.node).filter(|node| !node.is_empty()),
            trust_domain: TrustDomain::new(&message.trust_domain).map_err(|_| TokenError::Content)?,
            root_pin: message.root_pin.try_into().map_err(|_| TokenError::Content)?,
            secret: message.secret.try_into().map_err(|_| TokenError::Content)?,
        })
    }

    /// The token as text: one word, safe in shells and URLs.
    #[must_use]
    pub fn to_text(&self) -> String {
        let message = TokenMessage {
            hub: self.hub.clone(),
            trust_domain: self.trust_domain.to_string(),
            root_pin: self.root_pin.to_vec(),
            secret: self.secret.to_vec(),
            node: self.node.clone().unwrap_or_default(),
        };
        let mut bytes = message.encode_to_vec();
        let checksum = sha256(&bytes);
        bytes.extend_from_slice(&checksum[..CHECKSUM]);
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// What the hub's store keeps of it.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        sha256(&self.secret)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// The SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Bytes nobody can guess.
#[must_use]
pub fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    rand::fill(&mut bytes).expect("the system's random source does not fail once the process runs");
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token::new("hub.example:15012", Some("one"), &TrustDomain::new("demo.mesh").unwrap(), b"root")
    }

    #[test]
    fn a_token_comes_back_as_it_was() {
        let token = token();
        assert_eq!(Token::parse(&format!(" {}\n", token.to_text())).unwrap(), token);
        assert!(!format!("{token:?}").contains("secret"), "a log must not hold it");
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let text = token().to_text();
        assert_eq!(Token::parse("hello"), Err(TokenError::Prefix));
        assert_eq!(Token::parse(&text.replacen("1.C", "1.!", 1)), Err(TokenError::Text));
        assert_eq!(Token::parse(&format!("{PREFIX}{}", "A".repeat(5000))), Err(TokenError::Text));
        assert_eq!(Token::parse(PREFIX), Err(TokenError::Checksum));
    }

    proptest! {
        #[test]
        fn every_cut_or_changed_token_is_refused(at in 0usize..500, letter in "[A-Za-z0-9_-]") {
            let text = token().to_text();
            let at = PREFIX.len() + at % (text.len() - PREFIX.len());
            prop_assert!(Token::parse(&text[..at]).is_err());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &letter);
            prop_assert!(changed == text || Token::parse(&changed).is_err());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,300}") {
            let _ = Token::parse(&text);
            let _ = Token::parse(&format!("{PREFIX}{text}"));
        }
    }
}
