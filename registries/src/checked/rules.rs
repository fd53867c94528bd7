//! `[registry.check]`: which endpoints of a registry are checked, and how.

use weft_core::{
    config::{OneOrMany, Section, Value},
    name::{ServiceName, ServicePattern},
};

use crate::check::CheckSettings;

/// The checks of one registry; the first that fits a service counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckRules(Vec<(Vec<ServicePattern>, Option<CheckSettings>)>);

impl CheckRules {
    /// Reads `check` of a registry's section: one for all services, or several with `services`. None when it has faults.
    #[must_use]
    pub fn read(section: &Section<'_>) -> Option<Self> {
        let Some(written) = section.get("check") else { return Some(Self::default()) };
        let values = written.as_list().unwrap_or_else(|| vec![written]);
        let count = values.len();
        let rules: Vec<_> = values.iter().filter_map(rule).collect();
        (rules.len() == count).then_some(Self(rules))
    }

    /// Whether nothing is checked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, check)| check.is_none())
    }

    /// How a service's endpoints are checked; none when they are not.
    pub(super) fn of(&self, service: &ServiceName) -> Option<&CheckSettings> {
        let fits = |patterns: &Vec<ServicePattern>| {
            patterns.is_empty() || patterns.iter().any(|it| it.fits(service))
        };
        self.0.iter().find(|(patterns, _)| fits(patterns)).and_then(|(_, check)| check.as_ref())
    }
}

fn rule(value: &Value<'_>) -> Option<(Vec<ServicePattern>, Option<CheckSettings>)> {
    let section = Section::open(value, "what is asked, such as { kind = \"tcp\" }")?;
    let services: OneOrMany<ServicePattern> = section.read_or("services", OneOrMany::default());
    let check = CheckSettings::read(&section, &CheckSettings::default())?;
    Some((services.0, check))
}
