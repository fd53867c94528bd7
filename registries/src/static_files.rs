//! The static registry: a folder of TOML files, each an origin of its own, followed as they change.
//!
//! Three words are kept apart. A file that is gone has said so: its resources go. A file that cannot be understood has
//! said nothing: its last good resources stay, and the fault is told. A folder that cannot be read has said nothing
//! either: the watch ends with an error and nothing is touched. Nor has a folder that came in place of another one, or
//! that is found empty (a mount that is not there): its list is told as one that may hide something.
//!
//! ```text
//!   watch (when to look) ──> folder (what is there) ──> told (what is new) ──> events
//! ```

mod conflict;
mod folder;
mod told;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use weft_core::{
    config::Section,
    name::RegistryName,
    registry::{Capabilities, Event, Registry, RegistryError, Resume, Scope},
};

use crate::plan::{BuildError, Environment, Settings};

pub use conflict::conflicts;
pub use folder::{mesh_files, read_resources};
pub(crate) use told::origin_fault;

/// How often the folder is looked at when the kernel reports nothing.
const DEFAULT_POLL: Duration = Duration::from_secs(5);

/// What a `kind = "static"` section says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticSettings {
    /// The folder of `*.toml` files.
    pub path: PathBuf,
    /// How often the folder is looked at when the kernel reports nothing, from 100 ms to an hour: network file systems
    /// report no changes.
    pub poll: Duration,
    /// Whether endpoints may have mesh addresses that only work on this very host.
    pub allow_loopback: bool,
}

/// Reads the section.
#[must_use]
pub fn read(section: &Section<'_>) -> Option<Arc<dyn Settings>> {
    let path: Option<PathBuf> =
        section.require("path", "the folder of resource files, such as path = \"/etc/weft/mesh.d\"");
    let poll = section.read_or("poll", DEFAULT_POLL);
    let allow_loopback = section.read_or("allow_loopback", false);
    if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&poll) {
        let fault =
            weft_core::config::Fault::error(section.key_place("poll"), "the poll interval is out of range");
        section.report(fault.expected("expected a duration from \"100ms\" to \"1h\""));
    }
    Some(Arc::new(StaticSettings { path: path?, poll, allow_loopback }))
}

impl Settings for StaticSettings {
    fn build(&self, name: &RegistryName, _: &Environment) -> Result<Arc<dyn Registry>, BuildError> {
        Ok(Arc::new(StaticRegistry::new(name.clone(), self.clone())))
    }

    fn folder(&self) -> Option<&PathBuf> {
        Some(&self.path)
    }
}

/// The registry.
#[derive(Clone, Debug)]
pub struct StaticRegistry {
    name: RegistryName,
    settings: StaticSettings,
    seen: watch::Seen,
}

impl StaticRegistry {
    /// Opens nothing yet: [`Registry::watch`] does.
    #[must_use]
    pub fn new(name: RegistryName, settings: StaticSettings) -> Self {
        Self { name, settings, seen: watch::Seen::default() }
    }
}

impl Registry for StaticRegistry {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { configuration: true, ..Capabilities::default() }
    }

    /// Always begins with a full list: listing a folder costs nothing, so there is no point to resume from.
    fn watch(&self, scope: Scope, _: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        watch::follow(self.settings.clone(), scope, self.seen.clone()).boxed()
    }
}
