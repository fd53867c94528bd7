//! Metrics of the agent itself, beside those of requests, in Prometheus' text form.

use std::{fmt::Write as _, time::SystemTime};

use super::Inspect;
use crate::lifecycle::Phase;

/// All metrics.
pub(super) fn render(inspect: &Inspect) -> String {
    let mut text = inspect.proxy.metrics();
    // Writing to a string cannot fail.
    let _written = render_agent(&mut text, inspect);
    text
}

fn render_agent(text: &mut String, inspect: &Inspect) -> std::fmt::Result {
    head(text, "weft_build_info", "gauge", "The version that runs.")?;
    writeln!(text, "weft_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))?;
    head(text, "weft_ready", "gauge", "Whether the agent is ready.")?;
    let ready = inspect.readiness.is_ready() && inspect.lifecycle.phase() <= Phase::Serving;
    writeln!(text, "weft_ready {}", u8::from(ready))?;
    head(
        text,
        "weft_config_reloads_total",
        "counter",
        "Configurations that were read anew, by what became of them.",
    )?;
    let record = inspect.record.view();
    for (result, count) in [("taken_over", record.reloads), ("refused", record.refused)] {
        writeln!(text, "weft_config_reloads_total{{result=\"{result}\"}} {count}")?;
    }
    head(
        text,
        "weft_config_last_reload_successful",
        "gauge",
        "Whether the file on disk is what is in force.",
    )?;
    writeln!(text, "weft_config_last_reload_successful {}", u8::from(record.fault.is_none()))?;
    render_registries(text, inspect)?;
    head(
        text,
        "weft_certificate_expiry_seconds",
        "gauge",
        "When a certificate ends, in seconds since 1970.",
    )?;
    for certificate in inspect.certificates() {
        let (identity, until) = (&certificate.identity, certificate.not_after);
        writeln!(text, "weft_certificate_expiry_seconds{{identity=\"{identity}\"}} {until}")?;
    }
    Ok(())
}

fn render_registries(text: &mut String, inspect: &Inspect) -> std::fmt::Result {
    let (status, now) = (inspect.statuses.load_full(), SystemTime::now());
    head(text, "weft_registry_connected", "gauge", "Whether a registry's stream is up.")?;
    for registry in &status.registries {
        writeln!(
            text,
            "weft_registry_connected{{registry=\"{}\"}} {}",
            registry.name,
            u8::from(registry.connected)
        )?;
    }
    head(text, "weft_registry_age_seconds", "gauge", "Time since a scope was last confirmed.")?;
    for scope in status.registries.iter().flat_map(|registry| &registry.scopes) {
        if let Some(age) = scope.age(now) {
            writeln!(
                text,
                "weft_registry_age_seconds{{scope=\"{}\"}} {:.3}",
                scope.scope,
                age.as_secs_f64()
            )?;
        }
    }
    head(text, "weft_registry_disconnects_total", "counter", "How often a registry's stream ended.")?;
    for registry in &status.registries {
        let count = registry.counters.disconnects;
        writeln!(text, "weft_registry_disconnects_total{{registry=\"{}\"}} {count}", registry.name)?;
    }
    Ok(())
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
}
