//! etcd: below a Kubernetes API server, or alone, with one member or with three that elect a leader among them.

use std::process::Command;

use serde_json::Value;

use crate::{
    error::Error,
    home::Home,
    http::{Answer, Call},
    ports::Port,
    process::{Process, Scratch},
    wait::{LIMIT, until},
};

/// Running members of one etcd cluster.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    /// None: it lies in the folder of somebody else, who removes it.
    scratch: Option<Scratch>,
}

#[derive(Debug)]
struct Member {
    client: Port,
    _peer: Port,
    process: Process,
}

impl Etcd {
    /// Starts so many members (1 or 3; they come with Kubernetes), and waits until they have a leader (0.7 s; three of them
    /// 2.7 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] when it does not come up; other errors of the system.
    pub fn start(kubernetes: &Home, members: usize) -> Result<Self, Error> {
        let scratch = Scratch::new("etcd")?;
        let mut etcd = Self::start_in(&scratch, kubernetes, members)?;
        etcd.await_ready(&scratch)?;
        etcd.scratch = Some(scratch);
        Ok(etcd)
    }

    /// Starts it in a folder of somebody else, and waits for nothing.
    pub(crate) fn start_in(scratch: &Scratch, kubernetes: &Home, members: usize) -> Result<Self, Error> {
        let ports =
            (0..members).map(|_| Ok((Port::free()?, Port::free()?))).collect::<Result<Vec<_>, Error>>()?;
        let name = |index: usize| format!("etcd-{}", index + 1);
        let url = |port: &Port| format!("http://127.0.0.1:{}", port.number());
        let cluster: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(index, (_, peer))| format!("{}={}", name(index), url(peer)))
            .collect();
        let mut started = Vec::new();
        for (index, (client, peer)) in ports.into_iter().enumerate() {
            let mut command = Command::new(kubernetes.program("etcd"));
            command.args([format!("--name={}", name(index)), "--log-level=warn".into()]);
            command.arg(format!("--data-dir={}", scratch.path().join(name(index)).display()));
            // A killed process loses nothing of what it wrote to the system, and a crash of the machine ends the test.
            command.arg("--unsafe-no-fsync");
            for flag in ["listen-client-urls", "advertise-client-urls"] {
                command.arg(format!("--{flag}={}", url(&client)));
            }
            for flag in ["listen-peer-urls", "initial-advertise-peer-urls"] {
                command.arg(format!("--{flag}={}", url(&peer)));
            }
            command.arg(format!("--initial-cluster={}", cluster.join(",")));
            let process = scratch.start(&name(index), command)?;
            started.push(Member { client, _peer: peer, process });
        }
        Ok(Self { members: started, scratch: None })
    }

    /// Where the first member's API is, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        self.member_url(0)
    }

    /// Where the API of a member is; they count from 0.
    ///
    /// # Panics
    ///
    /// When there is no such member.
    #[must_use]
    pub fn member_url(&self, index: usize) -> String {
        format!("http://127.0.0.1:{}", self.members[index].client.number())
    }

    /// Where the APIs of all members are, dead ones included.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        (0..self.members.len()).map(|index| self.member_url(index)).collect()
    }

    /// The process of a member, to be killed, paused or started again alone.
    ///
    /// # Panics
    ///
    /// When there is no such member.
    #[must_use]
    pub fn member(&self, index: usize) -> &Process {
        &self.members[index].process
    }

    /// A call of a member's API through its JSON gateway, such as `/v3/kv/put`, where keys and values are in base 64.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] when no answer comes. A status that says no is an answer.
    ///
    /// # Panics
    ///
    /// When there is no such member.
    pub fn call_member(&self, index: usize, path: &str, message: &Value) -> Result<Answer, Error> {
        Call::new("POST", self.member_url(index) + path).body(message.to_string()).send()
    }

    /// A call of the first member's API.
    ///
    /// # Errors
    ///
    /// As [`Etcd::call_member`].
    pub fn call(&self, path: &str, message: &Value) -> Result<Answer, Error> {
        self.call_member(0, path, message)
    }

    /// Which member leads, as the first that answers believes; none while nobody does.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let status = |index: usize| {
            let answer =
                self.call_member(index, "/v3/maintenance/status", &Value::Object(Default::default()));
            answer.ok().map(|answer| answer.json()).filter(|status| status["header"].is_object())
        };
        let running = (0..self.members.len()).filter(|&index| self.members[index].process.is_running());
        let statuses: Vec<(usize, Value)> =
            running.filter_map(|index| Some((index, status(index)?))).collect();
        // A member that is leaderless leaves the field out.
        let leader = statuses.iter().find_map(|(_, status)| status["leader"].as_str())?;
        statuses.iter().find(|(_, status)| status["header"]["member_id"] == leader).map(|(index, _)| *index)
    }

    /// Waits, at most a minute, until a member that runs leads.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`].
    pub fn await_leader(&self) -> Result<usize, Error> {
        let mut leader = None;
        until("etcd has a leader", LIMIT, || {
            leader = self.leader();
            leader.is_some()
        })?;
        leader.ok_or_else(|| Error::TimedOut { what: "a leader".into(), limit: LIMIT })
    }

    /// Ends all members as a crash would.
    pub fn kill(&self) {
        for member in &self.members {
            member.process.kill();
        }
    }

    /// Starts the members that do not run, on their ports and with their state, and waits until all are healthy.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`], or [`Error::TimedOut`] when it is below an API server.
    pub fn restart(&self) -> Result<(), Error> {
        for member in &self.members {
            member.process.start_again()?;
        }
        match &self.scratch {
            Some(scratch) => self.await_ready(scratch),
            None => until("etcd is healthy", LIMIT, || self.is_healthy()),
        }
    }

    fn await_ready(&self, scratch: &Scratch) -> Result<(), Error> {
        let processes: Vec<&Process> = self.members.iter().map(|member| &member.process).collect();
        scratch.await_ready("etcd is healthy", &processes, || self.is_healthy())
    }

    fn is_healthy(&self) -> bool {
        let mut urls = self.urls().into_iter();
        urls.all(|url| {
            Call::new("GET", url + "/health").send().is_ok_and(|answer| answer.json()["health"] == "true")
        })
    }
}
