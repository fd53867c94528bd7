//! What servers answered, read without one: for recorded answers and for fuzzing.

use std::{collections::BTreeSet, time::Instant};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use weft_core::{identity::TrustDomain, locality::Locality, name::ServiceName};

use super::{
    answers::{Answers, Kind},
    convert::{Outcome, View, convert, origin},
    reading::{denied, read, text},
    settings::{Followed, Mode, Source},
};
use crate::{speaking::Rules, told::Listing};

/// Reads answers as they come over TCP, each behind its length in two bytes (RFC 1035, 4.2.2), up to the first that is cut
/// off or is none. `db.test` is followed as a host in both modes, and `_pg._tcp.test` as a service.
#[must_use]
pub fn replay(mut bytes: &[u8], trust_domain: &TrustDomain) -> Listing {
    let mut answers = Answers::default();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let Some((message, rest)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else { break };
        let Ok(message) = Message::from_vec(message) else { break };
        take(&mut answers, &message);
        bytes = rest;
    }
    let mut listing = Listing::new();
    let host = || Source::Host("db.test".to_owned(), 5432);
    let followed = [
        ("strict", host(), Mode::Strict),
        ("logical", host(), Mode::Logical),
        ("offered", Source::Service("_pg._tcp.test".to_owned()), Mode::Strict),
    ];
    for (service, source, mode) in followed {
        let Ok(service) = ServiceName::new(&format!("{service}.default")) else { continue };
        let followed = Followed { service, source, mode, locality: Locality::default() };
        let (used, now, rules) = (BTreeSet::new(), Instant::now(), Rules::default());
        let said = convert(
            &followed,
            &View { answers: &answers, used: &used, patient: false, has_its_host: true, now },
            &rules,
            Some(trust_domain),
        );
        if let Outcome::Says(words) = said {
            listing.insert(origin(&followed), words);
        }
    }
    listing
}

fn take(answers: &mut Answers, message: &Message) {
    let Some(query) = message.queries.first() else { return };
    let kind = match query.query_type() {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::SRV => Kind::Srv,
        _ => return,
    };
    let question = (text(query.name()), kind);
    let code = message.metadata.response_code;
    let (said, _) = if code == ResponseCode::NoError && !message.answers.is_empty() {
        read(&question, &message.answers)
    } else {
        let is_proven = message.authorities.iter().any(|record| record.record_type() == RecordType::SOA);
        denied(code, is_proven, None)
    };
    answers.known.entry(question).or_default().take(said, Instant::now());
}

#[cfg(test)]
mod tests {
    use weft_core::{name::OriginName, resource::Resource};

    use super::*;

    #[test]
    fn what_a_server_answered_is_understood() {
        let trust_domain = TrustDomain::new("test.mesh").unwrap();
        let listing = replay(include_bytes!("../../fuzz/corpus/dns/zone"), &trust_domain);
        let addresses = |service: &str| -> Vec<String> {
            let origin: OriginName = format!("name/{service}.default").parse().unwrap();
            let words = &listing[&origin];
            let endpoint = |resource: &Resource| match resource {
                Resource::Endpoint(endpoint) => Some(endpoint.address.to_string()),
                _ => None,
            };
            words.resources.iter().filter_map(endpoint).collect()
        };
        assert_eq!(addresses("strict"), ["10.0.0.1:5432", "10.0.0.2:5432", "[fd00::1]:5432"]);
        assert_eq!(addresses("logical").len(), 1);
        assert_eq!(
            addresses("offered"),
            ["10.0.0.1:5433", "10.0.0.2:5433", "[fd00::1]:5433", "10.0.0.7:5434"]
        );
        let gone = replay(include_bytes!("../../fuzz/corpus/dns/gone"), &trust_domain);
        assert!(gone.is_empty(), "denied by the zone: {gone:?}");
        let cut = replay(&include_bytes!("../../fuzz/corpus/dns/zone")[..40], &trust_domain);
        assert!(cut.values().all(|words| words.faults.iter().all(|fault| fault.keeps_last_good)));
    }
}
