//! The borrowed form of a [`RequestContext`]: made at the end of every request from what the request's future holds
//! anyway, so that counting and logging it clones nothing. Only a listener that keeps it pays for a copy.

use std::{fmt, net::SocketAddr, time::Duration};

use super::{Attribute, Called, Protocol, Reporter, Request, RequestContext, Verdict};
use crate::{
    identity::SpiffeId,
    name::{InstanceName, RuleName, ServiceKey, ServiceName, WorkloadName},
    workload::Source,
};

/// Everything known of one request or one opaque connection at its end.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// On which side we stand.
    pub reporter: Reporter,
    /// Who asks.
    pub source: &'a Source,
    /// What is asked for; none while unknown.
    pub destination: Option<Reached<'a>>,
    /// Where the caller's connection was accepted; none on a Unix socket.
    pub local_address: Option<SocketAddr>,
    /// Where it came from; none on a Unix socket.
    pub peer_address: Option<SocketAddr>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether the call itself is mutual TLS.
    pub mutual_tls: bool,
    /// The request; none on opaque bytes.
    pub request: Option<Asked<'a>>,
    /// The routing rule that applied.
    pub route: Option<&'a RuleName>,
    /// How often it was tried.
    pub attempts: u8,
    /// How it ended.
    pub verdict: &'a Verdict,
    /// From the first byte to the last.
    pub duration: Duration,
    /// Bytes of body from the caller.
    pub received_bytes: u64,
    /// Bytes of body to the caller.
    pub sent_bytes: u64,
}

/// The borrowed form of [`Called`].
#[derive(Clone, Copy, Debug)]
pub struct Reached<'a> {
    /// See [`Called::service`].
    pub service: &'a ServiceKey,
    /// See [`Called::port`].
    pub port: u16,
    /// See [`Called::workload`].
    pub workload: Option<&'a WorkloadName>,
    /// See [`Called::instance`].
    pub instance: Option<&'a InstanceName>,
    /// See [`Called::identity`].
    pub identity: Option<&'a SpiffeId>,
    /// See [`Called::address`].
    pub address: Option<SocketAddr>,
}

/// The borrowed form of [`Request`].
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// See [`Request::method`].
    pub method: &'a str,
    /// See [`Request::path`].
    pub path: &'a str,
    /// See [`Request::authority`].
    pub authority: &'a str,
    /// See [`Request::id`].
    pub id: &'a str,
    /// See [`Request::trace`].
    pub trace: &'a str,
    /// See [`Request::grpc`].
    pub grpc: bool,
}

/// The value of an [`Attribute`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Not known, or not applicable.
    Absent,
    /// A text.
    Text(&'a str),
    /// A number.
    Number(u64),
    /// An address.
    Address(SocketAddr),
    /// A service, without its registry.
    Service(&'a ServiceName),
}

impl<'a, T: AsRef<str>> From<Option<&'a T>> for Value<'a> {
    fn from(text: Option<&'a T>) -> Self {
        text.map_or(Self::Absent, |text| Self::Text(text.as_ref()))
    }
}

impl From<Option<SocketAddr>> for Value<'_> {
    fn from(address: Option<SocketAddr>) -> Self {
        address.map_or(Self::Absent, Self::Address)
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => Ok(()),
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Service(service) => service.fmt(f),
        }
    }
}

impl<'a> Outcome<'a> {
    /// The value of an attribute.
    #[must_use]
    pub fn value(&self, attribute: Attribute) -> Value<'a> {
        let identity = |id: &'a SpiffeId| Value::Text(id.as_str());
        let reached = |value: fn(Reached<'a>) -> Value<'a>| self.destination.map_or(Value::Absent, value);
        let asked = |value: fn(Asked<'a>) -> &'a str| match self.request.map(value) {
            None | Some("") => Value::Absent,
            Some(text) => Value::Text(text),
        };
        match attribute {
            Attribute::Reporter => Value::Text(self.reporter.label()),
            Attribute::SourceWorkload => self.source.workload.as_ref().into(),
            Attribute::SourcePrincipal => identity(&self.source.identity),
            Attribute::SourceNamespace => Value::Text(self.source.identity.namespace()),
            Attribute::SourceAddress => self.peer_address.into(),
            Attribute::DestinationService => reached(|d| Value::Service(&d.service.service)),
            Attribute::DestinationRegistry => reached(|d| Value::Text(d.service.registry.as_str())),
            Attribute::DestinationPort => reached(|d| Value::Number(d.port.into())),
            Attribute::DestinationWorkload => reached(|d| d.workload.into()),
            Attribute::DestinationInstance => reached(|d| d.instance.into()),
            Attribute::DestinationPrincipal => {
                reached(|d| d.identity.map_or(Value::Absent, |id| Value::Text(id.as_str())))
            }
            Attribute::DestinationAddress => reached(|d| d.address.into()),
            Attribute::LocalAddress => self.local_address.into(),
            Attribute::SecurityPolicy => Value::Text(if self.mutual_tls { "mutual_tls" } else { "none" }),
            Attribute::RequestProtocol => Value::Text(self.protocol_label()),
            Attribute::RequestMethod => asked(|r| r.method),
            Attribute::RequestPath => asked(|r| r.path),
            Attribute::RequestHost => asked(|r| r.authority),
            Attribute::RequestId => asked(|r| r.id),
            Attribute::TraceId => asked(|r| r.trace),
            Attribute::RequestSize => Value::Number(self.received_bytes),
            Attribute::Route => self.route.into(),
            Attribute::Attempts => Value::Number(self.attempts.into()),
            Attribute::ResponseCode => Value::Number(self.verdict.status.into()),
            Attribute::GrpcStatus => {
                self.verdict.grpc_status.map_or(Value::Absent, |code| Value::Number(code.into()))
            }
            Attribute::ResponseFlags => Value::Text(self.verdict.flags),
            Attribute::ResponseSize => Value::Number(self.sent_bytes),
            Attribute::Fault => self.verdict.fault.map_or(Value::Absent, Value::Text),
            Attribute::PolicyRule => self.verdict.rule.as_ref().into(),
            Attribute::Duration => {
                Value::Number(u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX))
            }
        }
    }

    /// Istio's value of the label `request_protocol`, which tells gRPC from other HTTP.
    #[must_use]
    pub fn protocol_label(&self) -> &'static str {
        if self.request.is_some_and(|request| request.grpc) { "grpc" } else { self.protocol.label() }
    }

    /// A copy to be kept. `ended_at` is in milliseconds since 1970.
    #[must_use]
    pub fn to_context(&self, ended_at: u64) -> RequestContext {
        RequestContext {
            ended_at,
            reporter: self.reporter,
            source: self.source.clone(),
            destination: self.destination.map(|d| Called {
                service: d.service.clone(),
                port: d.port,
                workload: d.workload.cloned(),
                instance: d.instance.cloned(),
                identity: d.identity.cloned(),
                address: d.address,
            }),
            local_address: self.local_address,
            peer_address: self.peer_address,
            protocol: self.protocol,
            mutual_tls: self.mutual_tls,
            request: self.request.map(|r| Request {
                method: r.method.into(),
                path: r.path.into(),
                authority: r.authority.into(),
                id: r.id.into(),
                trace: r.trace.into(),
                grpc: r.grpc,
            }),
            route: self.route.cloned(),
            attempts: self.attempts,
            verdict: self.verdict.clone(),
            duration: self.duration,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
        }
    }
}

impl RequestContext {
    /// The borrowed form.
    #[must_use]
    pub fn as_outcome(&self) -> Outcome<'_> {
        Outcome {
            reporter: self.reporter,
            source: &self.source,
            destination: self.destination.as_ref().map(|d| Reached {
                service: &d.service,
                port: d.port,
                workload: d.workload.as_ref(),
                instance: d.instance.as_ref(),
                identity: d.identity.as_ref(),
                address: d.address,
            }),
            local_address: self.local_address,
            peer_address: self.peer_address,
            protocol: self.protocol,
            mutual_tls: self.mutual_tls,
            request: self.request.as_ref().map(|r| Asked {
                method: &r.method,
                path: &r.path,
                authority: &r.authority,
                id: &r.id,
                trace: &r.trace,
                grpc: r.grpc,
            }),
            route: self.route.as_ref(),
            attempts: self.attempts,
            verdict: &self.verdict,
            duration: self.duration,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::RegistryName;

    fn context() -> RequestContext {
        RequestContext {
            ended_at: 7,
            reporter: Reporter::Source,
            source: Source {
                workload: Some(WorkloadName::new("web").unwrap()),
                identity: SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/web").unwrap(),
                labels: Default::default(),
            },
            destination: Some(Called {
                service: ServiceKey {
                    registry: RegistryName::new("static").unwrap(),
                    service: ServiceName::new("reviews.default").unwrap(),
                },
                port: 80,
                workload: None,
                instance: Some(InstanceName::new("reviews-1").unwrap()),
                identity: None,
                address: None,
            }),
            local_address: Some(([127, 0, 0, 1], 15001).into()),
            peer_address: None,
            protocol: Protocol::Http2,
            mutual_tls: true,
            request: Some(Request {
                method: "POST".into(),
                path: "/a".into(),
                authority: "reviews".into(),
                id: "1".into(),
                trace: String::new(),
                grpc: true,
            }),
            route: None,
            attempts: 2,
            verdict: Verdict { status: 200, grpc_status: Some(0), ..Verdict::default() },
            duration: Duration::from_micros(1500),
            received_bytes: 1,
            sent_bytes: 2,
        }
    }

    #[test]
    fn the_owned_and_the_borrowed_form_say_the_same() {
        let context = context();
        assert_eq!(context.as_outcome().to_context(7), context);
    }

    #[test]
    fn attributes_have_the_documented_values() {
        let context = context();
        let known: Vec<_> = Attribute::ALL
            .iter()
            .filter_map(|&attribute| Some(format!("{}={}", attribute.name(), context.attribute(attribute)?)))
            .collect();
        assert_eq!(
            known.join(" "),
            "reporter=source source.workload=web source.principal=spiffe://demo.mesh/ns/default/sa/web \
             source.namespace=default destination.service=reviews.default destination.registry=static \
             destination.port=80 destination.instance=reviews-1 connection.local_address=127.0.0.1:15001 \
             connection.security_policy=mutual_tls request.protocol=grpc request.method=POST request.path=/a \
             request.host=reviews request.id=1 request.size=1 request.attempts=2 response.code=200 \
             response.grpc_status=0 response.flags= response.size=2 request.duration_us=1500"
        );
    }
}
