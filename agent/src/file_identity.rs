//! Identities from files: `<workload>.pem`, `<workload>.key` and `bundle.pem` in one folder, followed as they change.
//!
//! For hosts that get their certificates from elsewhere. What cannot be read keeps what was last good, and says so.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use tokio::sync::watch;
use weft_core::{
    publish::{Publisher, Reader},
    tls::{Bundle, Certificate, Credentials},
    workload::Workload,
};

use crate::watched::Watched;

/// The local workloads, as they change with the configuration.
pub type Workloads = watch::Receiver<Arc<[Arc<Workload>]>>;

/// Follows a folder of certificates.
#[derive(Debug)]
pub struct FileIdentity {
    reader: Reader<Credentials>,
    faults: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl FileIdentity {
    /// Reads the folder at once and then whenever it or the workloads change. Faults do not fail it: what is missing is
    /// missing in the credentials, and [`Self::faults`] says why.
    #[must_use]
    pub fn start(folder: PathBuf, workloads: Workloads) -> Self {
        let mut publisher = Publisher::new(Credentials::default());
        let reader = publisher.reader();
        let faults = Arc::new(Mutex::new(Vec::new()));
        let mut keeper = Keeper {
            folder,
            workloads,
            faults: faults.clone(),
            loaded: BTreeMap::new(),
            files: Watched::new([]),
        };
        keeper.load(&mut publisher);
        let task = tokio::spawn(async move { keeper.follow(publisher).await });
        Self { reader, faults, task }
    }

    /// The credentials as they are.
    #[must_use]
    pub fn reader(&self) -> Reader<Credentials> {
        self.reader.clone()
    }

    /// What could not be read.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FileIdentity {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper {
    folder: PathBuf,
    workloads: Workloads,
    faults: Arc<Mutex<Vec<String>>>,
    /// The texts that each workload's certificate was made from, so that what did not change stays the same value.
    loaded: BTreeMap<PathBuf, (String, String)>,
    /// Watched from before they are read, so that no change falls between the two.
    files: Watched,
}

impl Keeper {
    async fn follow(mut self, mut publisher: Publisher<Credentials>) {
        loop {
            tokio::select! {
                () = self.files.changed() => {}
                changed = self.workloads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            self.load(&mut publisher);
        }
    }

    fn files_of(&self, workloads: &[Arc<Workload>]) -> Vec<PathBuf> {
        let mut files = vec![self.folder.join("bundle.pem")];
        for workload in workloads {
            files.extend([self.certificate_file(workload), self.key_file(workload)]);
        }
        files
    }

    fn certificate_file(&self, workload: &Workload) -> PathBuf {
        self.folder.join(format!("{}.pem", workload.name))
    }

    fn key_file(&self, workload: &Workload) -> PathBuf {
        self.folder.join(format!("{}.key", workload.name))
    }

    /// Reads everything and publishes what is new.
    fn load(&mut self, publisher: &mut Publisher<Credentials>) {
        let before = publisher.current();
        let mut credentials = Credentials::clone(&before);
        let mut faults = Vec::new();
        let mut changed = false;
        let workloads = self.workloads.borrow_and_update().clone();
        self.files.watch_instead(self.files_of(&workloads));
        for workload in workloads.iter() {
            match self.certificate(workload) {
                Ok(Some(certificate)) => {
                    credentials = credentials.with_identity(certificate);
                    changed = true;
                }
                Ok(None) => {}
                Err(error) => faults.push(format!("certificate of {}: {error:#}", workload.name)),
            }
        }
        for gone in
            before.identities().filter(|old| workloads.iter().all(|now| now.identity != *old.identity()))
        {
            credentials = credentials.without_identity(gone.identity());
            changed = true;
        }
        match self.bundle(&workloads) {
            Ok(bundles) => {
                credentials = bundles.into_iter().fold(credentials, Credentials::with_bundle);
                changed |= credentials.trust_generation() != before.trust_generation();
            }
            Err(error) => faults.push(format!("{error:#}")),
        }
        for fault in &faults {
            tracing::warn!(fault, "what was last good stays in force");
        }
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
        if changed {
            publisher.publish(credentials);
        }
    }

    /// The workload's certificate; none when its files hold what they held before.
    fn certificate(&mut self, workload: &Workload) -> anyhow::Result<Option<Certificate>> {
        let (chain_file, key_file) = (self.certificate_file(workload), self.key_file(workload));
        let texts = (read(&chain_file)?, read(&key_file)?);
        if self.loaded.get(&chain_file) == Some(&texts) {
            return Ok(None);
        }
        let certificate = Certificate::from_pem(&texts.0, &texts.1)?;
        anyhow::ensure!(
            *certificate.identity() == workload.identity,
            "{} names {}, but the workload is {}",
            chain_file.display(),
            certificate.identity(),
            workload.identity
        );
        self.loaded.insert(chain_file, texts);
        Ok(Some(certificate))
    }

    /// The roots, for the trust domain of every workload.
    fn bundle(&self, workloads: &[Arc<Workload>]) -> anyhow::Result<Vec<Bundle>> {
        let path = self.folder.join("bundle.pem");
        let text = read(&path)?;
        let mut domains: Vec<_> = workloads.iter().map(|workload| workload.identity.trust_domain()).collect();
        domains.sort();
        domains.dedup();
        domains
            .into_iter()
            .map(|domain| Bundle::from_pem(domain, &text).with_context(|| path.display().to_string()))
            .collect()
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
