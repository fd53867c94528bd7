//! The five-minute start by hand: the verbs in the order of the README, two agents, two servers that know nothing of
//! Weft, a call through the outbound port, and the tap that shows it.

use std::{net::SocketAddr, process::Stdio};

use serde_json::Value;

use crate::support::{Application, Process, Sandbox, address, client, uid, until};

pub(crate) struct Start {
    pub(crate) sandbox: Sandbox,
    pub(crate) hub: SocketAddr,
    pub(crate) web_outbound: SocketAddr,
    /// Those of web's agent and of reviews' agent.
    pub(crate) inbounds: [SocketAddr; 2],
    /// The hub, web's agent and reviews' agent.
    pub(crate) processes: Vec<Process>,
    /// How long certificates live.
    pub(crate) leaf_ttl: &'static str,
}

pub(crate) const WEB: &str = "spiffe://quickstart.mesh/ns/default/sa/web";
pub(crate) const REVIEWS: &str = "spiffe://quickstart.mesh/ns/default/sa/reviews";

impl Start {
    pub(crate) fn new() -> Self {
        let (hub, web_outbound, inbounds) = (address(), address(), [address(), address()]);
        Self { sandbox: Sandbox::new(), hub, web_outbound, inbounds, processes: Vec::new(), leaf_ttl: "24h" }
    }

    pub(crate) fn write(&self, applications: &[Application; 2]) {
        let sandbox = &self.sandbox;
        sandbox.write(
            "hub.toml",
            &format!(
                "listen = \"{}\"\nstate_dir = \"hub\"\nrun_dir = \"hub\"\n[admin]\nlisten = \"off\"\n\
                 [ca]\nleaf_ttl = \"{}\"\n[[registry]]\nkind = \"static\"\nname = \"static\"\npath = \"mesh.d\"\nallow_loopback = true\n",
                self.hub, self.leaf_ttl
            ),
        );
        let agent = |name: &str, inbound: SocketAddr, workloads: &str| {
            sandbox.write(
                &format!("{name}.toml"),
                &format!(
                    "state_dir = \"{name}\"\nrun_dir = \"{name}/run\"\n[admin]\nlisten = \"off\"\n\
                     [inbound]\nlisten = \"{inbound}\"\n[hub]\naddress = \"{}\"\n\
                     [[registry]]\nkind = \"hub\"\nname = \"hub\"\n{workloads}",
                    self.hub
                ),
            );
        };
        let instance = |index: usize| {
            format!(
                "[[workload]]\nname = \"reviews-v{0}\"\nidentity = \"{REVIEWS}\"\nlabels = {{ version = \"v{0}\" }}\n\
                 [[workload.port]]\nservice = \"reviews.default\"\nname = \"http\"\naddress = \"{1}\"\n",
                index + 1,
                applications[index].address
            )
        };
        let web = format!(
            "[[workload]]\nname = \"web\"\nidentity = \"{WEB}\"\noutbound = \"{}\"\nuid = {}\n",
            self.web_outbound,
            uid()
        );
        agent("web", self.inbounds[0], &web);
        agent("reviews", self.inbounds[1], &format!("{}{}", instance(0), instance(1)));
        let endpoint = |index: usize| {
            format!(
                "[[service.endpoint]]\ninstance = \"reviews-{0}\"\nport = \"http\"\naddress = \"{1}\"\n\
                 mesh = \"{2}\"\nidentity = \"{REVIEWS}\"\nlabels = {{ version = \"v{0}\" }}\n",
                index + 1,
                applications[index].address,
                self.inbounds[1]
            )
        };
        sandbox.write(
            "mesh.d/reviews.toml",
            &format!(
                "[[service]]\nname = \"reviews.default\"\nhosts = [\"reviews\"]\n\
                 ports = [{{ name = \"http\", number = 80, protocol = \"http\" }}]\n{}{}\
                 [[route]]\nname = \"reviews\"\nservice = \"reviews.default\"\n[[route.rule]]\nname = \"split\"\n\
                 backends = [{{ subset = {{ version = \"v1\" }}, weight = 75 }}, \
                 {{ subset = {{ version = \"v2\" }}, weight = 25 }}]\n\
                 [[policy]]\nname = \"web-reads\"\ntarget = {{ service = \"reviews.default\" }}\naction = \"allow\"\n\
                 [[policy.rule]]\nfrom = [{{ identity = \"{WEB}\" }}]\nto = [{{ methods = [\"GET\"], paths = [\"/*\"] }}]\n",
                endpoint(0),
                endpoint(1)
            ),
        );
    }

    fn join(&self, node: &str, identity: &str) {
        let token = self.sandbox.ok(&[
            "ca",
            "token",
            "create",
            "--state-dir",
            "hub",
            "--node",
            node,
            "--identity",
            identity,
        ]);
        let hub = self.hub.to_string();
        self.sandbox.ok(&["join", "--state-dir", node, "--hub", &hub, "--token", token.trim()]);
    }

    pub(crate) fn up(&mut self) {
        self.sandbox.ok(&["ca", "init", "--state-dir", "hub", "--trust-domain", "quickstart.mesh"]);
        self.processes.push(self.sandbox.spawn("hub", &["hub", "--config", "hub.toml"]));
        until("the hub listens", || std::net::TcpStream::connect(self.hub).ok());
        for (node, identity) in [("web", WEB), ("reviews", REVIEWS)] {
            self.join(node, identity);
            let config = format!("{node}.toml");
            self.processes
                .push(self.sandbox.spawn(&format!("agent-{node}"), &["agent", "--config", &config]));
        }
        for node in ["web", "reviews"] {
            until(&format!("agent {node} is ready"), || {
                let output = self.sandbox.run(&["status", "-o", "json", "--socket", &socket(node)]);
                let status: Value = serde_json::from_slice(&output.stdout).ok()?;
                (status["phase"] == "serving").then_some(())
            });
        }
    }
}

pub(crate) fn socket(node: &str) -> String {
    format!("{node}/run/admin.sock")
}

#[test]
fn a_hub_for_certificates_alone_shows_none_of_its_registries() {
    let applications = [Application::start("one"), Application::start("two")];
    let mut start = Start::new();
    start.write(&applications);
    let config = std::fs::read_to_string(start.sandbox.path("web.toml")).unwrap();
    let own = "[[registry]]\nkind = \"static\"\nname = \"own\"\npath = \"mesh.d\"\nallow_loopback = true\n";
    let relay = "[[registry]]\nkind = \"hub\"\nname = \"hub\"\n";
    assert!(config.contains(relay));
    start.sandbox.write("web.toml", &config.replace(relay, own));
    start.up();
    let status = |node: &str| start.sandbox.json("status", &socket(node));
    until("the hub has told how its registries are", || {
        let scopes = status("reviews")["registries"].to_string();
        (scopes.contains("static") && status("web")["hub"]["link"] == "connected").then_some(())
    });
    let status = status("web");
    let rows = status["registries"].as_array().unwrap();
    assert!(rows.len() == 1 && rows[0]["scope"] == "own", "{rows:?}");
    let services = start.sandbox.json("services", &socket("web"));
    let ports = serde_json::json!([{ "name": "http", "port": 80, "protocol": "http" }]);
    assert_eq!((&services[0]["registry"], &services[0]["ports"]), (&"own".into(), &ports), "{services}");
}

#[test]
fn by_hand_as_the_readme_says() {
    let applications = [Application::start("reviews v1"), Application::start("reviews v2")];
    let mut start = Start::new();
    start.write(&applications);
    start.up();

    let mut tap = start.sandbox.weft(&["tap", "-n", "1", "-o", "json", "--socket", &socket("web")]);
    let mut tap = tap.stdout(Stdio::piped()).spawn().unwrap();
    until("the call is answered and the tap shows it", || {
        let answer = client::get(start.web_outbound, "reviews.default.mesh", "/").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        tap.try_wait().unwrap()
    });
    let call: Value = serde_json::from_slice(&tap.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(
        (&call["source"]["identity"], &call["destination"]["identity"]),
        (&WEB.into(), &REVIEWS.into())
    );
    assert_eq!((&call["mutual_tls"], &call["route"]), (&true.into(), &"reviews/split".into()));

    until("both versions answer", || {
        client::get(start.web_outbound, "reviews.default.mesh", "/").unwrap();
        applications.iter().all(|application| application.requests() > 0).then_some(())
    });
    let denied = client::send(start.web_outbound, "POST", "reviews.default.mesh", "/").unwrap();
    assert_eq!(denied.status, 403, "{denied:?}");
    let short_name = client::get(start.web_outbound, "reviews", "/").unwrap();
    assert_eq!(short_name.status, 200, "{short_name:?}");

    // Without the hub everything goes on, also after a restart.
    start.processes[0].kill();
    assert_eq!(client::get(start.web_outbound, "reviews.default.mesh", "/").unwrap().status, 200);
    start.processes[1].kill();
    start.processes[1] = start.sandbox.spawn("agent-web", &["agent", "--config", "web.toml"]);
    until("the restarted agent serves without the hub", || {
        let answer = client::get(start.web_outbound, "reviews.default.mesh", "/").ok()?;
        (answer.status == 200).then_some(())
    });
}
