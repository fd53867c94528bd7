//! Asking: hickory's resolver without a cache or a hosts file, so that each answer is the server's own.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
};
use weft_core::registry::RegistryError;

use super::answers::{Answer, Failure, Kind, Offer, Question, Said};

/// How long one try of one server may take; each server is tried twice.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most records of one answer that are taken.
const MAX_RECORDS: usize = 1000;

/// Asks.
#[derive(Clone)]
pub(super) struct Resolver(TokioResolver);

impl Resolver {
    /// One that asks these servers, or those that the system asks.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, RegistryError> {
        let unusable = |error: NetError| {
            RegistryError::Unreachable(format!("the system's resolvers cannot be found out: {error}"))
        };
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(unusable)?
        } else {
            // A server may be named with several ports.
            let mut by_ip: BTreeMap<_, Vec<ConnectionConfig>> = BTreeMap::new();
            for server in servers {
                let with_port = |mut connection: ConnectionConfig| {
                    connection.port = server.port();
                    connection
                };
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(with_port);
                by_ip.entry(server.ip()).or_default().extend(connections);
            }
            let servers =
                by_ip.into_iter().map(|(ip, connections)| NameServerConfig::new(ip, false, connections));
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = PATIENCE;
        options.attempts = 1;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        options.try_tcp_on_error = true;
        Ok(Self(builder.build().map_err(unusable)?))
    }

    /// What is said to a question, and how long that holds; no time where nothing was.
    pub(super) async fn ask(&self, question: &Question) -> (Said, Option<Duration>) {
        let (name, kind) = question;
        let record_type = match kind {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Srv => RecordType::SRV,
        };
        // With the dot at its end it is a whole name, and nothing is added to it.
        let name = match Name::from_ascii(format!("{name}.")) {
            Ok(name) => name,
            Err(error) => return (failed(&error.to_string(), false), None),
        };
        match self.0.lookup(name, record_type).await {
            Ok(lookup) => read(lookup.answers(), *kind),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                denied(none.response_code, none.soa.is_some(), none.negative_ttl)
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => (refused(code), None),
            Err(error) => {
                let is_silence =
                    matches!(error, NetError::Timeout | NetError::Io(_) | NetError::NoConnections);
                (failed(&error.to_string(), is_silence), None)
            }
        }
    }
}

fn failed(why: &str, is_silence: bool) -> Said {
    Said::Failed(Failure { why: why.to_owned(), is_silence, is_refusal: false })
}

fn refused(code: ResponseCode) -> Said {
    let why = format!("the server answers: {code}");
    Said::Failed(Failure { why, is_silence: false, is_refusal: code == ResponseCode::Refused })
}

pub(super) fn read(answers: &[Record], kind: Kind) -> (Said, Option<Duration>) {
    let ttl = answers.iter().map(|record| record.ttl).min().map(|ttl| Duration::from_secs(ttl.into()));
    let data = answers.iter().map(|record| &record.data);
    let answer = match kind {
        Kind::A | Kind::Aaaa => {
            let address = |data: &RData| match data {
                RData::A(address) if kind == Kind::A => Some(address.0.into()),
                RData::AAAA(address) if kind == Kind::Aaaa => Some(address.0.into()),
                _ => None,
            };
            let addresses: Vec<_> = data.filter_map(address).take(MAX_RECORDS).collect();
            if addresses.is_empty() { None } else { Some(Answer::Addresses(addresses)) }
        }
        Kind::Srv => {
            let offer = |data: &RData| match data {
                RData::SRV(srv) => Some(Offer {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: srv.target.to_lowercase().to_ascii().trim_end_matches('.').to_owned(),
                }),
                _ => None,
            };
            let offers: Vec<_> = data.filter_map(offer).take(MAX_RECORDS).collect();
            if offers.is_empty() { None } else { Some(Answer::Offers(offers)) }
        }
    };
    match answer {
        Some(answer) => (Said::Answer(answer), ttl),
        // An alias that leads to nothing: whose word that is does not show.
        None => (Said::Unproven(Answer::Nothing), ttl),
    }
}

/// What an answer without records says. `is_proven`: it came with the record of who may say so.
pub(super) fn denied(code: ResponseCode, is_proven: bool, ttl: Option<u32>) -> (Said, Option<Duration>) {
    let answer = match code {
        ResponseCode::NXDomain => Answer::NoName,
        ResponseCode::NoError => Answer::Nothing,
        code => return (refused(code), None),
    };
    let ttl = ttl.map(|ttl| Duration::from_secs(ttl.into()));
    if is_proven { (Said::Answer(answer), ttl) } else { (Said::Unproven(answer), ttl) }
}
