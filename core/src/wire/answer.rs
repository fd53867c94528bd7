//! The answer to a hello: one of a closed list, each with its rule for trying again.
//!
//! No byte of a request is sent before the answer, so whatever is refused here is safe to retry, whatever its method.

use std::time::Duration;

use prost::Message as _;

use super::{
    FrameDecoder, Framing, MAX_PAYLOAD, OUR_VERSIONS, Step, VersionRange, WireError, frame::encode_frame,
};

/// The longest text in an answer, in bytes; longer ones are cut.
const MAX_TEXT: usize = 512;

/// What the called side says to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on; both sides speak this version from here on.
    Accepted {
        /// The highest version that both know.
        version: u8,
    },
    /// This agent serves no such instance or port.
    NotHere,
    /// This agent takes nothing new.
    Draining,
    /// The port is not served in this framing.
    WrongFraming {
        /// The framing to use.
        using: Framing,
    },
    /// Policy forbids it.
    Denied {
        /// The policy or rule, by name.
        rule: String,
    },
    /// Too much at once.
    Overloaded {
        /// When to come back, from milliseconds up to 49 days.
        retry_after: Duration,
    },
    /// The certificate no longer stands a check (a session was resumed).
    Untrusted,
    /// The hello could not be read.
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// There is no common version.
    Version {
        /// What this side speaks.
        ours: VersionRange,
    },
    /// A refusal that this build does not know.
    Unknown {
        /// Its code.
        code: u32,
    },
}

/// What a caller does with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It is no refusal: go on.
    Proceed,
    /// Try another endpoint; if there is none, the request fails.
    Elsewhere,
    /// Try another endpoint, and give this one nothing for so long.
    ElsewhereAvoiding(Duration),
    /// Try the same endpoint once more, in this framing.
    Reframe(Framing),
    /// Try the same endpoint once more with a full handshake
    /// (`TlsContext::forget_sessions`), then elsewhere.
    FreshHandshake,
    /// Fail the request: every endpoint would say the same.
    Never,
}

/// How long an endpoint that drains is left alone, unless its registry says sooner that it is gone or back.
const DRAINING_PAUSE: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, prost::Message)]
struct RawAnswer {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    framing: String,
    #[prost(string, tag = "3")]
    rule: String,
    #[prost(uint32, tag = "4")]
    retry_after_milliseconds: u32,
    #[prost(string, tag = "5")]
    reason: String,
    #[prost(uint32, tag = "6")]
    lowest_version: u32,
    #[prost(uint32, tag = "7")]
    highest_version: u32,
}

impl Answer {
    /// Its number on the wire, from 1.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Accepted { .. } => 1,
            Self::NotHere => 2,
            Self::Draining => 3,
            Self::WrongFraming { .. } => 4,
            Self::Denied { .. } => 5,
            Self::Overloaded { .. } => 6,
            Self::Untrusted => 7,
            Self::Malformed { .. } => 8,
            Self::Version { .. } => 9,
            Self::Unknown { code } => *code,
        }
    }

    /// A short name that does not change, for metrics and flags.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::NotHere => "not_here",
            Self::Draining => "draining",
            Self::WrongFraming { .. } => "wrong_framing",
            Self::Denied { .. } => "denied",
            Self::Overloaded { .. } => "overloaded",
            Self::Untrusted => "untrusted",
            Self::Malformed { .. } => "malformed",
            Self::Version { .. } => "version",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// What a caller does with it. The rule belongs to the code and to nothing else.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Accepted { .. } => Retry::Proceed,
            Self::NotHere | Self::Malformed { .. } | Self::Version { .. } | Self::Unknown { .. } => {
                Retry::Elsewhere
            }
            Self::Draining => Retry::ElsewhereAvoiding(DRAINING_PAUSE),
            Self::Overloaded { retry_after } => Retry::ElsewhereAvoiding(*retry_after),
            Self::WrongFraming { using } => Retry::Reframe(*using),
            Self::Untrusted => Retry::FreshHandshake,
            Self::Denied { .. } => Retry::Never,
        }
    }

    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut raw = RawAnswer { code: self.code(), ..RawAnswer::default() };
        let mut version = OUR_VERSIONS.lowest;
        match self {
            Self::Accepted { version: agreed } => version = (*agreed).max(1),
            Self::WrongFraming { using } => raw.framing = using.alpn().to_owned(),
            Self::Denied { rule } => raw.rule = cut(rule),
            Self::Overloaded { retry_after } => {
                raw.retry_after_milliseconds = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
            }
            Self::Malformed { reason } => raw.reason = cut(reason),
            Self::Version { ours } => {
                raw.lowest_version = ours.lowest.into();
                raw.highest_version = ours.highest.into();
            }
            Self::NotHere | Self::Draining | Self::Untrusted | Self::Unknown { .. } => {}
        }
        encode_frame(version, &raw.encode_to_vec())
            .expect("an answer holds at most 512 bytes of text, far below a frame's limit")
    }

    /// Takes the answer's bytes from the front of `input`; none while some are missing.
    ///
    /// # Errors
    /// When the bytes cannot become an answer. The caller then treats the connection as broken.
    pub fn decode(decoder: &mut FrameDecoder, input: &mut &[u8]) -> Result<Option<Self>, WireError> {
        match decoder.feed(input)? {
            Step::Missing(_) => Ok(None),
            Step::Frame { version, payload } => Self::from_payload(version, &payload).map(Some),
        }
    }

    /// Reads a frame's payload. Unknown fields are skipped; an unknown code is a refusal, and so is a framing that is
    /// unknown here.
    ///
    /// # Errors
    /// When the payload is no answer.
    pub fn from_payload(frame_version: u8, payload: &[u8]) -> Result<Self, WireError> {
        let raw = RawAnswer::decode(payload).map_err(|error| WireError::Protobuf(error.to_string()))?;
        Ok(match raw.code {
            0 => return Err(WireError::field("code", "it is missing")),
            1 => Self::Accepted { version: frame_version },
            2 => Self::NotHere,
            3 => Self::Draining,
            4 => Framing::from_alpn(raw.framing.as_bytes())
                .map_or(Self::Unknown { code: 4 }, |using| Self::WrongFraming { using }),
            5 => Self::Denied { rule: raw.rule },
            6 => Self::Overloaded { retry_after: Duration::from_millis(raw.retry_after_milliseconds.into()) },
            7 => Self::Untrusted,
            8 => Self::Malformed { reason: raw.reason },
            9 => VersionRange::read(raw.lowest_version, raw.highest_version, frame_version)
                .map(|ours| Self::Version { ours })
                .ok_or_else(|| WireError::field("lowest_version", "it is above highest_version"))?,
            code => Self::Unknown { code },
        })
    }
}

/// At most [`MAX_TEXT`] bytes of a text, cut between characters.
fn cut(text: &str) -> String {
    const { assert!(MAX_TEXT * 2 < MAX_PAYLOAD) };
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}
