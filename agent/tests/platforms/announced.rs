//! Services that their own agents announce: seen in the real catalog with what is true of them, called from elsewhere,
//! announced again where the server forgot them, and withdrawn before their agent refuses a call.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use weft_testbed::{Consul, ConsulOptions, Eureka, EurekaOptions, Kind, installed, required};

use crate::support::{Application, Load, Mesh, client, until, until_within};

/// How soon the death of an application is known to its agent, to the platform and to a caller's agent.
const SECONDS: Duration = Duration::from_secs(30);

/// What the tests ask of a platform's own API.
trait Catalog {
    /// The agents' `[[registry]]` section.
    fn section(&self) -> String;
    /// Of the announced instances: what they are called there, and whether the platform says that they are well.
    fn instances(&self) -> Vec<(String, bool)>;
    /// Has the server forget an instance.
    fn forget(&self, id: &str);
}

impl Catalog for Consul {
    fn section(&self) -> String {
        let url = self.url();
        format!(
            "[[registry]]\nkind = \"consul\"\nname = \"catalog\"\naddress = \"{url}\"\nallow_loopback = true\n"
        )
    }

    fn instances(&self) -> Vec<(String, bool)> {
        let listed = self.call("GET", "/v1/health/service/reviews", "").unwrap().json();
        let passes =
            |entry: &Value| entry["Checks"].as_array().unwrap().iter().all(|it| it["Status"] == "passing");
        let entries = listed.as_array().unwrap().iter();
        entries.map(|entry| (entry["Service"]["ID"].as_str().unwrap().to_owned(), passes(entry))).collect()
    }

    fn forget(&self, id: &str) {
        self.deregister(id).unwrap();
    }
}

impl Catalog for Eureka {
    fn section(&self) -> String {
        let url = self.url();
        format!(
            "[[registry]]\nkind = \"eureka\"\nname = \"catalog\"\naddress = \"{url}\"\npoll = \"1s\"\nallow_loopback = true\n"
        )
    }

    fn instances(&self) -> Vec<(String, bool)> {
        let answer = self.call("GET", "apps/REVIEWS", "").unwrap();
        if answer.status == 404 {
            return Vec::new();
        }
        let listed = answer.json();
        let instances = listed["application"]["instance"].as_array().cloned().unwrap_or_default();
        let told = |it: &Value| (it["instanceId"].as_str().unwrap().to_owned(), it["status"] == "UP");
        instances.iter().map(told).collect()
    }

    fn forget(&self, id: &str) {
        self.call("DELETE", &format!("apps/REVIEWS/{id}"), "").unwrap().success("forget").unwrap();
    }
}

/// The rows of an agent's status.
fn announcements(mesh: &Mesh, host: &str) -> Vec<Value> {
    mesh.ask(host, "status")["announcements"].as_array().unwrap().clone()
}

fn eligible(mesh: &Mesh) -> usize {
    let rows = mesh.ask("near", "endpoints");
    let ours = |row: &&Value| row["service"] == "reviews.default" && row["eligible"] == true;
    rows.as_array().unwrap().iter().filter(ours).count()
}

fn sees(mesh: &Mesh, count: usize) {
    until_within(SECONDS, &format!("{count} can be called"), || (eligible(mesh) == count).then_some(()));
}

/// Two hosts that serve `reviews` and announce nothing yet, and one that calls.
fn mesh(section: &str, applications: [&Application; 2]) -> Mesh {
    let mut mesh = Mesh::new();
    mesh.caller("near", "web");
    mesh.follow("near", section);
    for (name, application) in ["one", "two"].into_iter().zip(applications) {
        mesh.serve(name, "reviews", name, application.address, "http");
        mesh.follow(name, section);
    }
    mesh.start();
    mesh
}

/// Announces what a host serves, in a running agent.
fn announce(mesh: &Mesh, host: &str, more: &str) {
    let terms = format!("[workload.port.announce]\nregistries = \"catalog\"\n{more}");
    mesh.write_config(
        host,
        &format!("{terms}[workload.port.announce.check]\nkind = \"http\"\ninterval = \"500ms\"\n"),
    );
}

fn announces(catalog: &impl Catalog) {
    let first = Application::start("one");
    let second = Application::start("two");
    let mut mesh = mesh(&catalog.section(), [&first, &second]);
    assert!(catalog.instances().is_empty() && announcements(&mesh, "one").is_empty());
    announce(&mesh, "one", "");
    announce(&mesh, "two", "");
    sees(&mesh, 2);
    let well = || catalog.instances().iter().filter(|(_, well)| *well).count();
    assert_eq!(well(), 2, "{:?}", catalog.instances());
    let row = announcements(&mesh, "one").remove(0);
    assert!(row["registry"] == "catalog" && row["health"] == "healthy" && row["fault"].is_null(), "{row}");
    assert!(row["since_s"].is_u64() && row["confirmed_s"].as_u64() >= row["since_s"].as_u64(), "{row}");
    let metrics = client::get(mesh.admin("one"), "localhost", "/metrics").unwrap().body;
    assert!(
        metrics.contains("weft_announcement_in_force{registry=\"catalog\",service=\"reviews.default\""),
        "{metrics}"
    );

    // What changes is announced anew, and none of it costs a call.
    let load = Load::paced(mesh.outbound("web"), "reviews.default.mesh", 8, 500);
    load.go_on(200);
    announce(&mesh, "two", "weight = 3\nlabels = { colour = \"blue\" }\n");
    until_within(SECONDS, "the new weight is seen", || {
        let rows = mesh.ask("near", "endpoints");
        rows.as_array()
            .unwrap()
            .iter()
            .any(|row| row["weight"] == 3 && row["labels"]["colour"] == "blue")
            .then_some(())
    });
    let (id, _) = catalog.instances().into_iter().find(|(id, _)| id.contains("reviews-one")).unwrap();
    catalog.forget(&id);
    let is_there = || catalog.instances().iter().any(|(known, _)| *known == id);
    until_within(Duration::from_secs(60), "it is announced again", || is_there().then_some(()));
    sees(&mesh, 2);
    // One drains: it is gone from the catalog before it refuses anybody.
    mesh.process("one").signal(Signal::TERM);
    until_within(SECONDS, "it is withdrawn", || (!is_there()).then_some(()));
    assert!(mesh.process("one").wait().success());
    sees(&mesh, 1);
    load.go_on(200);
    let (answered, failures) = (load.answered(), load.end());
    assert!(failures.is_empty(), "{} of {answered} failed, such as {}", failures.len(), failures[0]);

    // The application dies, not its agent.
    drop(second);
    sees(&mesh, 0);
    until_within(SECONDS, "the catalog says so", || (well() == 0).then_some(()));
    let row = announcements(&mesh, "two").remove(0);
    assert!(row["health"] == "unhealthy" && row["reason"].as_str().unwrap().contains("GET /"), "{row}");
    // A reload that no longer announces it withdraws it.
    mesh.write_config("two", "");
    until("it is withdrawn", || catalog.instances().is_empty().then_some(()));
    assert!(announcements(&mesh, "two").is_empty());
}

#[test]
fn services_are_announced_in_consul() {
    let Some(home) = required(installed(Kind::Consul)) else { return };
    announces(&Consul::start(&home, ConsulOptions::default()).unwrap());
}

#[test]
fn services_are_announced_at_eureka() {
    let Some(home) = required(installed(Kind::Eureka)) else { return };
    announces(&Eureka::start(&home, EurekaOptions::default()).unwrap());
}
