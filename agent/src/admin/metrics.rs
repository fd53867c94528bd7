//! Metrics that an agent and a hub have in common, in Prometheus' text form.
//!
//! All are about the process itself and begin with `weft_`, whatever prefix those of requests have.

use std::{
    fmt::{Result, Write},
    time::SystemTime,
};

use weft_core::{driver::Counters, flow, registry::Scope};

/// The lines that begin a metric.
///
/// # Errors
/// As writing to `text` fails; a string never does.
pub fn head(text: &mut impl Write, name: &str, kind: &str, help: &str) -> Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// Version and readiness.
///
/// # Errors
/// As [`head`].
pub fn process(text: &mut impl Write, ready: bool) -> Result {
    head(text, "weft_build_info", "gauge", "The version that runs.")?;
    writeln!(text, "weft_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))?;
    head(text, "weft_ready", "gauge", "Whether the process is ready.")?;
    writeln!(text, "weft_ready {}", u8::from(ready))
}

/// The registries that are followed.
///
/// # Errors
/// As [`head`].
pub fn registries(text: &mut impl Write, status: &flow::Status, now: SystemTime) -> Result {
    head(text, "weft_registry_connected", "gauge", "Whether a registry's stream is up.")?;
    for registry in &status.registries {
        let (name, connected) = (&registry.name, u8::from(registry.connected));
        writeln!(text, "weft_registry_connected{{registry=\"{name}\"}} {connected}")?;
    }
    head(text, "weft_registry_age_seconds", "gauge", "Time since a scope was last confirmed.")?;
    for scope in status.registries.iter().flat_map(|registry| &registry.scopes) {
        if let Some(age) = scope.age(now) {
            let (labels, age) = (labels(&scope.scope), age.as_secs_f64());
            writeln!(text, "weft_registry_age_seconds{{{labels}}} {age:.3}")?;
        }
    }
    head(text, "weft_registry_faults", "gauge", "What a scope says that could not be taken over, in parts.")?;
    for scope in status.registries.iter().flat_map(|registry| &registry.scopes) {
        let count: usize = scope.faults.iter().map(|(_, faults)| faults.len()).sum();
        writeln!(text, "weft_registry_faults{{{}}} {count}", labels(&scope.scope))?;
    }
    let name = "weft_registry_disconnects_total";
    counter(text, (name, "How often a registry was lost."), status, |counters| counters.disconnects)?;
    let name = "weft_registry_failed_attempts_total";
    counter(text, (name, "How often one was sought in vain."), status, |counters| counters.failed_attempts)
}

/// What tells a scope from others, and its registry by the label of all that is told of registries.
fn labels(scope: &Scope) -> String {
    format!("registry=\"{}\",scope=\"{scope}\"", scope.registry)
}

fn counter(
    text: &mut impl Write,
    (name, help): (&str, &str),
    status: &flow::Status,
    count: impl Fn(&Counters) -> u64,
) -> Result {
    head(text, name, "counter", help)?;
    for registry in &status.registries {
        writeln!(text, "{name}{{registry=\"{}\"}} {}", registry.name, count(&registry.counters))?;
    }
    Ok(())
}

/// One gauge with a line for each value of its label.
///
/// # Errors
/// As [`head`].
pub fn gauge<'a>(
    text: &mut impl Write,
    (name, help): (&str, &str),
    label: &str,
    rows: impl Iterator<Item = (&'a str, u64)>,
) -> Result {
    head(text, name, "gauge", help)?;
    for (which, value) in rows {
        writeln!(text, "{name}{{{label}=\"{which}\"}} {value}")?;
    }
    Ok(())
}
