//! Bytes that must never change. Each one stands in `docs/wire.md` as well, and a test holds that.

use std::time::Duration;

use data_encoding::HEXLOWER;
use weft_core::{
    name::{InstanceName, ServiceName, WorkloadName},
    resource::Labels,
    wire::{Answer, FrameDecoder, Framing, Hello, OUR_VERSIONS, TraceContext},
};

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

pub(crate) fn full_hello() -> Hello {
    Hello {
        service: ServiceName::new("db.prod").unwrap(),
        port: 5432,
        instance: Some(InstanceName::new("db-0").unwrap()),
        subset: labels(&[("tier", "a"), ("version", "v1")]),
        source_workload: Some(WorkloadName::new("web").unwrap()),
        source_labels: labels(&[("app", "web")]),
        original_address: Some("[2001:db8::1]:5432".parse().unwrap()),
        trace_context: Some(TraceContext {
            parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            state: "a=b".to_owned(),
        }),
        versions: OUR_VERSIONS,
    }
}

fn hellos() -> Vec<(Hello, &'static str)> {
    vec![(Hello::new(ServiceName::new("reviews").unwrap(), 8080), MINIMAL_HELLO), (full_hello(), FULL_HELLO)]
}

fn answers() -> Vec<(Answer, &'static str)> {
    let malformed = Answer::Malformed { reason: "the field port is wrong".to_owned() };
    vec![
        (Answer::Accepted { version: 1 }, "574546540100020801"),
        (Answer::NotHere, "574546540100020802"),
        (Answer::Draining, "574546540100020803"),
        (Answer::WrongFraming { using: Framing::Http2 }, "5745465401000d08041209776566742d68322f31"),
        (Answer::Denied { rule: "only-web".to_owned() }, "5745465401000c08051a086f6e6c792d776562"),
        (Answer::Overloaded { retry_after: Duration::from_millis(1500) }, "574546540100050806 20dc0b"),
        (Answer::Untrusted, "574546540100020807"),
        (malformed, "5745465401001b08082a17746865206669656c6420706f72742069732077726f6e67"),
        (Answer::Version { ours: OUR_VERSIONS }, "57454654010006080930013801"),
    ]
}

#[test]
fn hellos_are_these_bytes() {
    for (hello, golden) in hellos() {
        let bytes = hello.encode().unwrap();
        assert_eq!(HEXLOWER.encode(&bytes), golden);
        let decoded = Hello::decode(&mut FrameDecoder::default(), &mut bytes.as_slice());
        assert_eq!(decoded, Ok(Some(hello)));
    }
}

#[test]
fn answers_are_these_bytes() {
    for (answer, golden) in answers() {
        let bytes = answer.encode();
        assert_eq!(HEXLOWER.encode(&bytes), golden.replace(' ', ""), "{answer:?}");
        let decoded = Answer::decode(&mut FrameDecoder::default(), &mut bytes.as_slice());
        assert_eq!(decoded, Ok(Some(answer)));
    }
}

#[test]
fn the_documentation_shows_the_same_bytes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire.md");
    let text: String = std::fs::read_to_string(path).unwrap().split_whitespace().collect();
    let golden =
        hellos().into_iter().map(|(_, bytes)| bytes).chain(answers().into_iter().map(|(_, bytes)| bytes));
    for bytes in golden {
        assert!(text.contains(&bytes.replace(' ', "")), "docs/wire.md lacks {bytes}");
    }
}

const MINIMAL_HELLO: &str = "57454654010018080110011a0f726576696577732e64656661756c7420903f";
const FULL_HELLO: &str = concat!(
    "57454654010093080110011a0764622e70726f6420b82a2a0464622d3032090a0474696572120161320d0a07",
    "76657273696f6e120276313a03776562420a0a0361707012037765624a125b323030313a6462383a3a315d3a",
    "35343332523730302d30616637363531393136636434336464383434386562323131633830333139632d6237",
    "61643662373136393230333333312d30315a03613d62",
);
