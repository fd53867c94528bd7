//! From a `[[registry]]` section to a registry: read first, with all faults, and built later.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use weft_core::{
    config::{Fault, Located, Readable, Section, read_principal},
    identity::TrustDomain,
    merge::Limits,
    name::{RegistryName, ServiceName, ServicePattern},
    registry::Registry,
    tls::TlsContext,
};

use crate::{
    checked::{CheckRules, Checked, Findings},
    narrow::Narrow,
};

/// What registries may use of the process they run in.
#[derive(Clone, Default)]
pub struct Environment {
    /// Makes the registry that follows the hub's relay; none in a process without a hub.
    pub hub: Option<HubFactory>,
    /// The trust domain of the identities that rules and platforms name without one.
    pub trust_domain: Option<TrustDomain>,
    /// Of what the registry that is built may speak: [`Plan::build`] says so from its section.
    pub limits: Limits,
    /// With what endpoints of the mesh are checked; none in a process without a part in the mesh.
    pub tls: Option<Arc<TlsContext>>,
    /// Where is shown what checks find.
    pub findings: Findings,
}

/// Makes the registry of the given name that follows the hub's relay, or a part of it, on the process's one stream to it.
pub type HubFactory = Arc<dyn Fn(&RegistryName, Option<&Narrow>) -> Arc<dyn Registry> + Send + Sync>;

/// Why a registry could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// It follows the hub, and there is none.
    #[error("registry `{0}` follows the hub, but no hub is configured")]
    NoHub(RegistryName),
    /// Its platform's identities belong to the mesh's trust domain, and none is known.
    #[error("registry `{0}` names identities of the mesh: say which one it is, trust_domain = \"…\"")]
    NoTrustDomain(RegistryName),
}

/// One kind of registry.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its word in `kind = "…"`.
    pub word: &'static str,
    /// Reads what is its own in its section; faults are reported there.
    pub read: fn(&Section<'_>) -> Option<Arc<dyn Settings>>,
}

/// Kinds of a binary that is built with more than Weft's own.
static MORE: OnceLock<Vec<Kind>> = OnceLock::new();

/// Makes further kinds known to this process: for a binary of one's own that links a registry outside this crate. Call it
/// once, before any configuration is read.
///
/// # Errors
/// When it was called before, or a word is taken.
pub fn add_kinds(kinds: &[Kind]) -> Result<(), KindError> {
    for (index, kind) in kinds.iter().enumerate() {
        let mut known = crate::KINDS.iter().chain(&kinds[..index]);
        if known.any(|other| other.word == kind.word) {
            return Err(KindError::Taken(kind.word));
        }
    }
    MORE.set(kinds.to_vec()).map_err(|_| KindError::Late)
}

/// Why a kind cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// Two kinds of one word.
    #[error("there is a kind of registry called `{0}` already")]
    Taken(&'static str),
    /// They were added before.
    #[error("kinds of registry are added once, before anything else")]
    Late,
}

/// What a registry's section says, checked.
pub trait Settings: fmt::Debug + Send + Sync {
    /// Makes the registry. Nothing is opened or connected before it is watched.
    ///
    /// # Errors
    /// When the environment lacks what it needs.
    fn build(&self, name: &RegistryName, environment: &Environment) -> Result<Arc<dyn Registry>, BuildError>;

    /// Whether local instances can be announced there.
    fn takes_announcements(&self) -> bool {
        false
    }

    /// The same, where it leaves services out and must not leave these out: those that this host serves, whose policies
    /// count only where the service is known, and those that its configuration names. None where nothing is left out.
    fn including(&self, _services: &[ServiceName]) -> Option<Arc<dyn Settings>> {
        None
    }

    /// The folder of resource files, where it is one: `weft check` looks into it.
    fn folder(&self) -> Option<&PathBuf> {
        None
    }
}

/// A registry as configured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its kind's word.
    pub kind: &'static str,
    /// Its name, unique in the file.
    pub name: Located<RegistryName>,
    /// Of what it may speak.
    pub limits: Limits,
    /// How its endpoints are looked after.
    pub checks: CheckRules,
    /// What is its kind's own.
    pub settings: Arc<dyn Settings>,
}

impl Plan {
    /// Reads a `[[registry]]` section. Without a name the registry is called `prefix` and its kind: what a hub follows and
    /// what its agents follow themselves must not meet under one name.
    #[must_use]
    pub fn read(section: &mut Section<'_>, prefix: &str) -> Option<Self> {
        let kinds = crate::KINDS.iter().chain(MORE.get().into_iter().flatten());
        let words: Vec<(&str, Kind)> = kinds.map(|kind| (kind.word, *kind)).collect();
        let kind = section.require_value("kind", "what it is, such as kind = \"static\"");
        let kind = kind.and_then(|value| value.word(&words));
        let name: Option<Located<RegistryName>> = match section.get("name") {
            Some(value) => Readable::read(&value),
            None => kind.and_then(|kind| {
                let name = RegistryName::new(&format!("{prefix}{}", kind.word)).ok()?;
                Some(Located { value: name, place: section.place() })
            }),
        };
        let may_name = section.list("may_name", read_principal);
        let may_own = section.list("may_own", ServicePattern::read);
        let checks = CheckRules::read(section);
        let Some(kind) = kind else {
            section.ignore_unknown();
            return None;
        };
        let faults_before = section.faults_so_far();
        let Some(settings) = (kind.read)(section) else {
            // A section that is left out without a word would be a registry less, and its policies.
            if section.faults_so_far() == faults_before {
                section.report_missing(Fault::error(section.place(), "this section cannot be used"));
            }
            return None;
        };
        let limits = Limits {
            may_name: may_name.filter(|patterns| !patterns.is_empty()),
            may_own: may_own.filter(|patterns| !patterns.is_empty()),
        };
        Some(Self { kind: kind.word, name: name?, limits, checks: checks?, settings })
    }

    /// Makes the registry.
    ///
    /// # Errors
    /// When the environment lacks what it needs.
    pub fn build(&self, environment: &Environment) -> Result<Arc<dyn Registry>, BuildError> {
        let environment = &Environment { limits: self.limits.clone(), ..environment.clone() };
        let registry = self.settings.build(&self.name.value, environment)?;
        if self.checks.is_empty() {
            return Ok(registry);
        }
        let Environment { tls, findings, .. } = environment;
        Ok(Arc::new(Checked::new(registry, self.checks.clone(), tls.clone(), findings.clone())))
    }
}

/// Equal plans build equal registries: on a reload those need not be touched. The place in the file does not matter.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        let settings = |plan: &Self| format!("{:?}", plan.settings);
        let common =
            |plan: &Self| (plan.kind, plan.name.value.clone(), plan.limits.clone(), plan.checks.clone());
        common(self) == common(other) && settings(self) == settings(other)
    }
}

/// Of a registry that follows the hub; `[hub]` says where that is.
#[derive(Debug)]
struct HubSettings {
    /// What is asked for, where that is not everything.
    narrow: Option<Narrow>,
}

impl Settings for HubSettings {
    fn build(&self, name: &RegistryName, environment: &Environment) -> Result<Arc<dyn Registry>, BuildError> {
        let make = environment.hub.as_ref().ok_or_else(|| BuildError::NoHub(name.clone()))?;
        Ok(make(name, self.narrow.as_ref()))
    }

    fn takes_announcements(&self) -> bool {
        true
    }

    fn including(&self, services: &[ServiceName]) -> Option<Arc<dyn Settings>> {
        let narrow = self.narrow.clone()?.including(services);
        Some(Arc::new(Self { narrow: Some(narrow) }))
    }
}

/// Reads the section of a registry of kind `hub`.
pub fn read_hub(section: &Section<'_>) -> Option<Arc<dyn Settings>> {
    Some(Arc::new(HubSettings { narrow: Narrow::read(section)? }))
}
