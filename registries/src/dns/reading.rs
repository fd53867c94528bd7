//! What an answer says. Pure.

use std::{collections::BTreeSet, time::Duration};

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{Name, RData, Record},
};

use super::answers::{Answer, Failure, Kind, Offer, Question, Said};

/// The most records of one answer that are taken.
const MAX_RECORDS: usize = 1000;

/// What is said to a question, and how long that holds; no time where nothing was. Records of other names than that which
/// was asked for, and those that it is an alias of, are nobody's answer.
pub(super) fn read((name, kind): &Question, answers: &[Record]) -> (Said, Option<Duration>) {
    let names = aliases(name, answers);
    let answers: Vec<&Record> = answers.iter().filter(|record| names.contains(&text(&record.name))).collect();
    let ttl = answers.iter().map(|record| record.ttl).min().map(|ttl| Duration::from_secs(ttl.into()));
    let data = answers.iter().map(|record| &record.data);
    let answer = match kind {
        Kind::A | Kind::Aaaa => {
            let address = |data: &RData| match data {
                RData::A(address) if *kind == Kind::A => Some(address.0.into()),
                RData::AAAA(address) if *kind == Kind::Aaaa => Some(address.0.into()),
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
                    target: text(&srv.target),
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

/// The name, and all that it is an alias of, whatever the order of the records.
fn aliases(name: &str, answers: &[Record]) -> BTreeSet<String> {
    let alias = |record: &Record| match &record.data {
        RData::CNAME(target) => Some((text(&record.name), text(&target.0))),
        _ => None,
    };
    let aliases: Vec<(String, String)> = answers.iter().filter_map(alias).take(MAX_RECORDS).collect();
    let mut names = BTreeSet::from([name.to_owned()]);
    let mut newest = vec![name.to_owned()];
    while let Some(name) = newest.pop() {
        for (_, target) in aliases.iter().filter(|(owner, _)| *owner == name) {
            if names.insert(target.clone()) {
                newest.push(target.clone());
            }
        }
    }
    names
}

/// A name as a question has it.
pub(super) fn text(name: &Name) -> String {
    name.to_lowercase().to_ascii().trim_end_matches('.').to_owned()
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

/// What an answer that is a failure says.
pub(super) fn refused(code: ResponseCode) -> Said {
    let why = format!("the server answers: {code}");
    Said::Failed(Failure { why, is_silence: false, is_refusal: code == ResponseCode::Refused })
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    use super::*;

    #[test]
    fn only_records_of_the_name_and_of_what_it_is_an_alias_of_count() {
        let name = |text: &str| Name::from_ascii(format!("{text}.")).unwrap();
        let address =
            |owner: &str, ttl, last| Record::from_rdata(name(owner), ttl, RData::A(A::new(10, 0, 0, last)));
        let alias = |owner: &str, target: &str| {
            Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
        };
        let answers = [
            address("evil.test", 1, 66),
            alias("b.test", "C.test"),
            alias("DB.test", "b.test"),
            alias("c.test", "db.test"),
            address("c.TEST", 50, 1),
            address("db.test", 90, 2),
        ];
        let (said, ttl) = read(&("db.test".to_owned(), Kind::A), &answers);
        let addresses = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).to_vec();
        assert_eq!(said, Said::Answer(Answer::Addresses(addresses)));
        assert_eq!(ttl, Some(Duration::from_secs(50)));
        let (said, _) = read(&("web.test".to_owned(), Kind::A), &answers);
        assert_eq!(said, Said::Unproven(Answer::Nothing), "nothing of it is about this name");
    }
}
