//! Asking: one of hickory's resolvers for each server, without a cache or a hosts file, so that each answer is the
//! server's own.
//!
//! The servers are asked one after the other, as they are written, until one answers. Hickory's own way with several is to
//! ask two of them at once and to take what comes first, be it that this one cannot say: a name would come and go with who
//! is faster. It also holds two ports of one address for the same server.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RecordType},
    system_conf::read_system_conf,
};
use weft_core::registry::RegistryError;

use super::{
    answers::{Failure, Kind, Question, Said},
    reading::{denied, read, refused},
};

/// How long one try of one server may take. A server that is the only one is tried twice.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how long a server that was silent is asked only after the others.
const PASSED_OVER: Duration = Duration::from_secs(10);

/// Asks.
#[derive(Clone)]
pub(super) struct Resolver(Arc<[Server]>);

struct Server {
    address: SocketAddr,
    resolver: TokioResolver,
    /// Until when others are asked first, as it was silent.
    passed_over: Mutex<Option<Instant>>,
}

impl Resolver {
    /// One that asks these servers, or those that the system asks.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, RegistryError> {
        let systems;
        let servers = if servers.is_empty() {
            systems = system_servers().map_err(|error| unusable(&error))?;
            &systems
        } else {
            servers
        };
        let retries = usize::from(servers.len() == 1);
        let servers = servers.iter().map(|server| Server::new(*server, retries));
        Ok(Self(servers.collect::<Result<_, _>>().map_err(|error| unusable(&error))?))
    }

    /// What is said to a question, and how long that holds; no time where nothing was. The word of the first server that
    /// answers counts. Who denies without proof may be one that does not know: another's answer counts more.
    pub(super) async fn ask(&self, question: &Question) -> (Said, Option<Duration>) {
        // With the dot at its end it is a whole name, and nothing is added to it.
        let name = match Name::from_ascii(format!("{}.", question.0)) {
            Ok(name) => name,
            Err(error) => return (failed(&error.to_string(), false), None),
        };
        let mut unproven = None;
        let mut failures = Vec::new();
        for (is_passed_over, place, server) in self.in_turn(Instant::now()) {
            if is_passed_over && unproven.is_some() {
                break;
            }
            match server.ask(&name, question).await {
                (Said::Failed(failure), _) => failures.push((place, server.address, failure)),
                (said @ Said::Unproven(_), ttl) => unproven = unproven.or(Some((said, ttl))),
                answer => return answer,
            }
        }
        unproven.unwrap_or_else(|| (Said::Failed(of_all(failures)), None))
    }

    /// As they are written, but those that were silent lately last.
    fn in_turn(&self, now: Instant) -> Vec<(bool, usize, &Server)> {
        let servers = self.0.iter().enumerate();
        let mut servers: Vec<_> =
            servers.map(|(place, server)| (server.is_passed_over(now), place, server)).collect();
        servers.sort_by_key(|(is_passed_over, place, _)| (*is_passed_over, *place));
        servers
    }
}

/// One failure of all: it is silence, or a refusal, when each is.
fn of_all(mut failures: Vec<(usize, SocketAddr, Failure)>) -> Failure {
    // Always in the same order, so that what is told of it stays the same.
    failures.sort_by_key(|(place, ..)| *place);
    let is_silence = failures.iter().all(|(.., failure)| failure.is_silence);
    let is_refusal = failures.iter().all(|(.., failure)| failure.is_refusal);
    let why = match &*failures {
        [(.., failure)] => failure.why.clone(),
        several => {
            let each = several.iter().map(|(_, address, failure)| format!("{address}: {}", failure.why));
            each.collect::<Vec<_>>().join("; ")
        }
    };
    Failure { why, is_silence, is_refusal }
}

fn system_servers() -> Result<Vec<SocketAddr>, NetError> {
    let (config, _) = read_system_conf()?;
    let address = |server: &NameServerConfig| {
        let port = server.connections.first().map_or(53, |connection| connection.port);
        SocketAddr::new(server.ip, port)
    };
    Ok(config.name_servers().iter().map(address).collect())
}

fn unusable(error: &NetError) -> RegistryError {
    RegistryError::Unreachable(format!("the system's resolvers cannot be found out: {error}"))
}

impl Server {
    fn new(address: SocketAddr, retries: usize) -> Result<Self, NetError> {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = address.port();
            connection
        });
        let server = NameServerConfig::new(address.ip(), true, connections.to_vec());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = PATIENCE;
        options.attempts = retries;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        Ok(Self { address, resolver: builder.build()?, passed_over: Mutex::default() })
    }

    /// Whether others are to be asked first. When its time has passed, the first who asks finds out for all: they come
    /// again only after another such time, unless it answers.
    fn is_passed_over(&self, now: Instant) -> bool {
        let mut passed_over = self.passed_over.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *passed_over {
            None => false,
            Some(until) if now < *until => true,
            Some(until) => {
                *until = now + PASSED_OVER;
                false
            }
        }
    }

    fn note(&self, is_silent: bool) {
        let mut passed_over = self.passed_over.lock().unwrap_or_else(PoisonError::into_inner);
        *passed_over = is_silent.then(|| Instant::now() + PASSED_OVER);
    }

    async fn ask(&self, name: &Name, question: &Question) -> (Said, Option<Duration>) {
        let record_type = match question.1 {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Srv => RecordType::SRV,
        };
        let (said, ttl) = match self.resolver.lookup(name.clone(), record_type).await {
            Ok(lookup) => read(question, lookup.answers()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                denied(none.response_code, none.soa.is_some(), none.negative_ttl)
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => (refused(code), None),
            Err(error) => {
                let is_silence =
                    matches!(error, NetError::Timeout | NetError::Io(_) | NetError::NoConnections);
                (failed(&error.to_string(), is_silence), None)
            }
        };
        self.note(matches!(&said, Said::Failed(Failure { is_silence: true, .. })));
        (said, ttl)
    }
}

fn failed(why: &str, is_silence: bool) -> Said {
    Said::Failed(Failure { why: why.to_owned(), is_silence, is_refusal: false })
}
