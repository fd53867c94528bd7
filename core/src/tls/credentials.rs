//! Everything that decides who is who, at one moment: own certificates and the bundles of all trust domains.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::{
    bundle::{Bundle, sha256},
    certificate::Certificate,
};
use crate::identity::{SpiffeId, TrustDomain};

/// An immutable snapshot; the next one is made from a clone of the last by the `with_` methods, so that what did not
/// change stays the same value, and sessions that hang on it survive.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    identities: HashMap<SpiffeId, Arc<Certificate>, RandomState>,
    by_server_name: HashMap<String, Arc<Certificate>, RandomState>,
    bundles: HashMap<TrustDomain, Arc<Bundle>, RandomState>,
    trust_generation: u64,
}

impl Credentials {
    /// Adds a local workload's certificate, or puts it in the place of the last one. The same one again changes nothing.
    #[must_use]
    pub fn with_identity(mut self, certificate: Certificate) -> Self {
        if self.identity(certificate.identity()).is_some_and(|known| known.chain() == certificate.chain()) {
            return self;
        }
        let certificate = Arc::new(certificate);
        self.by_server_name.insert(certificate.identity().server_name(), certificate.clone());
        self.identities.insert(certificate.identity().clone(), certificate);
        self
    }

    /// Forgets a local workload.
    #[must_use]
    pub fn without_identity(mut self, identity: &SpiffeId) -> Self {
        self.by_server_name.remove(&identity.server_name());
        self.identities.remove(identity);
        self
    }

    /// Trusts these roots, and only these, for their trust domain. The same roots again change nothing.
    #[must_use]
    pub fn with_bundle(mut self, bundle: Bundle) -> Self {
        if self.bundles.get(bundle.trust_domain()).is_none_or(|known| !known.same_roots(&bundle)) {
            self.bundles.insert(bundle.trust_domain().clone(), Arc::new(bundle));
            self.trust_generation = trust_generation(&self.bundles);
        }
        self
    }

    /// Trusts a trust domain no longer.
    #[must_use]
    pub fn without_bundle(mut self, trust_domain: &TrustDomain) -> Self {
        if self.bundles.remove(trust_domain).is_some() {
            self.trust_generation = trust_generation(&self.bundles);
        }
        self
    }

    /// The certificate of a local workload.
    #[must_use]
    pub fn identity(&self, identity: &SpiffeId) -> Option<&Arc<Certificate>> {
        self.identities.get(identity)
    }

    /// All local certificates, in no order.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.identities.values()
    }

    /// The certificate that answers to a server name ([`SpiffeId::server_name`]).
    #[must_use]
    pub fn by_server_name(&self, name: &str) -> Option<&Arc<Certificate>> {
        self.by_server_name.get(name)
    }

    /// The roots of a trust domain.
    #[must_use]
    pub fn bundle(&self, trust_domain: &TrustDomain) -> Option<&Arc<Bundle>> {
        self.bundles.get(trust_domain)
    }

    /// All bundles, in no order.
    pub fn bundles(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.bundles.values()
    }

    /// Names what is trusted: equal for equal bundles, however the snapshot was made, and another when a root comes or
    /// goes. Connections decided under another one are decided again. No order.
    #[must_use]
    pub fn trust_generation(&self) -> u64 {
        self.trust_generation
    }
}

/// 64 bits of a digest over all roots. A counter would start again in a snapshot that is made afresh, and then what was
/// decided under other roots would seem to be current.
fn trust_generation(bundles: &HashMap<TrustDomain, Arc<Bundle>, RandomState>) -> u64 {
    let mut roots: Vec<(&str, [u8; 32])> = bundles
        .values()
        .flat_map(|bundle| {
            bundle.roots().iter().map(|root| (bundle.trust_domain().as_str(), root.fingerprint()))
        })
        .collect();
    roots.sort_unstable();
    let text: Vec<u8> =
        roots.iter().flat_map(|(domain, root)| [domain.as_bytes(), b"/", root].concat()).collect();
    let digest = sha256(&text);
    u64::from_be_bytes([
        digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7],
    ])
}
