//! Nomad: one server or several, and clients whose jobs really run on this machine.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    error::Error,
    home::Home,
    http::{Answer, Call},
    ports::{JobPorts, Port},
    process::{Process, Scratch, run_tool},
    wait::{LIMIT, until},
};

const SERVER: &str = include_str!("../nomad/server.hcl");
const CLIENT: &str = include_str!("../nomad/client.hcl");
const ACL: &str = include_str!("../nomad/acl.hcl");
/// Removes folders as they become empty, for half a minute.
const REMOVE_LATER: &str = r#"for _ in $(seq 30); do for group; do [ ! -d "$group" ] || rmdir "$group" || left=1; done
    [ "$left" ] || exit; left=; sleep 1; done"#;

/// How Nomad is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NomadOptions {
    /// With tokens: nobody may do anything without one ([`Nomad::token`]).
    pub acl: bool,
    /// One client each: more of Nomad's configuration for it, such as `datacenter = "east"`; may be empty.
    pub clients: Vec<String>,
    /// More of Nomad's configuration for the servers; it wins over the rest.
    pub server: String,
    /// How many servers; a leader needs a majority of them.
    pub servers: usize,
}

impl Default for NomadOptions {
    fn default() -> Self {
        Self { acl: false, clients: vec![String::new()], server: String::new(), servers: 1 }
    }
}

/// Running servers with their clients. Dropping it ends their tasks too, which outlive a client by design.
#[derive(Debug)]
pub struct Nomad {
    program: PathBuf,
    servers: Vec<Agent>,
    clients: Vec<Agent>,
    token: Option<String>,
    scratch: Scratch,
}

#[derive(Debug)]
struct Agent {
    http: Port,
    rpc: Port,
    serf: Port,
    _jobs: Option<JobPorts>,
    process: Process,
}

impl Nomad {
    /// A job `web` with one web server, a Python program, in Nomad's own catalog. The variable `count` says how many.
    pub const WEB_JOB: &str = include_str!("../nomad/web.nomad.hcl");

    /// Starts it, and waits until the server leads and its clients are ready (2 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] when it does not come up; other errors of the system.
    pub fn start(home: &Home, options: NomadOptions) -> Result<Self, Error> {
        let scratch = Scratch::new("nomad")?;
        let program = home.program("nomad");
        let acl = if options.acl { ACL } else { "" };
        let mut servers: Vec<Agent> = Vec::new();
        for index in 0..options.servers {
            let others = servers.first().map(|first| first.serf.number());
            let cluster = cluster(options.servers, others);
            let files = [SERVER, acl, &cluster, &options.server];
            servers.push(Agent::start(&scratch, &program, &server_name(index), &files, &[])?);
        }
        let mut nomad = Self { program, servers, clients: Vec::new(), token: None, scratch };
        nomad.await_server()?;
        if options.acl {
            nomad.token = Some(nomad.bootstrap()?);
        }
        let rpc: Vec<u16> = nomad.servers.iter().map(|server| server.rpc.number()).collect();
        // Not earlier: a client that finds no leader tries again after half a minute.
        for (index, more) in options.clients.iter().enumerate() {
            let name = client_name(index);
            let client = Agent::start(&nomad.scratch, &nomad.program, &name, &[CLIENT, acl, more], &rpc)?;
            nomad.clients.push(client);
        }
        let processes: Vec<&Process> = nomad.clients.iter().map(|client| &client.process).collect();
        nomad.scratch.await_ready("all clients are ready", &processes, || {
            let nodes = nomad.call("GET", "/v1/nodes", "").map(|answer| answer.json()).unwrap_or_default();
            let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
            nodes.iter().filter(|node| node["Status"] == "ready").count() == nomad.clients.len()
        })?;
        Ok(nomad)
    }

    /// Where the API of the first server is, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        self.servers[0].url()
    }

    /// Where the API of a client is; they count from 0.
    ///
    /// # Panics
    ///
    /// When there is no such client.
    #[must_use]
    pub fn client_url(&self, index: usize) -> String {
        self.clients[index].url()
    }

    /// The token that manages everything, when there are tokens.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A request to the server's API with the token that manages everything. `path` begins with `/v1/`.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] when no answer comes. A status that says no is an answer.
    pub fn call(&self, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Result<Answer, Error> {
        let call = Call::new(method, self.url() + path).body(body);
        match &self.token {
            Some(token) => call.header("X-Nomad-Token", token).send(),
            None => call.send(),
        }
    }

    /// Runs Nomad's own command with that input, and gives its output.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with what it complained of.
    pub fn nomad(&self, arguments: &[&str], input: &str) -> Result<String, Error> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("NOMAD_ADDR", self.url());
        for name in ["NOMAD_NAMESPACE", "NOMAD_REGION", "NOMAD_TOKEN"] {
            command.env_remove(name);
        }
        if let Some(token) = &self.token {
            command.env("NOMAD_TOKEN", token);
        }
        let output = run_tool(&format!("nomad {}", arguments.join(" ")), &mut command, input.as_bytes())?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Runs a job, given in Nomad's language, with variables `NAME=VALUE`. Returns when the server has it;
    /// [`Nomad::await_service`] waits for its services.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn run_job(&self, job: &str, variables: &[&str]) -> Result<(), Error> {
        let mut arguments = vec!["job", "run", "-detach"];
        for variable in variables {
            arguments.extend(["-var", variable]);
        }
        arguments.push("-");
        self.nomad(&arguments, job).map(drop)
    }

    /// Stops a job of the namespace `default` and forgets it. Returns when the server has decided so.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn stop_job(&self, name: &str) -> Result<(), Error> {
        self.nomad(&["job", "stop", "-purge", "-detach", name], "").map(drop)
    }

    /// The addresses of a service of the namespace `default`, `HOST:PORT` each, as the catalog has them now, sorted.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], or no answer.
    pub fn service(&self, name: &str) -> Result<Vec<String>, Error> {
        let answer = self.call("GET", &format!("/v1/service/{name}"), "")?.success("read a service")?.json();
        let instances = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let address = |instance: &Value| {
            format!("{}:{}", instance["Address"].as_str().unwrap_or_default(), instance["Port"])
        };
        let mut addresses: Vec<String> = instances.iter().map(address).collect();
        addresses.sort();
        Ok(addresses)
    }

    /// Waits, at most a minute, until a service has so many instances and each answers to `GET /`.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`].
    pub fn await_service(&self, name: &str, count: usize) -> Result<Vec<String>, Error> {
        let mut addresses = Vec::new();
        until(&format!("{name} has {count} instances that answer"), LIMIT, || {
            addresses = self.service(name).unwrap_or_default();
            let answers = |address| Call::new("GET", format!("http://{address}/")).send().is_ok();
            addresses.len() == count && addresses.iter().all(answers)
        })?;
        Ok(addresses)
    }

    /// Ends all servers as a crash would. Clients and tasks go on.
    pub fn kill_server(&self) {
        for server in &self.servers {
            server.process.kill();
        }
    }

    /// Starts the servers again that do not run, on their ports and with their state, and waits until one leads (2 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`].
    pub fn restart_server(&self) -> Result<(), Error> {
        for server in &self.servers {
            server.process.start_again()?;
        }
        self.await_server()
    }

    /// The process of the first server, to be paused for example.
    #[must_use]
    pub fn server(&self) -> &Process {
        self.member(0)
    }

    /// The process of a server; they count from 0.
    ///
    /// # Panics
    ///
    /// When there is no such server.
    #[must_use]
    pub fn member(&self, index: usize) -> &Process {
        &self.servers[index].process
    }

    /// Has another server lead. Returns when the leader was told to step back, or cannot now.
    ///
    /// # Panics
    ///
    /// When there is no such server.
    pub fn hand_over_to(&self, index: usize) {
        let address = format!("127.0.0.1:{}", self.servers[index].rpc.number());
        // Refused while an election is under way.
        drop(self.nomad(&["operator", "raft", "transfer-leadership", "-peer-address", &address], ""));
    }

    /// Waits, at most a minute, until a server that runs leads, and says which.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`].
    pub fn await_leader(&self) -> Result<usize, Error> {
        let mut leader = None;
        until("Nomad has a leader that runs", LIMIT, || {
            leader = self.leader().filter(|&index| self.member(index).is_running());
            leader.is_some()
        })?;
        leader.ok_or_else(|| Error::TimedOut { what: "a leader".into(), limit: LIMIT })
    }

    fn leader(&self) -> Option<usize> {
        let answer = self.call("GET", "/v1/status/leader", "").ok()?;
        let address = answer.json().as_str()?.to_owned();
        let port: u16 = address.rsplit(':').next()?.parse().ok()?;
        self.servers.iter().position(|server| server.rpc.number() == port)
    }

    /// A client's process; they count from 0.
    ///
    /// # Panics
    ///
    /// When there is no such client.
    #[must_use]
    pub fn client(&self, index: usize) -> &Process {
        &self.clients[index].process
    }

    /// Ends a client as a crash of its program would. Its tasks go on.
    ///
    /// # Panics
    ///
    /// When there is no such client.
    pub fn kill_client(&self, index: usize) {
        self.clients[index].process.kill();
    }

    /// Ends a client and its tasks, as a crash of its machine would.
    ///
    /// # Errors
    ///
    /// [`Error::System`], when its tasks cannot be looked for.
    ///
    /// # Panics
    ///
    /// When there is no such client.
    pub fn crash_client(&self, index: usize) -> Result<(), Error> {
        self.kill_client(index);
        self.scratch.sweep(&client_name(index))
    }

    /// Starts a client again with its state, and waits until its API answers. The server may take it for dead a little
    /// longer.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`].
    ///
    /// # Panics
    ///
    /// When there is no such client.
    pub fn restart_client(&self, index: usize) -> Result<(), Error> {
        let client = &self.clients[index];
        client.process.start_again()?;
        let url = client.url() + "/v1/agent/health";
        self.scratch.await_ready("the client answers", &[&client.process], || {
            Call::new("GET", url.as_str()).send().is_ok_and(|answer| answer.is_success())
        })
    }

    /// Where the data and the logs lie.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    fn await_server(&self) -> Result<(), Error> {
        let processes: Vec<&Process> = self.servers.iter().map(|server| &server.process).collect();
        self.scratch.await_ready("Nomad has a leader", &processes, || {
            self.call("GET", "/v1/status/leader", "").is_ok_and(|answer| answer.text().contains(':'))
                // One that is just back leads before it has read what it knew.
                && (self.token.is_none()
                    || self.call("GET", "/v1/nodes", "").is_ok_and(|answer| answer.is_success()))
        })
    }

    fn bootstrap(&self) -> Result<String, Error> {
        let answer = self.call("POST", "/v1/acl/bootstrap", "")?.success("make the first token")?;
        let secret = answer.json()["SecretID"].as_str().map(str::to_owned);
        secret.ok_or_else(|| Error::Refused { what: "make the first token".into(), answer: answer.text() })
    }

    /// What Nomad, as root, makes for each task, and leaves behind when it is killed.
    fn remove_control_groups(&self) {
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let allocations: Vec<String> = (0..self.clients.len())
            .flat_map(|index| names(&self.scratch.path().join(client_name(index)).join("data/alloc")))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = names(root).into_iter().chain([root.to_owned()]);
        let ours = |group: &PathBuf| {
            let name = group.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            allocations.iter().any(|allocation| name.starts_with(allocation.as_str()))
        };
        let groups: Vec<PathBuf> =
            hierarchies.flat_map(|hierarchy| names(&hierarchy.join("nomad"))).filter(ours).collect();
        if groups.iter().filter(|group| fs::remove_dir(group).is_err()).count() > 0 {
            // A group is not empty before the system's first process has taken note of its tasks' end, which on some
            // machines takes seconds. Nobody has to wait for that.
            let mut command = Command::new("sh");
            command.args(["-c", REMOVE_LATER, "remove"]).args(groups).process_group(0);
            let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        }
    }
}

impl Drop for Nomad {
    fn drop(&mut self) {
        self.kill_server();
        for client in &self.clients {
            client.process.kill();
        }
        if self.scratch.sweep("").is_ok() {
            self.remove_control_groups();
        }
    }
}

impl Agent {
    /// `files` are configuration, the later winning; `servers` are the RPC ports of the servers that a client joins.
    fn start(
        scratch: &Scratch,
        program: &Path,
        name: &str,
        files: &[&str],
        servers: &[u16],
    ) -> Result<Self, Error> {
        let (http, rpc, serf) = (Port::free()?, Port::free()?, Port::free()?);
        let mut ports = format!(
            "ports {{\n  http = {}\n  rpc = {}\n  serf = {}\n}}\n",
            http.number(),
            rpc.number(),
            serf.number()
        );
        let jobs = if servers.is_empty() { None } else { Some(JobPorts::free()?) };
        if let Some(JobPorts { first, last, .. }) = &jobs {
            ports += &format!("client {{\n  min_dynamic_port = {first}\n  max_dynamic_port = {last}\n}}\n");
        }
        let mut command = Command::new(program);
        command.arg("agent");
        for (index, file) in [&ports as &str].iter().chain(files).enumerate() {
            let path = scratch.write(&format!("{name}/{index}.hcl"), file)?;
            command.arg(format!("-config={}", path.display()));
        }
        command.arg(format!("-data-dir={}", scratch.path().join(name).join("data").display()));
        command.arg(format!("-node={name}"));
        command.args(servers.iter().map(|rpc| format!("-servers=127.0.0.1:{rpc}")));
        // Its helpers put sockets there, and a client that is killed leaves them.
        let temporary = scratch.path().join("t");
        std::fs::create_dir_all(&temporary).map_err(Error::system("make a folder for temporary files"))?;
        command.env("TMPDIR", temporary);
        // What is set for a cloud's client library makes a client exit.
        command.env_remove("AWS_CA_BUNDLE");
        let process = scratch.start(name, command)?;
        Ok(Self { http, rpc, serf, _jobs: jobs, process })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http.number())
    }
}

/// What a server's configuration says of the others: how many there are, and where one of them is found.
fn cluster(servers: usize, serf: Option<u16>) -> String {
    let join = serf.map(|port| {
        format!(
            "  server_join {{\n    retry_join = [\"127.0.0.1:{port}\"]\n    retry_interval = \"1s\"\n  }}\n"
        )
    });
    format!("server {{\n  bootstrap_expect = {servers}\n{}}}\n", join.unwrap_or_default())
}

/// The first one's is the same whether there are others or not: it is also the name of its log.
fn server_name(index: usize) -> String {
    match index {
        0 => "server".into(),
        other => format!("server-{}", other + 1),
    }
}

fn client_name(index: usize) -> String {
    format!("client-{}", index + 1)
}
