use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    identity::{SpiffeId, TrustDomain},
    locality::Locality,
    name::{HostName, InstanceName, PortName, RuleName, ServiceName},
    resource::*,
};

fn scope() -> Scope {
    Scope::whole(RegistryName::new("static").unwrap())
}

fn endpoint(instance: usize) -> Endpoint {
    Endpoint {
        service: ServiceName::new("reviews.default").unwrap(),
        port_name: PortName::new("http").unwrap(),
        instance: InstanceName::new(&format!("reviews-{instance}")).unwrap(),
        address: format!("10.1.2.3:{}", 1000 + instance).parse().unwrap(),
        mesh_address: Some("[2001:db8::1]:15008".parse().unwrap()),
        identity: Some(SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/reviews").unwrap()),
        said_by: SaidBy { identity: Sayer::Platform, mesh_address: Sayer::RegistryRule, tls: Sayer::Default },
        tls: TlsMode::Required,
        labels: Labels::from(BTreeMap::from([
            ("version".to_owned(), "v1".to_owned()),
            ("empty".to_owned(), String::new()),
        ])),
        weight: 1,
        locality: Locality::new("eu/a").unwrap(),
        health: Health::Healthy,
    }
}

fn everything() -> Vec<Resource> {
    let service = Service {
        name: ServiceName::new("reviews.default").unwrap(),
        ports: vec![ServicePort {
            name: PortName::new("http").unwrap(),
            number: 80,
            protocol: AppProtocol::Grpc,
        }],
        nearest: false,
        declared: false,
        hosts: vec![HostName::new("reviews.service.consul").unwrap()],
    };
    let value = |value| HeaderMatch { name: "x-canary".to_owned(), value };
    let route = Route {
        name: RuleName::new("split").unwrap(),
        service: service.name.clone(),
        rules: vec![RouteRule {
            name: RuleName::new("canary").unwrap(),
            matches: vec![RouteMatch {
                path: Some(PathMatch::Prefix("/api".to_owned())),
                method: Some("GET".to_owned()),
                headers: vec![
                    value(ValueMatch::Exact("yes".to_owned())),
                    value(ValueMatch::Prefix("y".to_owned())),
                    value(ValueMatch::Regex("y.*".to_owned())),
                    value(ValueMatch::Present(true)),
                    value(ValueMatch::Present(false)),
                ],
            }],
            backends: vec![Backend {
                service: None,
                subset: BTreeMap::from([("version".to_owned(), "v2".to_owned())]),
                weight: 10,
            }],
            request_timeout: Duration::ZERO,
            connect_timeout: Duration::from_millis(1500),
            retries: Retries { attempts: 3, on_gateway_error: true, all_methods: false },
        }],
    };
    let domain = TrustDomain::new("demo.mesh").unwrap();
    let policy = Policy {
        name: RuleName::new("only-web").unwrap(),
        target: PolicyTarget::Service(service.name.clone()),
        action: Action::Deny,
        rules: vec![PolicyRule {
            name: Some(RuleName::new("first").unwrap()),
            from: vec![
                PrincipalMatch::Identity(SpiffeId::new(&domain, "default", "web").unwrap()),
                PrincipalMatch::Namespace(domain.clone(), "default".to_owned()),
                PrincipalMatch::TrustDomain(domain),
            ],
            to: vec![Operation {
                methods: vec!["GET".to_owned()],
                paths: vec!["/api/*".to_owned()],
                ports: vec![8080],
            }],
        }],
    };
    let odd = Endpoint {
        mesh_address: None,
        identity: None,
        said_by: SaidBy::all(Sayer::ServiceRule),
        tls: TlsMode::Off,
        labels: Labels::default(),
        weight: 0,
        locality: Locality::default(),
        health: Health::Unconfirmed,
        ..endpoint(2)
    };
    vec![
        Resource::Service(service.into()),
        Resource::Endpoint(endpoint(1).into()),
        Resource::Endpoint(odd.into()),
        Resource::Route(route.into()),
        Resource::Policy(policy.into()),
    ]
}

#[test]
fn every_kind_of_resource_comes_back_as_it_was() {
    let fault = OriginFault { message: "m".to_owned(), place: "p".to_owned(), keeps_last_good: true };
    let encoded = encode_replace("reviews.default", &everything(), std::slice::from_ref(&fault));
    let Relayed::Event(Event::Replace { scope: read, origin, version, resources, faults }) =
        read_event(&scope(), &encoded.event).unwrap()
    else {
        panic!("not a replace");
    };
    assert_eq!((read, origin.as_str()), (scope(), "reviews.default"));
    assert_eq!(&*version.0, format!("{:016x}", encoded.version));
    assert_eq!(resources, everything());
    assert_eq!(faults, [fault]);
}

#[test]
fn the_brackets_come_back_as_they_were() {
    let read = |bytes| read_event(&scope(), &bytes).unwrap();
    assert_eq!(read(encode_reset()), Relayed::Event(Event::Reset { scope: scope() }));
    let ready = |completeness| Relayed::Event(Event::Ready { scope: scope(), completeness });
    assert_eq!(read(encode_ready(Completeness::Full)), ready(Completeness::Full));
    assert_eq!(read(encode_ready(Completeness::Filtered)), ready(Completeness::Filtered));
    assert_eq!(
        read(encode_commit(7, Duration::from_millis(1500))),
        Relayed::Commit { position: 7, age: Duration::from_millis(1500) }
    );
}

#[test]
fn the_version_follows_the_content_and_nothing_else() {
    let version = |resources: &[Resource]| encode_replace("a", resources, &[]).version;
    let one = [Resource::Endpoint(endpoint(1).into())];
    assert_eq!(version(&one), version(&one.clone()));
    assert_ne!(version(&one), version(&[Resource::Endpoint(endpoint(2).into())]));
}

#[test]
fn ten_endpoints_that_share_their_names_take_less_than_eight_hundred_bytes() {
    let resources: Vec<_> = (0..10).map(|index| Resource::Endpoint(endpoint(index).into())).collect();
    let size = encode_replace("reviews.default", &resources, &[]).event.len();
    assert!(size < 800, "{size} bytes");
}

#[test]
fn golden_bytes_of_a_replace() {
    let encoded = encode_replace("o", &[Resource::Endpoint(endpoint(1).into())], &[]);
    assert_eq!(data_encoding::HEXLOWER.encode(&encoded.event), include_str!("golden_replace.hex").trim());
    assert_eq!(data_encoding::HEXLOWER.encode(&encode_commit(300, Duration::ZERO)), "220308ac02");
    assert_eq!(data_encoding::HEXLOWER.encode(&encode_reset()), "1200");
}

#[test]
fn what_breaks_a_rule_is_named() {
    type Damage = fn(&mut message::Replace);
    let refused = |change: Damage| {
        let encoded = encode_replace("o", &everything(), &[]).event;
        let Some(message::EventWord::Replace(mut replace)) = message::Event::decode(encoded).unwrap().word
        else {
            panic!("not a replace");
        };
        change(&mut replace);
        read_event(&scope(), &encode(message::EventWord::Replace(replace))).unwrap_err().to_string()
    };
    let cases: [(&str, Damage); 9] = [
        ("address has 3 bytes", |replace| replace.endpoints[0].address = Bytes::from_static(b"abc")),
        ("health has the value 9", |replace| replace.endpoints[0].health = 9),
        ("weight has the value 65536", |replace| replace.endpoints[0].weight = Some(65536)),
        ("labels refers to entry 99", |replace| replace.endpoints[0].labels = 99),
        ("identity", |replace| replace.endpoints[0].identity = 1),
        ("origin", |replace| replace.origin.clear()),
        ("policy target", |replace| replace.policies[0].target = Some(message::PolicyTarget::default())),
        ("principal", |replace| replace.policies[0].rules[0].from[0].identity.clear()),
        ("header match", |replace| {
            replace.routes[0].rules[0].matches[0].headers[0].value = Some(message::TextMatch::default());
        }),
    ];
    for (expected, change) in cases {
        let fault = refused(change);
        assert!(fault.contains(expected), "{fault:?} does not say {expected:?}");
    }
    assert!(matches!(read_event(&scope(), &Bytes::from_static(&[0xff])), Err(ControlError::Encoding(_))));
    assert_eq!(read_event(&scope(), &Bytes::new()), Err(ControlError::Missing("the event")));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_event(&scope(), &bytes.clone().into());
        let _ = message::ClientMessage::decode(&bytes[..]);
        let _ = message::ServerMessage::decode(&bytes[..]);
    }

    #[test]
    fn no_flipped_byte_makes_the_reader_panic(at in 0usize..700, value in any::<u8>()) {
        let mut bytes = encode_replace("reviews.default", &everything(), &[]).event.to_vec();
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = read_event(&scope(), &bytes.into());
    }
}
