//! What may be read without being the operator: health, version and metrics.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::{Inspect, metrics};
use crate::{
    admin::{Answer, Handler},
    lifecycle::Phase,
    view,
};

/// The read-only part, on TCP.
pub struct ReadOnly(pub Arc<Inspect>);

impl Handler for ReadOnly {
    fn answer(&self, method: &Method, path: &str, _query: &str) -> Answer {
        self.0.read_only(method, path)
    }
}

impl Inspect {
    pub(super) fn read_only(&self, method: &Method, path: &str) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            return Answer::not_found();
        }
        match path {
            "/livez" => Answer::text("ok\n"),
            "/readyz" => self.readyz(),
            "/version" => Answer::json(&view::Version::current()),
            "/metrics" => Answer::text(metrics::render(self)),
            _ => Answer::not_found(),
        }
    }

    /// 200 when requests may come; else 503 with what is missing, a line each, or the phase of a process that ends.
    fn readyz(&self) -> Answer {
        match self.lifecycle.phase() {
            Phase::Starting | Phase::Serving => Answer::ready_unless(&self.missing()),
            phase => Answer::Text(StatusCode::SERVICE_UNAVAILABLE, format!("{phase}\n")),
        }
    }
}
