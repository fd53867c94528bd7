//! Netflix's Eureka server, as Spring Cloud packages it, and the two clients of it that applications use.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::{
    error::Error,
    home::Home,
    http::{Answer, Call},
    ports::Port,
    process::{Process, Scratch},
};

const SERVER: &str = include_str!("../eureka/server.properties");
const SPRING_CLIENT: &str = include_str!("../eureka/spring-client.properties");

/// How Eureka is to be started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EurekaOptions {
    /// More properties, `NAME=VALUE` each, such as `eureka.server.enable-self-preservation=true`; they win over the rest.
    pub properties: Vec<String>,
}

/// A running server. Its state is in memory: a restart begins empty, and clients register again.
#[derive(Debug)]
pub struct Eureka {
    port: Port,
    process: Process,
    scratch: Scratch,
}

impl Eureka {
    /// Starts it, and waits until it lists its applications (6 to 15 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] when it does not come up; other errors of the system.
    pub fn start(home: &Home, options: EurekaOptions) -> Result<Self, Error> {
        let scratch = Scratch::new("eureka")?;
        let port = Port::free()?;
        let file = scratch.write("server.properties", SERVER)?;
        let mut command = java(&home.jar("eureka-server.jar"));
        command.arg(format!("--spring.config.location=file:{}", file.display()));
        command.arg(format!("--server.port={}", port.number()));
        command.args(options.properties.iter().map(|property| format!("--{property}")));
        let process = scratch.start("server", command)?;
        let eureka = Self { port, process, scratch };
        eureka.await_ready()?;
        Ok(eureka)
    }

    /// What clients are given as `defaultZone`: `http://127.0.0.1:PORT/eureka/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/eureka/", self.port.number())
    }

    /// A request below [`Eureka::url`], such as `apps/ORDERS`, that prefers JSON. A body is taken for JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] when no answer comes. A status that says no is an answer.
    pub fn call(&self, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Result<Answer, Error> {
        let call = Call::new(method, self.url() + path).header("Accept", "application/json");
        call.header("Content-Type", "application/json").body(body).send()
    }

    /// Registers an instance, as `{"instance": …}` in Eureka's own JSON. Without heartbeats it lives for its lease, 90 s
    /// when it does not say.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], or no answer.
    pub fn register(&self, instance: &Value) -> Result<(), Error> {
        let application = instance["instance"]["app"].as_str().unwrap_or_default();
        let answer = self.call("POST", &format!("apps/{application}"), instance.to_string())?;
        answer.success("register an instance").map(drop)
    }

    /// Ends the server as a crash would.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again on its port, empty, and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`].
    pub fn restart(&self) -> Result<(), Error> {
        self.process.start_again()?;
        self.await_ready()
    }

    /// Its process, to be paused for example.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where the logs lie.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    fn await_ready(&self) -> Result<(), Error> {
        self.scratch.await_ready("Eureka lists its applications", &[&self.process], || {
            self.call("GET", "apps", "").is_ok_and(|answer| answer.is_success())
        })
    }
}

/// A real client: an application that registers itself, renews its lease every second, and fetches the list of others
/// every second. The server may be Eureka or whatever else speaks its API.
#[derive(Debug)]
pub struct EurekaClient {
    port: Port,
    application: String,
    process: Process,
    spring: bool,
    scratch: Scratch,
}

impl EurekaClient {
    /// A Spring application of that name. `server` is the `defaultZone`. Waits until it answers (8 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] when it does not come up; other errors of the system.
    pub fn spring(home: &Home, server: &str, application: &str) -> Result<Self, Error> {
        let scratch = Scratch::new("eureka-spring")?;
        let port = Port::free()?;
        let file = scratch.write("client.properties", SPRING_CLIENT)?;
        let mut command = java(&home.jar("eureka-spring-client.jar"));
        command.arg(format!("--spring.config.location=file:{}", file.display()));
        command.arg(format!("--server.port={}", port.number()));
        command.arg(format!("--spring.application.name={application}"));
        command.arg(format!("--eureka.client.service-url.defaultZone={server}"));
        let process = scratch.start("client", command)?;
        let client = Self { port, application: application.into(), process, spring: true, scratch };
        client
            .scratch
            .await_ready("the Spring client answers", &[&client.process], || client.services().is_ok())?;
        Ok(client)
    }

    /// Netflix's own client for an application of that name. `server` is the `serviceUrl`. Waits until it has printed a
    /// first list (4 s), which needs no server.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] when it does not come up; other errors of the system.
    pub fn netflix(home: &Home, server: &str, application: &str) -> Result<Self, Error> {
        let scratch = Scratch::new("eureka-netflix")?;
        let port = Port::free()?;
        let mut command = java(&home.jar("eureka-netflix-client.jar"));
        command.args([server, application, &port.number().to_string()]);
        let process = scratch.start_with_open_input("client", command)?;
        let client = Self { port, application: application.into(), process, spring: false, scratch };
        let what = "the Netflix client shows what it has fetched";
        client.scratch.await_ready(what, &[&client.process], || !client.seen_lines().is_empty())?;
        Ok(client)
    }

    /// The port that it registers: the Spring client listens there, the Netflix client does not.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The id that it registers: `APPLICATION:PORT`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}:{}", self.application, self.port.number())
    }

    /// The ids of the instances that its list has now, all statuses for the Netflix client, those that are up for the
    /// Spring client; sorted. Empty while it cannot be asked.
    #[must_use]
    pub fn sees(&self) -> Vec<String> {
        let mut ids: Vec<String> = if self.spring {
            let services = self.services().unwrap_or_default();
            let instances = services.as_object().into_iter().flat_map(|all| all.values());
            let instances = instances.filter_map(Value::as_array).flatten();
            instances.filter_map(|instance| instance["id"].as_str()).map(str::to_owned).collect()
        } else {
            let line = self.seen_lines().pop().unwrap_or_default();
            line.split(' ').filter_map(|word| word.rsplit_once('=')).map(|(id, _)| id.to_owned()).collect()
        };
        ids.sort();
        ids
    }

    /// What the Spring client shows at `/services`: for each service its instances, each with `id`, `uri`, `secure` and
    /// `metadata`.
    ///
    /// # Errors
    ///
    /// No answer, which is always so for the Netflix client.
    pub fn services(&self) -> Result<Value, Error> {
        let answer = Call::new("GET", format!("http://127.0.0.1:{}/services", self.port.number())).send()?;
        Ok(answer.success("read what the Spring client sees")?.json())
    }

    /// The lines `seen HASH ID=STATUS …` that the Netflix client has printed so far, one for each change.
    #[must_use]
    pub fn seen_lines(&self) -> Vec<String> {
        let output = self.process.output();
        let lines = BufReader::new(output.as_bytes()).lines().map_while(Result::ok);
        lines.filter(|line| line.starts_with("seen ")).collect()
    }

    /// Ends it politely: it deregisters.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`].
    pub fn stop(&self) -> Result<(), Error> {
        self.process.terminate().map(drop)
    }

    /// Ends it as a crash would: its lease runs out 3 to 7 s later.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Its process and all its output.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Small and quick to start: what is measured here is never Java.
fn java(jar: &Path) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar"]).arg(jar);
    command
}
