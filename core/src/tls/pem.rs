//! PEM (RFC 7468), read strictly so that a wrong file is told with its line.
//!
//! The usual accidents each have their own error: a key where a certificate should be, two files joined without the
//! newline between them, a block cut short, an encrypted key.

use data_encoding::BASE64;

/// One block of a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemBlock {
    /// What stands after `BEGIN`, such as `CERTIFICATE`.
    pub label: String,
    /// The decoded content.
    pub content: Vec<u8>,
    /// The line of `-----BEGIN`, from 1.
    pub line: usize,
}

/// Why a text is not the PEM that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// No block at all.
    #[error("it holds no PEM block (\"-----BEGIN …-----\"); is it DER or empty?")]
    Empty,
    /// Two files were joined without the newline between them.
    #[error(
        "line {line}: a newline is missing between \"-----END …-----\" and \"-----BEGIN …-----\" (were two files joined?)"
    )]
    MissingNewline {
        /// Where, from 1.
        line: usize,
    },
    /// A block does not end.
    #[error("the block {label:?} that begins in line {line} does not end; is the file cut short?")]
    Unfinished {
        /// What it begins as.
        label: String,
        /// Where it begins, from 1.
        line: usize,
    },
    /// A line begins with dashes and is neither a beginning nor the end that is due.
    #[error("line {line}: {text:?} is not the marker expected here ({expected})")]
    WrongMarker {
        /// Where, from 1.
        line: usize,
        /// The line, cut to 80 characters.
        text: String,
        /// Which marker is due.
        expected: String,
    },
    /// The content is not base64.
    #[error("the block {label:?} that begins in line {line} is not valid base64")]
    Base64 {
        /// What it begins as.
        label: String,
        /// Where it begins, from 1.
        line: usize,
    },
    /// A block of another kind.
    #[error("line {line}: found {found:?}, expected {expected}{}", hint(found))]
    WrongLabel {
        /// Where it begins, from 1.
        line: usize,
        /// Its label.
        found: String,
        /// Which labels are right here.
        expected: &'static str,
    },
    /// More than one where only one makes sense.
    #[error("line {line}: a second {label:?}; only one belongs here")]
    Several {
        /// Where the second begins, from 1.
        line: usize,
        /// Its label.
        label: String,
    },
}

fn hint(found: &str) -> &'static str {
    match found {
        "ENCRYPTED PRIVATE KEY" => " (the key is encrypted: remove its passphrase)",
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => " (a signing request is not yet a certificate)",
        "PUBLIC KEY" => " (a public key alone is neither a certificate nor a private key)",
        "EC PARAMETERS" => " (leave the parameters out of the file)",
        _ if found.ends_with("PRIVATE KEY") => " (are the paths of certificate and key swapped?)",
        "CERTIFICATE" => " (are the paths of certificate and key swapped?)",
        _ => "",
    }
}

/// Reads all blocks of a text. Lines outside of blocks are ignored (RFC 7468 §2), a missing last newline is fine.
///
/// # Errors
/// Names the line and what is wrong with it.
pub fn read_pem(text: &str) -> Result<Vec<PemBlock>, PemError> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim_ascii());
        if line.starts_with("-----END ") && line.contains("-BEGIN ") {
            return Err(PemError::MissingNewline { line: number });
        }
        open = match open.take() {
            None => marker(line, "-----BEGIN ").map(|label| (label.to_owned(), number, String::new())),
            Some((label, begun, content)) if marker(line, "-----END ") == Some(label.as_str()) => {
                blocks.push(finish(label, begun, &content)?);
                None
            }
            Some((label, _, _)) if line.starts_with('-') => {
                let expected = format!("-----END {label}-----");
                return Err(PemError::WrongMarker {
                    line: number,
                    text: line.chars().take(80).collect(),
                    expected,
                });
            }
            Some((label, begun, mut content)) => {
                content.push_str(line);
                Some((label, begun, content))
            }
        };
    }
    match open {
        Some((label, line, _)) => Err(PemError::Unfinished { label, line }),
        None if blocks.is_empty() => Err(PemError::Empty),
        None => Ok(blocks),
    }
}

/// The certificates of a file that holds nothing else, at least one, in DER.
pub(super) fn read_certificates(text: &str) -> Result<Vec<Vec<u8>>, PemError> {
    let expected = "\"CERTIFICATE\"";
    read_pem(text)?
        .into_iter()
        .map(|block| match block.label.as_str() {
            "CERTIFICATE" => Ok(block.content),
            _ => Err(PemError::WrongLabel { line: block.line, found: block.label, expected }),
        })
        .collect()
}

/// The one private key of a file that holds nothing else.
pub(super) fn read_private_key(text: &str) -> Result<PemBlock, PemError> {
    let mut blocks = read_pem(text)?.into_iter();
    let key = blocks.next().ok_or(PemError::Empty)?;
    if !matches!(key.label.as_str(), "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY") {
        let expected = "\"PRIVATE KEY\", \"EC PRIVATE KEY\" or \"RSA PRIVATE KEY\"";
        return Err(PemError::WrongLabel { line: key.line, found: key.label, expected });
    }
    match blocks.next() {
        Some(second) => Err(PemError::Several { line: second.line, label: second.label }),
        None => Ok(key),
    }
}

fn marker<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    line.strip_prefix(prefix)?.strip_suffix("-----")
}

fn finish(label: String, line: usize, content: &str) -> Result<PemBlock, PemError> {
    match BASE64.decode(content.as_bytes()) {
        Ok(content) if !content.is_empty() => Ok(PemBlock { label, content, line }),
        _ => Err(PemError::Base64 { label, line }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAQID\nBAUG\n-----END CERTIFICATE-----";

    #[test]
    fn blocks_are_read_with_and_without_a_last_newline_and_with_text_between() {
        let expected =
            vec![PemBlock { label: "CERTIFICATE".into(), content: vec![1, 2, 3, 4, 5, 6], line: 1 }];
        assert_eq!(read_pem(ONE).unwrap(), expected);
        assert_eq!(read_pem(&format!("{ONE}\n\n")).unwrap(), expected);
        assert_eq!(read_pem(&ONE.replace('\n', "\r\n")).unwrap(), expected);
        let blocks = read_pem(&format!("subject=web\n{ONE}\nissuer=x\n{ONE}\n")).unwrap();
        assert_eq!(blocks.iter().map(|b| b.line).collect::<Vec<_>>(), [2, 7]);
    }

    #[test]
    fn accidents_are_told_with_their_line() {
        let joined = format!("{ONE}{ONE}");
        assert_eq!(read_pem(&joined), Err(PemError::MissingNewline { line: 4 }));
        assert_eq!(read_pem(""), Err(PemError::Empty));
        let cut = &ONE[..36];
        assert_eq!(read_pem(cut), Err(PemError::Unfinished { label: "CERTIFICATE".into(), line: 1 }));
        let bad = ONE.replace("AQID", "AQ!D");
        assert_eq!(read_pem(&bad), Err(PemError::Base64 { label: "CERTIFICATE".into(), line: 1 }));
        let other = ONE.replace("-----END CERTIFICATE", "-----END CERT");
        assert!(matches!(read_pem(&other), Err(PemError::WrongMarker { line: 4, .. })));
    }

    #[test]
    fn a_wrong_kind_of_block_says_what_it_is() {
        let key = ONE.replace("CERTIFICATE", "PRIVATE KEY");
        let error = read_certificates(&key).unwrap_err().to_string();
        assert!(error.contains("swapped"), "{error}");
        assert!(read_private_key(ONE).unwrap_err().to_string().contains("swapped"));
        let encrypted = ONE.replace("CERTIFICATE", "ENCRYPTED PRIVATE KEY");
        assert!(read_private_key(&encrypted).unwrap_err().to_string().contains("passphrase"));
        let two = format!("{key}\n{key}");
        assert_eq!(read_private_key(&two), Err(PemError::Several { line: 5, label: "PRIVATE KEY".into() }));
    }
}
