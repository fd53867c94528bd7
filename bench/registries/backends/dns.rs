//! DNS: names are listed in the agent's file, so that file grows with the zone. What is asked again and again is up to the
//! zone's own times: a minute for what rests, and for what it denies; a second for what is changed.

use std::{
    fmt::Write,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    thread::sleep,
    time::Duration,
};

use weft_testbed::{Home, Knot};

use super::{Backend, Traffic, address};
use crate::{
    ENDPOINTS,
    probe::{Applications, Sign},
};

/// For how many seconds the addresses of a service hold, and that it has none of the other family.
const TTL: u32 = 60;

pub(super) struct Bed {
    knot: Knot,
    services: AtomicUsize,
}

pub(super) fn start(home: &Home) -> anyhow::Result<Bed> {
    let knot = Knot::start(home, "")?;
    knot.deny_for(TTL);
    Ok(Bed { knot, services: AtomicUsize::new(0) })
}

impl Bed {
    fn write(&self, services: usize, replaced: bool, probe: Option<SocketAddr>) -> anyhow::Result<()> {
        let mut records = String::new();
        for number in 0..services * ENDPOINTS {
            let (service, endpoint) = (number / ENDPOINTS, number % ENDPOINTS);
            writeln!(records, "s{service} {TTL} A {}", address(service, endpoint, replaced))?;
        }
        if let Some(probe) = probe {
            writeln!(records, "probe SRV 0 0 {} application\napplication A {}", probe.port(), probe.ip())?;
        }
        Ok(self.knot.set(&records)?)
    }
}

impl Backend for Bed {
    fn section(&self) -> String {
        let mut section = format!(
            "[[registry]]\nkind = \"dns\"\nresolvers = [\"{}\"]\nmin_ttl = \"1s\"\nallow_loopback = true\n\
             mesh_port = 15008\nidentity = \"ns/{{namespace}}/sa/{{service}}\"\n\
             [[registry.service]]\nname = \"probe.default\"\ntls = \"off\"\n\
             [[registry.follow]]\nservice = \"probe.default\"\nsrv = \"probe.test\"\n",
            self.knot.address()
        );
        for service in 0..self.services.load(Ordering::Relaxed) {
            section.push_str(&format!(
                "[[registry.follow]]\nservice = \"s{service}.default\"\nhost = \"s{service}.test\"\nport = 8000\n"
            ));
        }
        section
    }

    fn fill(&self, services: usize) -> anyhow::Result<()> {
        self.services.store(services, Ordering::Relaxed);
        self.write(services, false, None)
    }

    fn prepare(&self, applications: &Applications, _changes: usize) -> anyhow::Result<()> {
        self.change(applications, 1).map(drop)
    }

    fn change(&self, applications: &Applications, number: usize) -> anyhow::Result<(String, Sign)> {
        let to = applications.addresses[number % 2];
        self.write(self.services.load(Ordering::Relaxed), false, Some(to))?;
        Ok(("probe.default".into(), Sign::Answers(to.port())))
    }

    fn roll(&self, services: usize) -> anyhow::Result<()> {
        self.write(services, true, None)?;
        // Until whoever asked last before it asks again, a tenth of the time later at most.
        sleep(Duration::from_secs(TTL.into()).mul_f64(1.1));
        Ok(())
    }

    fn traffic(&self) -> anyhow::Result<Traffic> {
        let counts = self.knot.counts()?;
        Ok(Traffic { requests: counts.queries, bytes: counts.bytes })
    }
}
