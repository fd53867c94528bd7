//! What the suite needs of a backend.

use std::sync::Arc;

use weft_core::registry::Registry;

/// A real catalog with its server. Every method waits until the server has taken the word, not until anybody sees it.
pub(crate) trait Bed: Send {
    /// The registry over it, made anew, as an agent makes it.
    fn registry(&self) -> Arc<dyn Registry>;

    /// Lets a service have so many instances that are healthy as far as the platform knows, each with the mesh port
    /// 15008 and the identity of [`identity`]; none at all takes the service away. Calling it again changes just the number.
    fn scale(&mut self, service: &str, instances: usize);

    /// Makes exactly one instance of a service fail, or all of them well again. Asked only of what knows health.
    fn ail(&mut self, _service: &str, _ails: bool) {
        unreachable!("declared to know health");
    }

    /// Writes a route called `by-header` for a service. Asked only of what carries configuration.
    fn route(&mut self, _service: &str) {
        unreachable!("declared to carry configuration");
    }

    /// Kills the server.
    fn kill(&mut self);

    /// Starts it again with what it held.
    fn restart(&mut self);
}

/// Who answers for a service, in every catalog.
pub(crate) fn identity(service: &str) -> String {
    format!("spiffe://test.mesh/ns/default/sa/{service}")
}
