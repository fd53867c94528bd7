//! The environment's word: a few values of the process that differ per host while the file is the same.
//!
//! An agent and a hub on one host must not share a folder, so each has variables of its own.

use std::{ffi::OsString, path::PathBuf};

/// Values that win over the file's. `WEFT_CONFIG`, `WEFT_LOG`, `WEFT_SOCKET` and their like are the command line's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `WEFT_STATE_DIR` of an agent, `WEFT_HUB_STATE_DIR` of a hub.
    pub state_dir: Option<PathBuf>,
    /// `WEFT_RUN_DIR` of an agent, `WEFT_HUB_RUN_DIR` of a hub.
    pub run_dir: Option<PathBuf>,
}

impl Overrides {
    /// Those of an agent's process; `variable` reads its environment. An empty variable counts as not set.
    #[must_use]
    pub fn of_agent(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self { state_dir: path("WEFT_STATE_DIR"), run_dir: path("WEFT_RUN_DIR") }
    }

    /// Those of a hub's process, as [`Overrides::of_agent`] reads an agent's.
    #[must_use]
    pub fn of_hub(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let name = |name: &str| name.replace("WEFT_", "WEFT_HUB_");
        Self::of_agent(|variable_of_agent| variable(&name(variable_of_agent)))
    }
}
