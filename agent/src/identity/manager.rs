//! The one task that keeps certificates current.
//!
//! Renewal is decided by the wall clock at every wake, not by a timer set long ago: a laptop that slept renews at once.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet};
use weft_core::{
    control::{HeldCertificate, NodeReport},
    identity::SpiffeId,
    publish::{Publisher, Reader},
    tls::{Bundle, Certificate, Credentials, Root},
};
use weft_registries::hub::{CertificateFault, HubLink, LinkState};

use super::{
    CertificateStatus, HeldStatus, IdentityStatus,
    key::Key,
    schedule::{pause, renew_at},
    state::{Restored, StateFolder},
};
use crate::file_identity::Workloads;

/// The longest sleep: the wall clock may jump.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Over how long the renewals are spread that a new root asks for: the hub signs for every agent then.
const ROTATION_SPREAD: Duration = Duration::from_secs(10);
/// How long it takes until a refusal that does not pass by itself is tried again.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Keeps the certificates.
pub(super) struct Manager {
    folder: StateFolder,
    link: HubLink,
    workloads: Workloads,
    node: String,
    node_identity: SpiffeId,
    held: BTreeMap<SpiffeId, Held>,
    asking: JoinSet<Asked>,
    /// The node's own certificate, for the stream to the hub.
    own: Publisher<Credentials>,
    /// The workloads' certificates, for the proxy.
    credentials: Publisher<Credentials>,
    /// The roots of the own mesh in the order of the hub's: the first is the one that certificates should lead to.
    bundle: Bundle,
    status: watch::Sender<Arc<IdentityStatus>>,
    told: watch::Sender<NodeReport>,
}

/// One identity's certificate and what is known of the next.
struct Held {
    certificate: Option<Certificate>,
    /// The root that the certificate leads to.
    root: Option<[u8; 32]>,
    /// When to ask for the next one.
    due: SystemTime,
    failures: u32,
    /// How many certificates in a row led to another root than they should.
    astray: u32,
    fault: Option<String>,
    asking: bool,
}

/// An answer to a request, with the key it was made for.
struct Asked {
    identity: SpiffeId,
    outcome: Result<(Certificate, String), AskFault>,
}

enum AskFault {
    Hub(CertificateFault),
    Own(String),
}

impl Manager {
    pub(super) fn new(
        folder: StateFolder,
        restored: Restored,
        link: HubLink,
        workloads: Workloads,
        own: Publisher<Credentials>,
        told: watch::Sender<NodeReport>,
    ) -> Self {
        let node_identity = restored.certificate.identity().clone();
        let node = Held::of(Some(restored.certificate), None, &restored.bundle);
        let status = IdentityStatus {
            node: restored.node.node.clone(),
            link: LinkState::Connecting,
            certificates: Vec::new(),
        };
        let mut manager = Self {
            folder,
            link,
            workloads,
            node: restored.node.node,
            held: BTreeMap::from([(node_identity.clone(), node)]),
            node_identity,
            asking: JoinSet::new(),
            own,
            credentials: Publisher::new(Credentials::default().with_bundle(restored.bundle.clone())),
            bundle: restored.bundle,
            status: watch::channel(Arc::new(status)).0,
            told,
        };
        manager.take_workloads();
        manager.report();
        manager
    }

    pub(super) fn credentials(&self) -> Reader<Credentials> {
        self.credentials.reader()
    }

    pub(super) fn status(&self) -> watch::Receiver<Arc<IdentityStatus>> {
        self.status.subscribe()
    }

    /// Keeps for ever.
    pub(super) async fn keep(mut self) {
        let mut bundles = self.link.bundles();
        let mut state = self.link.state();
        let mut workloads = self.workloads.clone();
        loop {
            let wait = self.ask_for_what_is_due();
            tokio::select! {
                Some(asked) = self.asking.join_next() => match asked {
                    Ok(asked) => self.answered(asked),
                    // A request that panicked is asked again, like any other fault.
                    Err(fault) => tracing::error!(%fault, "a certificate request broke"),
                },
                Ok(()) = bundles.changed() => {
                    let pushed = bundles.borrow_and_update().clone();
                    self.take_bundles(&pushed);
                }
                Ok(()) = state.changed() => {
                    let connected = matches!(*state.borrow_and_update(), LinkState::Connected { .. });
                    if connected {
                        self.retry_at_once();
                    }
                }
                Ok(()) = workloads.changed() => {
                    workloads.mark_unchanged();
                    self.take_workloads();
                }
                () = tokio::time::sleep(wait) => {}
            }
            self.report();
        }
    }

    /// Asks for every certificate that is due; gives the time until the next one is.
    fn ask_for_what_is_due(&mut self) -> Duration {
        let now = SystemTime::now();
        let mut next = LONGEST_SLEEP;
        for (identity, held) in self.held.iter_mut().filter(|(_, held)| !held.asking) {
            match held.due.duration_since(now) {
                Ok(wait) if !wait.is_zero() => next = next.min(wait),
                _ => {
                    held.asking = true;
                    self.asking.spawn(ask(self.link.clone(), identity.clone()));
                }
            }
        }
        next
    }

    fn answered(&mut self, asked: Asked) {
        let Asked { identity, outcome } = asked;
        // It may belong to a workload that is gone meanwhile.
        let Some(held) = self.held.get_mut(&identity) else { return };
        held.asking = false;
        let now = SystemTime::now();
        match outcome {
            Ok((certificate, pem)) => {
                let is_node = identity == self.node_identity;
                let written = if is_node {
                    self.folder.write_node(&pem)
                } else {
                    self.folder.write_certificate(&identity, &pem)
                };
                tracing::info!(%identity, serial = %certificate.leaf().serial, "new certificate");
                // One that could not be written is still good until the next restart.
                let fault = written.err().map(|fault| fault.to_string());
                let astray = held.astray + 1;
                *held = Held::of(Some(certificate.clone()), fault, &self.bundle);
                if !held.leads_to_first(&self.bundle) {
                    // Signed while the hub went over to another root.
                    held.astray = astray;
                    held.due = held.due.min(now + pause(astray, fastrand::f64()));
                }
                let publisher = if is_node { &mut self.own } else { &mut self.credentials };
                let next = Credentials::clone(&publisher.current());
                publisher.publish(next.with_identity(certificate));
            }
            Err(fault) => {
                held.failures += 1;
                // That the hub is away is told by the link; what a stream took along that broke is asked for on the next.
                let is_away = matches!(fault, AskFault::Hub(CertificateFault::Away(_)));
                let stands = matches!(*self.link.state().borrow(), LinkState::Connected { .. });
                let is_told = is_away && (held.failures == 1 || !stands);
                let (text, pause) = match fault {
                    AskFault::Hub(fault) if fault.is_passing() => {
                        (fault.to_string(), pause(held.failures, fastrand::f64()))
                    }
                    AskFault::Hub(fault) => (fault.to_string(), REFUSED_PAUSE),
                    AskFault::Own(fault) => (fault, REFUSED_PAUSE),
                };
                let is_news = held.fault.as_ref() != Some(&text) || (is_away && held.failures == 2);
                if is_news && !is_told {
                    tracing::warn!(%identity, fault = %text, "no new certificate");
                } else if is_news {
                    tracing::info!(%identity, fault = %text, "no new certificate yet");
                }
                held.fault = Some(text);
                held.due = now + pause;
            }
        }
    }

    /// The hub is back: what failed because it was away is asked for now.
    fn retry_at_once(&mut self) {
        for held in self.held.values_mut().filter(|held| held.failures > 0) {
            held.due = SystemTime::now();
        }
    }

    fn take_bundles(&mut self, pushed: &[Bundle]) {
        for publisher in [&mut self.own, &mut self.credentials] {
            let mut next = Credentials::clone(&publisher.current());
            let before = next.trust_generation();
            for bundle in pushed {
                next = next.with_bundle(bundle.clone());
            }
            let gone: Vec<_> = next
                .bundles()
                .map(|bundle| bundle.trust_domain().clone())
                .filter(|known| pushed.iter().all(|bundle| bundle.trust_domain() != known))
                // A hub that forgets its own mesh is mistaken.
                .filter(|known| known.as_str() != self.node_identity.trust_domain_str())
                .collect();
            next = gone.iter().fold(next, |next, domain| next.without_bundle(domain));
            if next.trust_generation() != before {
                publisher.publish(next);
            }
        }
        let own = pushed.iter().find(|b| b.trust_domain().as_str() == self.node_identity.trust_domain_str());
        let Some(own) = own else { return };
        if let Err(fault) = self.folder.write_bundle(own) {
            tracing::error!(%fault, "the trust bundle could not be kept");
        }
        self.bundle = own.clone();
        self.leave_old_roots();
    }

    /// Asks soon for what leads to another root than the one that the hub signs under.
    fn leave_old_roots(&mut self) {
        let now = SystemTime::now();
        for held in self.held.values_mut() {
            held.root = held.root_in(&self.bundle);
            if held.certificate.is_some() && !held.leads_to_first(&self.bundle) {
                held.due = held.due.min(now + ROTATION_SPREAD.mul_f64(fastrand::f64()));
            }
        }
    }

    /// Takes up the identities of workloads that are new, and lets go of those that no workload has any more.
    fn take_workloads(&mut self) {
        let workloads = self.workloads.borrow().clone();
        let is_wanted = |identity: &SpiffeId| workloads.iter().any(|workload| workload.identity == *identity);
        let mut next = Credentials::clone(&self.credentials.current());
        let gone: Vec<_> = self
            .held
            .keys()
            .filter(|identity| **identity != self.node_identity && !is_wanted(identity))
            .cloned()
            .collect();
        for identity in gone {
            self.held.remove(&identity);
            next = next.without_identity(&identity);
        }
        for workload in workloads.iter() {
            let identity = &workload.identity;
            if self.held.contains_key(identity) {
                continue;
            }
            let (certificate, fault) = match self.folder.read_certificate(identity) {
                Ok(certificate) => (certificate, None),
                Err(fault) => (None, Some(fault.to_string())),
            };
            if let Some(certificate) = &certificate {
                next = next.with_identity(certificate.clone());
            }
            self.held.insert(identity.clone(), Held::of(certificate, fault, &self.bundle));
        }
        self.credentials.publish(next);
    }

    fn report(&mut self) {
        let certificate = |(identity, held): (&SpiffeId, &Held)| CertificateStatus {
            identity: identity.clone(),
            held: held.certificate.as_ref().map(|certificate| HeldStatus {
                serial: certificate.leaf().serial.clone(),
                not_after: certificate.leaf().validity.not_after,
                renew_at: held.due,
            }),
            fault: held.fault.clone(),
        };
        let (node, others): (Vec<_>, Vec<_>) =
            self.held.iter().partition(|(identity, _)| **identity == self.node_identity);
        let now = IdentityStatus {
            node: self.node.clone(),
            link: self.link.state().borrow().clone(),
            certificates: node.into_iter().chain(others).map(certificate).collect(),
        };
        self.status.send_if_modified(|known| {
            let changed = **known != now;
            if changed {
                *known = Arc::new(now);
            }
            changed
        });
        let report = NodeReport {
            roots: self.bundle.roots().iter().map(Root::fingerprint).collect(),
            certificates: self.held.values().filter_map(Held::report).collect(),
        };
        self.told.send_if_modified(|known| {
            let changed = *known != report;
            *known = report;
            changed
        });
    }
}

impl Held {
    fn of(certificate: Option<Certificate>, fault: Option<String>, bundle: &Bundle) -> Self {
        let due = certificate.as_ref().map(|held| renew_at(held.leaf().validity, fastrand::f64()));
        let due = due.unwrap_or_else(SystemTime::now);
        let mut held = Self { certificate, root: None, due, failures: 0, astray: 0, fault, asking: false };
        held.root = held.root_in(bundle);
        held
    }

    fn root_in(&self, bundle: &Bundle) -> Option<[u8; 32]> {
        bundle.root_of(self.certificate.as_ref()?, SystemTime::now()).map(Root::fingerprint)
    }

    fn leads_to_first(&self, bundle: &Bundle) -> bool {
        self.root == bundle.roots().first().map(Root::fingerprint)
    }

    fn report(&self) -> Option<HeldCertificate> {
        let leaf = self.certificate.as_ref()?.leaf();
        Some(HeldCertificate {
            identity: leaf.identity.clone(),
            serial: leaf.serial.clone(),
            not_after: leaf.validity.not_after,
            root: self.root,
        })
    }
}

/// Makes a key, and asks for a certificate for it.
async fn ask(link: HubLink, identity: SpiffeId) -> Asked {
    let outcome = ask_inner(&link, &identity).await;
    Asked { identity, outcome }
}

async fn ask_inner(link: &HubLink, identity: &SpiffeId) -> Result<(Certificate, String), AskFault> {
    let own = |fault: &dyn std::fmt::Display| AskFault::Own(fault.to_string());
    let key = Key::generate().map_err(|fault| own(&fault))?;
    let request = key.signing_request().map_err(|fault| own(&fault))?;
    let chain: Vec<Bytes> = link.certificate(identity.clone(), request).await.map_err(AskFault::Hub)?;
    let (certificate, pem) = key.with_chain(&chain).map_err(|fault| own(&fault))?;
    if certificate.identity() != identity {
        return Err(AskFault::Own(format!("the hub sent a certificate of {}", certificate.identity())));
    }
    Ok((certificate, pem))
}
