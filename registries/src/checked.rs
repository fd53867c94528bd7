//! A registry whose endpoints the agent looks after itself: active checks for catalogs that know no health, or not enough.
//!
//! It wraps any other registry and passes its words on. What a check finds becomes the health of an endpoint in those
//! words, so nothing behind it knows of checks: an endpoint that fails its own is unhealthy, is called only when no other is
//! left, and so a check that is wrong, or a network that only the checks do not get through, never takes all of a service
//! away. An endpoint is as its registry says until it was asked often enough; what its registry calls unhealthy stays so.
//!
//! A change of health is told between the registry's own commits, as the origin's words once more, and while the registry is
//! away as an aside of the age that its words have by then. The wrapped registry
//! is always listed in full, because the origins must be known here.

mod findings;
mod looking;
mod rules;
mod walk;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, stream};
use weft_core::{
    name::{OriginName, RegistryName, ServiceName},
    registry::{
        Capabilities, Event, Lease, LocalInstance, RegisterError, Registry, RegistryError, Resume, Right,
        Scope,
    },
    tls::TlsContext,
};

pub use findings::{EndpointKey, Finding, Findings};
pub use rules::CheckRules;

use looking::Verdicts;
use walk::{Left, Walk};

/// The wrapper.
pub struct Checked {
    inner: Arc<dyn Registry>,
    rules: CheckRules,
    /// For endpoints that speak mesh; none where the process has no part in it.
    tls: Option<Arc<TlsContext>>,
    findings: Findings,
    /// What was found so far: it outlasts a stream.
    verdicts: Mutex<Verdicts>,
    /// The endpoints that are looked after while no stream speaks.
    left: Left,
}

impl Checked {
    /// Looks after the endpoints of `inner`, and shows what it finds in `findings`.
    #[must_use]
    pub fn new(
        inner: Arc<dyn Registry>,
        rules: CheckRules,
        tls: Option<Arc<TlsContext>>,
        findings: Findings,
    ) -> Self {
        Self { inner, rules, tls, findings, verdicts: Mutex::default(), left: Left::default() }
    }

    fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry for Checked {
    fn name(&self) -> &RegistryName {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { health: true, resume: false, returns: false, ..self.inner.capabilities() }
    }

    fn relayed(&self) -> Arc<[RegistryName]> {
        self.inner.relayed()
    }

    fn watch(&self, scope: Scope, _: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        let walk = Walk::new(self, self.inner.watch(scope, None));
        let words = stream::unfold(walk, |mut walk| async move {
            let words = walk.next().await?;
            Some((stream::iter(words), walk))
        });
        words.flatten().boxed()
    }

    /// What is found while the registry is away.
    fn asides(&self) -> BoxStream<'_, Vec<Event>> {
        stream::unfold((), async |()| Some((self.left.next(self).await, ()))).boxed()
    }

    fn asks_for(&self, origin: &OriginName) -> bool {
        self.inner.asks_for(origin)
    }

    fn rights(&self) -> BoxFuture<'_, Result<Vec<Right>, RegistryError>> {
        self.inner.rights()
    }

    fn rights_to_announce<'r>(
        &'r self,
        services: &'r [ServiceName],
    ) -> BoxFuture<'r, Result<Vec<Right>, RegistryError>> {
        self.inner.rights_to_announce(services)
    }

    fn register(&self, instance: Arc<LocalInstance>) -> Result<Lease, RegisterError> {
        self.inner.register(instance)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests;
