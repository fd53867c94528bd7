//! What can go wrong with a server: one type, because a test does the same with all of it.

use std::{io, path::PathBuf, time::Duration};

/// Why a server could not be started, reached or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A process could not be started, or something in the scratch folder could not be written.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A server ended, or was not ready in time. Its logs stay.
    #[error("{server}: {why}; its logs are in {}\n{tail}", logs.display())]
    NotReady {
        /// Which server.
        server: String,
        /// What did not happen.
        why: String,
        /// The scratch folder.
        logs: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A state that was waited for did not come.
    #[error("not within {limit:?}: {what}")]
    TimedOut {
        /// The state.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// No whole HTTP answer came.
    #[error("{method} {url}: {source}")]
    Call {
        /// The method of the request.
        method: String,
        /// Where it went.
        url: String,
        /// What the connection said.
        source: io::Error,
    },
    /// An answer came that says no, or a tool that was run said no.
    #[error("{what}: {answer}")]
    Refused {
        /// What was asked.
        what: String,
        /// What came back.
        answer: String,
    },
}

impl Error {
    /// For `map_err` of something that was tried.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::System { what, source }
    }
}
