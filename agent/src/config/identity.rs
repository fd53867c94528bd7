//! `[identity]` and `[hub]`: where the workloads' certificates come from.

use std::path::PathBuf;

use weft_core::config::{Fault, HostPort, Located, OneOrMany, Readable, Section};

/// Where the workloads' certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityConfig {
    /// The hub signs them.
    Hub,
    /// They lie in a folder: `<workload>.pem`, `<workload>.key` and `bundle.pem`, read again when they change.
    Files {
        /// The folder.
        directory: PathBuf,
    },
    /// There are none: the agent has no workloads.
    None,
}

#[derive(Clone, Copy)]
enum Kind {
    Hub,
    Files,
}

/// The addresses in `[hub]`; none without it, or when they are faulty, which was reported.
pub(super) fn read_hubs(root: &Section<'_>) -> Vec<HostPort> {
    let Some(section) = root.section("hub") else { return Vec::new() };
    let expected = "where the hub listens, such as address = \"127.0.0.1:15012\"";
    let Some(value) = section.require_value("address", expected) else { return Vec::new() };
    let OneOrMany(hubs) = OneOrMany::<Located<HostPort>>::read(&value).unwrap_or(OneOrMany(Vec::new()));
    if hubs.is_empty() && value.as_list().is_some_and(|written| written.is_empty()) {
        value.reject("no address is named", format!("expected {expected}"));
    }
    for (index, hub) in hubs.iter().enumerate() {
        if let Some(first) = hubs[..index].iter().find(|first| first.value == hub.value) {
            let twice = Fault::error(hub.place.clone(), format!("the hub {} is named twice", hub.value));
            section.report(twice.related(first.place.clone(), "first named here"));
        }
    }
    hubs.into_iter().map(|hub| hub.value).collect()
}

pub(super) fn read(root: &Section<'_>) -> Option<IdentityConfig> {
    let hub_default = || root.has("hub").then_some(IdentityConfig::Hub);
    let Some(section) = root.section("identity") else {
        if !root.has("hub") && root.has("workload") {
            let fault = Fault::error(root.key_place("workload"), "nothing says where certificates come from");
            root.report_missing(fault.expected("expected `[hub]` or `[identity]`"));
        }
        return hub_default().or(Some(IdentityConfig::None));
    };
    let kind = match section.get("kind") {
        Some(value) => value.word(&[("hub", Kind::Hub), ("files", Kind::Files)]),
        None if section.has("directory") => Some(Kind::Files),
        None => Some(Kind::Hub),
    };
    let directory: Option<PathBuf> = section.read("directory");
    match kind? {
        Kind::Hub => {
            if section.has("directory") {
                let fault = Fault::error(section.key_place("directory"), "`directory` beside kind = \"hub\"");
                section.report(fault.expected("the hub's certificates are kept under `state_dir`"));
            }
            if !root.has("hub") {
                let fault =
                    Fault::error(section.place(), "certificates come from the hub, and there is no `[hub]`");
                root.report_missing(fault.expected("expected `[hub]` with its `address`"));
            }
            Some(IdentityConfig::Hub)
        }
        Kind::Files => {
            if !section.has("directory") {
                let fault = Fault::error(section.place(), "the key `directory` is missing");
                root.report_missing(
                    fault.expected("expected the folder of <workload>.pem, <workload>.key and bundle.pem"),
                );
            }
            directory.map(|directory| IdentityConfig::Files { directory })
        }
    }
}
