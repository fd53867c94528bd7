//! What the tests need of a platform, and the mesh that they stand in it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Condvar, Mutex, PoisonError},
};

use serde_json::Value;
use weft_core::{
    driver::StateFile,
    resource::{Health, Resource},
};
use weft_testbed::Gate;

use crate::support::{Application, Mesh, client, mesh::identity, until};

/// The service that every platform announces.
pub(crate) const SERVICE: &str = "reviews";

/// A real catalog with its server, and a gate before it through which the agent under test goes.
pub(crate) trait Platform {
    /// At which address of this machine instances are called.
    fn host_address(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }
    /// The agent's `[[registry]]` section.
    fn section(&self) -> String;
    /// Announces an instance of [`SERVICE`], or says the same again.
    fn announce(&self, instance: &Instance);
    /// Takes an instance out of the catalog.
    fn withdraw(&self, instance: &Instance);
    /// Kills the server.
    fn kill(&self);
    /// Starts it again with what it held.
    fn restart(&self);
    /// What stands between the agent and the server.
    fn gate(&self) -> &Gate;
    /// Has the server refuse the agent's token; false where it knows none.
    fn revoke(&self) -> bool;
    /// Gives the agent a token that is good, where its file says.
    fn restore(&self);
}

/// A platform of three servers, of which the first, which the agent asks, does not lead.
pub(crate) trait Elects: Platform {
    /// Waits until a server leads; which one.
    fn leader(&self) -> usize;
    /// Kills one of them.
    fn kill_member(&self, index: usize);
}

/// One instance, which its own agent serves.
pub(crate) struct Instance {
    /// Unique.
    pub(crate) name: String,
    /// The host it is on, by the mesh's name.
    pub(crate) host: String,
    pub(crate) application: SocketAddr,
    pub(crate) mesh_port: u16,
}

impl Instance {
    /// Who answers.
    pub(crate) fn identity(&self) -> String {
        identity(SERVICE)
    }
}

/// Some instances of one service, each on a host of its own, and a caller whose agent follows the platform alone.
pub(crate) struct World<P> {
    pub(crate) platform: P,
    pub(crate) mesh: Mesh,
    _applications: Vec<Application>,
    pub(crate) instances: Vec<Instance>,
    _turn: Turn,
}

/// A test's place among those that run.
pub(crate) struct Turn(());

/// How many such tests run at a time: each puts a thousand calls a second on the machine and waits most of its time.
const AT_ONCE: usize = 2;
static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Waits until it is the test's turn.
pub(crate) fn turn() -> Turn {
    let running = RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = RUNNING.1.wait_while(running, |running| *running >= AT_ONCE);
    *waited.unwrap_or_else(PoisonError::into_inner) += 1;
    Turn(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        RUNNING.1.notify_one();
    }
}

impl<P: Platform> World<P> {
    /// Starts it all; `announced` of the three instances are in the catalog.
    pub(crate) fn new(platform: P, announced: usize) -> Self {
        let turn = turn();
        let mut mesh = Mesh::new();
        mesh.caller("near", "web");
        let applications: Vec<_> = ["one", "two", "three"].map(Application::start).into();
        let mut instances = Vec::new();
        for (application, name) in applications.iter().zip(["one", "two", "three"]) {
            mesh.serve(name, SERVICE, name, application.address, "http");
            mesh.take_traffic_at(name, platform.host_address());
            instances.push(Instance {
                name: format!("{SERVICE}-{name}"),
                host: name.into(),
                application: application.address,
                mesh_port: mesh.inbound(name).port(),
            });
        }
        mesh.follow("near", &platform.section());
        instances.iter().take(announced).for_each(|instance| platform.announce(instance));
        mesh.start();
        let world = Self { platform, mesh, _applications: applications, instances, _turn: turn };
        world.sees(announced);
        world
    }

    /// Where the caller's calls go in.
    pub(crate) fn outbound(&self) -> SocketAddr {
        self.mesh.outbound("web")
    }

    /// Waits until the caller's agent has so many endpoints that it would call.
    pub(crate) fn sees(&self, eligible: usize) {
        until(&format!("{eligible} endpoints can be called"), || (self.eligible() == eligible).then_some(()));
    }

    pub(crate) fn eligible(&self) -> usize {
        self.endpoints().iter().filter(|endpoint| endpoint["eligible"] == true).count()
    }

    /// All endpoints, as the operator is told of them.
    pub(crate) fn endpoints(&self) -> Vec<Value> {
        match self.mesh.ask("near", "endpoints") {
            Value::Array(rows) => rows,
            other => panic!("{other}"),
        }
    }

    /// How many healthy endpoints of [`SERVICE`] the caller's agent would have if it started from its disk now.
    pub(crate) fn healthy_on_disk(&self) -> usize {
        let folder = self.mesh.sandbox.path("near/state/registries");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let states = files.filter(|path| path.extension().is_some_and(|extension| extension == "state"));
        let saved = states.filter_map(|path| StateFile::new(path).read().unwrap());
        let scopes = saved.filter(|saved| saved.summary.ready).flat_map(|saved| saved.scopes);
        let resources = scopes.flat_map(|scope| scope.origins).flat_map(|origin| origin.resources.into_vec());
        let is_one = |resource: &Resource| match resource {
            Resource::Endpoint(endpoint) => {
                endpoint.health == Health::Healthy
                    && endpoint.service.as_str() == format!("{SERVICE}.default")
            }
            _ => false,
        };
        resources.filter(is_one).count()
    }

    /// The registry's row of the status.
    pub(crate) fn registry(&self) -> Value {
        self.mesh.ask("near", "status")["registries"][0].clone()
    }

    /// Waits until the registry is in this state.
    pub(crate) fn is(&self, state: &str) {
        until(&format!("the registry is {state}"), || (self.registry()["state"] == state).then_some(()));
    }

    /// How often the agent warned of this registry: of the outages of one that is lost again and again, that it comes and
    /// goes.
    pub(crate) fn warnings(&mut self) -> usize {
        let log = self.mesh.process("near").log();
        log.matches("registry lost").count() + log.matches("registry comes and goes").count()
    }

    /// One call, as a user would make it.
    pub(crate) fn call(&self) -> u16 {
        client::get(self.outbound(), &format!("{SERVICE}.default.mesh"), "/")
            .map_or(0, |answer| answer.status)
    }
}
