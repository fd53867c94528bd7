//! The hub's own certificate, and the authority as its files say: renewed in time, followed when they change.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::PrivateKeyDer;
use tokio::sync::watch;
use weft_core::{
    control::message::Bundles,
    identity::SpiffeId,
    publish::{Publisher, Reader},
    tls::{Bundle, BundleError, Certificate, CertificateError, Credentials},
};

use super::{
    authority::{Authority, AuthorityFolder, FolderError, IssueError, ProvenRequest},
    office::Office,
    stream::bundles_of,
};
use crate::watched::Watched;

/// Why the hub has no certificate of its own.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It could not be signed.
    #[error("the hub's own certificate")]
    Issue(#[from] IssueError),
    /// It could not be used.
    #[error("the hub's own certificate")]
    Certificate(#[from] CertificateError),
    /// The key or its request could not be made.
    #[error("the hub's own key")]
    Key(#[from] rcgen::Error),
    /// The roots are no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The authority's files.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Keeps the hub's credentials. Its key is made anew with every certificate and is never written.
pub(super) struct Keeper {
    folder: AuthorityFolder,
    leaf_lifetime: Duration,
    office: Arc<Office>,
    credentials: Publisher<Credentials>,
    bundles: watch::Sender<Bundles>,
    renew_at: SystemTime,
}

impl Keeper {
    pub(super) fn new(
        folder: AuthorityFolder,
        leaf_lifetime: Duration,
        office: Arc<Office>,
    ) -> Result<Self, KeeperError> {
        let authority = office.authority();
        let mut keeper = Self {
            folder,
            leaf_lifetime,
            credentials: Publisher::new(Credentials::default()),
            bundles: watch::channel(bundles_of(&authority)).0,
            office,
            renew_at: SystemTime::now(),
        };
        keeper.renew(&authority)?;
        Ok(keeper)
    }

    pub(super) fn credentials(&self) -> Reader<Credentials> {
        self.credentials.reader()
    }

    pub(super) fn bundles(&self) -> watch::Receiver<Bundles> {
        self.bundles.subscribe()
    }

    /// Renews and follows for ever.
    pub(super) async fn keep(mut self) {
        let mut files = Watched::new(AuthorityFolder::IN_FORCE.map(|name| self.folder.path().join(name)));
        loop {
            let due = self.renew_at.duration_since(SystemTime::now()).unwrap_or(Duration::from_secs(1));
            let outcome = tokio::select! {
                () = files.changed() => self.reopen(),
                () = tokio::time::sleep(due) => self.reopen(),
            };
            if let Err(fault) = outcome {
                // What was last good stays in force; the next look tries again.
                tracing::error!(%fault, "the authority could not be taken over");
                self.renew_at = SystemTime::now() + Duration::from_secs(60);
            }
        }
    }

    /// Takes the authority over as its files are now.
    fn reopen(&mut self) -> Result<(), KeeperError> {
        let authority = Arc::new(self.folder.open(self.leaf_lifetime, SystemTime::now())?);
        self.renew(&authority)?;
        let bundles = bundles_of(&authority);
        self.office.replace_authority(authority);
        self.bundles.send_if_modified(|known| {
            let changed = *known != bundles;
            *known = bundles;
            changed
        });
        Ok(())
    }

    fn renew(&mut self, authority: &Authority) -> Result<(), KeeperError> {
        let now = SystemTime::now();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let request = CertificateParams::default().serialize_request(&key)?;
        let own = SpiffeId::hub(authority.trust_domain());
        let issued = authority.issue_system(&own, &ProvenRequest::read(request.der())?, now)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let certificate = Certificate::new(issued.chain, key)?;
        let bundle = Bundle::new(authority.trust_domain().clone(), authority.roots().iter().cloned())?;
        let next = Credentials::clone(&self.credentials.current());
        self.credentials.publish(next.with_identity(certificate).with_bundle(bundle));
        let life = issued.not_after.duration_since(now).unwrap_or_default();
        self.renew_at = now + life / 3;
        Ok(())
    }
}
