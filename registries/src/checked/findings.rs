//! What checks found, for whoever asks why an endpoint is not called.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use weft_core::name::{InstanceName, PortName, RegistryName, ServiceName};

/// An endpoint, by its registry's name, service, port name and instance.
pub type EndpointKey = (RegistryName, ServiceName, PortName, InstanceName);

/// Why a check fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was asked, and where.
    pub question: String,
    /// What was answered last.
    pub reason: String,
    /// Since when it is unhealthy.
    pub since: SystemTime,
}

/// The endpoints that fail their checks, with the reason. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Findings(Arc<Mutex<BTreeMap<EndpointKey, Finding>>>);

impl Findings {
    /// Why an endpoint fails its check; none when it does not, or has none.
    #[must_use]
    pub fn of(&self, key: &EndpointKey) -> Option<Finding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(super) fn set(&self, key: &EndpointKey, finding: Option<Finding>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match finding {
            Some(finding) => drop(all.insert(key.clone(), finding)),
            None => drop(all.remove(key)),
        }
    }
}
