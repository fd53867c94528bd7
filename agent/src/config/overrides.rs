//! The environment's word: a few values of the process that differ per host while the file is the same.

use std::{ffi::OsString, path::PathBuf};

/// Values that win over the file's. `WEFT_CONFIG`, `WEFT_LOG` and `WEFT_SOCKET` are the command line's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `WEFT_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
    /// `WEFT_RUN_DIR`.
    pub run_dir: Option<PathBuf>,
}

impl Overrides {
    /// Those of the process's environment.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from(|name| std::env::var_os(name))
    }

    /// Those of any source of variables. An empty variable counts as not set.
    #[must_use]
    pub fn from(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self { state_dir: path("WEFT_STATE_DIR"), run_dir: path("WEFT_RUN_DIR") }
    }
}
