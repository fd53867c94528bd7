use crate::{
    identity::SpiffeId,
    name::{ServiceName, ServicePattern},
    resource::PrincipalMatch,
};

/// Of what a registry, and whatever comes through it, may speak. None means of anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Which identities its endpoints may bear.
    pub may_name: Option<Vec<PrincipalMatch>>,
    /// Which services are its own: others it may neither declare nor add endpoints or routes to.
    pub may_own: Option<Vec<ServicePattern>>,
}

impl Limits {
    pub(super) fn admit_identity(&self, identity: &SpiffeId) -> bool {
        PrincipalMatch::admits(self.may_name.as_deref(), identity)
    }

    pub(super) fn admit_service(&self, service: &ServiceName) -> bool {
        ServicePattern::admits(self.may_own.as_deref(), service)
    }
}
