//! Consul: one server, or three that elect a leader among them.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    error::Error,
    home::Home,
    http::{Answer, Call},
    ports::Port,
    process::{Process, Scratch},
    wait::{LIMIT, until},
};

const AGENT: &str = include_str!("../consul/agent.json");
const ACL: &str = include_str!("../consul/acl.json");

/// How Consul is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulOptions {
    /// With default deny, and a token that manages everything ([`Consul::token`]).
    pub acl: bool,
    /// How many servers: 1, or 3 for a quorum that survives the death of one.
    pub servers: usize,
    /// With the TLS port for gRPC that peerings between clusters need.
    pub peering: bool,
    /// More configuration, in the words of Consul's own file; it wins over the rest.
    pub configuration: Value,
}

impl Default for ConsulOptions {
    fn default() -> Self {
        Self { acl: false, servers: 1, peering: false, configuration: json!({}) }
    }
}

/// A token of Consul's, made by [`Consul::create_token`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclToken {
    /// What names it in the API; good for nothing else.
    pub accessor: String,
    /// What a client shows.
    pub secret: String,
}

/// One or three running servers of one datacenter.
#[derive(Debug)]
pub struct Consul {
    members: Vec<Member>,
    token: Option<String>,
    scratch: Scratch,
}

#[derive(Debug)]
struct Member {
    name: String,
    http: Port,
    rpc: Port,
    _serf: Port,
    process: Process,
    _grpc: Option<Port>,
}

impl Consul {
    /// Starts it, and waits until it has a leader and its catalog has its servers (1.8 s, three
    /// servers too).
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] when it does not come up; other errors of the system.
    pub fn start(home: &Home, options: ConsulOptions) -> Result<Self, Error> {
        let scratch = Scratch::new("consul")?;
        let acl: Value = serde_json::from_str(ACL).unwrap_or_default();
        let token = acl["acl"]["tokens"]["initial_management"].as_str().map(str::to_owned);
        let mut consul = Self { members: Vec::new(), token: token.filter(|_| options.acl), scratch };
        let ports =
            (0..options.servers).map(|_| Ports::free(options.peering)).collect::<Result<Vec<_>, _>>()?;
        let others: Vec<String> =
            ports.iter().map(|ports| format!("127.0.0.1:{}", ports.serf.number())).collect();
        let cluster =
            json!({ "bootstrap_expect": options.servers, "retry_join": others, "retry_interval": "1s" });
        // Read in this order, the later winning.
        let mut files = vec![consul.scratch.write("agent.json", AGENT)?];
        if options.acl {
            files.push(consul.scratch.write("acl.json", ACL)?);
        }
        if options.servers > 1 {
            files.push(consul.scratch.write("cluster.json", cluster.to_string())?);
        }
        files.push(consul.scratch.write("more.json", options.configuration.to_string())?);
        for (index, ports) in ports.into_iter().enumerate() {
            let name = format!("server-{}", index + 1);
            let mut command = Command::new(home.program("consul"));
            command.arg("agent").args(files.iter().map(|file| format!("-config-file={}", file.display())));
            command.arg(format!("-data-dir={}", consul.scratch.path().join(&name).display()));
            command.args([format!("-node={name}"), format!("-http-port={}", ports.http.number())]);
            command.arg(format!("-server-port={}", ports.rpc.number()));
            command.arg(format!("-serf-lan-port={}", ports.serf.number()));
            if let Some(grpc) = &ports.grpc {
                command.arg(format!("-grpc-tls-port={}", grpc.number()));
            }
            let process = consul.scratch.start(&name, command)?;
            let Ports { http, rpc, serf, grpc } = ports;
            consul.members.push(Member { name, http, rpc, process, _serf: serf, _grpc: grpc });
        }
        consul.await_ready()?;
        Ok(consul)
    }

    /// Where the first server's API is, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        self.member_url(0)
    }

    /// Where the API of a server is; they count from 0.
    ///
    /// # Panics
    ///
    /// When there is no such server.
    #[must_use]
    pub fn member_url(&self, index: usize) -> String {
        format!("http://127.0.0.1:{}", self.members[index].http.number())
    }

    /// How many servers there are, dead ones included.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.members.len()
    }

    /// The token that manages everything, when there are tokens.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A request to the first server's API with the token that manages everything. `path` begins with `/v1/`.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] when no answer comes. A status that says no is an answer.
    pub fn call(&self, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Result<Answer, Error> {
        self.call_member(0, method, path, body)
    }

    /// A request to the API of one server.
    ///
    /// # Errors
    ///
    /// As [`Consul::call`].
    pub fn call_member(
        &self,
        index: usize,
        method: &str,
        path: &str,
        body: impl Into<Vec<u8>>,
    ) -> Result<Answer, Error> {
        let call = Call::new(method, self.member_url(index) + path).body(body);
        match &self.token {
            Some(token) => call.header("X-Consul-Token", token).send(),
            None => call.send(),
        }
    }

    /// Registers a service with the first server's agent: the body of `PUT /v1/agent/service/register`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], or no answer.
    pub fn register(&self, service: &Value) -> Result<(), Error> {
        let answer = self.call("PUT", "/v1/agent/service/register", service.to_string())?;
        answer.success("register a service").map(drop)
    }

    /// Removes a service from the first server's agent.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], or no answer.
    pub fn deregister(&self, id: &str) -> Result<(), Error> {
        let answer = self.call("PUT", &format!("/v1/agent/service/deregister/{id}"), "")?;
        answer.success("deregister a service").map(drop)
    }

    /// Makes a token whose only policy is `rules`, in Consul's own words.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], or no answer.
    pub fn create_token(&self, rules: &str) -> Result<AclToken, Error> {
        let tokens = self.call("GET", "/v1/acl/policies", "")?.json().as_array().map_or(0, Vec::len);
        let name = format!("test-{tokens}");
        let policy = json!({ "Name": name, "Rules": rules }).to_string();
        self.call("PUT", "/v1/acl/policy", policy)?.success("create a policy")?;
        let token = json!({ "Policies": [{ "Name": name }] }).to_string();
        let made = self.call("PUT", "/v1/acl/token", token)?.success("create a token")?.json();
        let field = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        Ok(AclToken { accessor: field("AccessorID"), secret: field("SecretID") })
    }

    /// Makes a token worthless.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], or no answer.
    pub fn revoke_token(&self, token: &AclToken) -> Result<(), Error> {
        let answer = self.call("DELETE", &format!("/v1/acl/token/{}", token.accessor), "")?;
        answer.success("revoke a token").map(drop)
    }

    /// All that the cluster knows, to be given to [`Consul::restore`] later.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], or no answer.
    pub fn snapshot(&self) -> Result<Vec<u8>, Error> {
        Ok(self.call("GET", "/v1/snapshot", "")?.success("take a snapshot")?.body)
    }

    /// Goes back to a snapshot. Indexes go back with it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], or no answer.
    pub fn restore(&self, snapshot: Vec<u8>) -> Result<(), Error> {
        self.call("PUT", "/v1/snapshot", snapshot)?.success("restore a snapshot").map(drop)
    }

    /// Ends all servers as a crash would.
    pub fn kill(&self) {
        for member in &self.members {
            member.process.kill();
        }
    }

    /// Starts the servers that do not run, on their ports and with their state, and waits until there is a leader
    /// again (2 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`].
    pub fn restart(&self) -> Result<(), Error> {
        for member in &self.members {
            member.process.start_again()?;
        }
        self.await_ready()
    }

    /// Stops all servers where they are: connections stay, and nobody answers.
    pub fn pause(&self) {
        for member in &self.members {
            member.process.pause();
        }
    }

    /// Lets them go on.
    pub fn resume(&self) {
        for member in &self.members {
            member.process.resume();
        }
    }

    /// The process of a server, to be killed, paused or started again alone.
    ///
    /// # Panics
    ///
    /// When there is no such server.
    #[must_use]
    pub fn member(&self, index: usize) -> &Process {
        &self.members[index].process
    }

    /// Which server leads, as the first one that answers believes; none while nobody does.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let running = (0..self.members.len()).filter(|&index| self.members[index].process.is_running());
        running.into_iter().find_map(|index| {
            let answer = self.call_member(index, "GET", "/v1/status/leader", "").ok()?;
            let address = answer.json().as_str()?.to_owned();
            let port: u16 = address.rsplit(':').next()?.parse().ok()?;
            self.members.iter().position(|member| member.rpc.number() == port)
        })
    }

    /// Waits, at most a minute, until a server that runs leads.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`].
    pub fn await_leader(&self) -> Result<usize, Error> {
        let mut leader = None;
        until("Consul has a leader that runs", LIMIT, || {
            leader = self.leader().filter(|&index| self.members[index].process.is_running());
            leader.is_some()
        })?;
        leader.ok_or_else(|| Error::TimedOut { what: "a leader".into(), limit: LIMIT })
    }

    /// Where the data and the logs lie.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// A server writes itself into the catalog a moment after there is a leader.
    fn await_ready(&self) -> Result<(), Error> {
        let processes: Vec<&Process> = self.members.iter().map(|member| &member.process).collect();
        self.scratch.await_ready("Consul has a leader and its servers in the catalog", &processes, || {
            self.leader().is_some() && (0..self.members.len()).all(|index| self.knows_all(index))
        })
    }

    fn knows_all(&self, index: usize) -> bool {
        let Ok(answer) = self.call_member(index, "GET", "/v1/catalog/nodes", "") else { return false };
        let nodes = answer.json();
        let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
        let has = |name: &str| nodes.iter().any(|node| node["Node"] == name);
        answer.is_success() && self.members.iter().all(|member| has(&member.name))
    }
}

struct Ports {
    http: Port,
    rpc: Port,
    serf: Port,
    grpc: Option<Port>,
}

impl Ports {
    fn free(peering: bool) -> Result<Self, Error> {
        Ok(Self {
            http: Port::free()?,
            rpc: Port::free()?,
            serf: Port::free()?,
            grpc: if peering { Some(Port::free()?) } else { None },
        })
    }
}
