//! For all values: what goes in comes out. For all bytes: no panic.

use std::time::Duration;

use proptest::prelude::*;
use weft_core::{
    name::{InstanceName, ServiceName, WorkloadName},
    resource::Labels,
    wire::{Answer, FrameDecoder, Framing, Hello, MAX_FRAME, TraceContext, VersionRange, WireError},
};

use crate::golden::{full_hello, labels};

fn some_labels(most: usize) -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("\\PC{0,12}", "\\PC{0,12}", 0..most).prop_map(Labels::from)
}

fn versions() -> impl Strategy<Value = VersionRange> {
    (1u8.., 1u8..).prop_map(|(a, b)| VersionRange { lowest: a.min(b), highest: a.max(b) })
}

fn hello() -> impl Strategy<Value = Hello> {
    let destination = (
        "[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?(\\.[a-z0-9]{1,10})?",
        1u16..,
        prop::option::of("[!-~]{1,60}"),
        some_labels(4),
    );
    let source = (prop::option::of("[a-z0-9]{1,20}"), some_labels(6));
    let tcp =
        (prop::option::of(any::<std::net::SocketAddr>()), prop::option::of(("\\PC{1,55}", "\\PC{0,50}")));
    (destination, source, tcp, versions()).prop_map(|(destination, source, tcp, versions)| Hello {
        service: ServiceName::new(&destination.0).unwrap(),
        port: destination.1,
        instance: destination.2.map(|text| InstanceName::new(&text).unwrap()),
        subset: destination.3,
        source_workload: source.0.map(|text| WorkloadName::new(&text).unwrap()),
        source_labels: source.1,
        // Text has no room for a flow label; it means nothing to whoever is told the address.
        original_address: tcp.0.map(|address| std::net::SocketAddr::new(address.ip(), address.port())),
        trace_context: tcp.1.map(|(parent, state)| TraceContext { parent, state }),
        versions,
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        (1u8..).prop_map(|version| Answer::Accepted { version }),
        Just(Answer::NotHere),
        Just(Answer::Draining),
        (0usize..4).prop_map(|index| Answer::WrongFraming { using: Framing::ALL[index] }),
        "\\PC{0,100}".prop_map(|rule| Answer::Denied { rule }),
        any::<u32>().prop_map(|ms| Answer::Overloaded { retry_after: Duration::from_millis(ms.into()) }),
        Just(Answer::Untrusted),
        "\\PC{0,100}".prop_map(|reason| Answer::Malformed { reason }),
        versions().prop_map(|ours| Answer::Version { ours }),
        (10u32..).prop_map(|code| Answer::Unknown { code }),
    ]
}

proptest! {
    #[test]
    fn a_hello_comes_out_as_it_went_in(hello in hello(), rest in prop::collection::vec(any::<u8>(), 0..30)) {
        let bytes = hello.encode().unwrap();
        prop_assert!(bytes.len() <= MAX_FRAME);
        let stream = [bytes, rest.clone()].concat();
        let mut left = stream.as_slice();
        prop_assert_eq!(Hello::decode(&mut FrameDecoder::default(), &mut left), Ok(Some(hello)));
        prop_assert_eq!(left, rest);
    }

    #[test]
    fn an_answer_comes_out_as_it_went_in(answer in answer()) {
        let bytes = answer.encode();
        prop_assert_eq!(Answer::decode(&mut FrameDecoder::default(), &mut bytes.as_slice()), Ok(Some(answer)));
    }

    #[test]
    fn no_payload_makes_a_decoder_panic(version in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Hello::from_payload(version, &payload);
        let _ = Answer::from_payload(version, &payload);
    }

    #[test]
    fn a_damaged_hello_makes_no_decoder_panic(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = full_hello().encode().unwrap();
        *at.get_mut(&mut bytes) = value;
        let _ = Hello::decode(&mut FrameDecoder::default(), &mut bytes.as_slice());
        bytes.truncate(at.index(bytes.len()));
        let _ = Hello::decode(&mut FrameDecoder::default(), &mut bytes.as_slice());
    }

    #[test]
    fn a_hello_with_too_many_labels_loses_only_labels(count in 1usize..400, length in 1usize..300) {
        let many: Labels = (0..count).map(|i| (format!("key-{i:04}"), "v".repeat(length))).collect();
        let hello = Hello { source_labels: many.clone(), ..full_hello() };
        let bytes = hello.encode().unwrap();
        prop_assert!(bytes.len() <= MAX_FRAME);
        let read = Hello::decode(&mut FrameDecoder::default(), &mut bytes.as_slice()).unwrap().unwrap();
        let kept = read.source_labels.len();
        prop_assert!(read.source_labels.iter().eq(many.iter().take(kept)));
        prop_assert!(kept == count || bytes.len() + length + 20 > MAX_FRAME);
        prop_assert_eq!(Hello { source_labels: hello.source_labels.clone(), ..read }, hello);
    }
}

#[test]
fn a_destination_is_never_cut() {
    let long = "v".repeat(5000);
    let hello = Hello { subset: labels(&[("k", &long)]), ..full_hello() };
    assert!(matches!(hello.encode(), Err(WireError::TooLong(_))));
    let state = TraceContext { parent: "p".into(), state: long };
    let hello = Hello { trace_context: Some(state), ..full_hello() };
    let bytes = hello.encode().unwrap();
    let read = Hello::decode(&mut FrameDecoder::default(), &mut bytes.as_slice()).unwrap().unwrap();
    assert_eq!(read.trace_context, Some(TraceContext { parent: "p".into(), state: String::new() }));
    assert_eq!((read.service, read.instance, read.subset), (hello.service, hello.instance, hello.subset));
}

#[test]
fn long_texts_of_an_answer_are_cut_between_characters() {
    let rule = "é".repeat(3000);
    let bytes = Answer::Denied { rule }.encode();
    let read = Answer::decode(&mut FrameDecoder::default(), &mut bytes.as_slice()).unwrap().unwrap();
    assert_eq!(read, Answer::Denied { rule: "é".repeat(256) });
}
