//! An agent of today against one of tomorrow: more fields, higher versions, unknown answers.

use prost::Message;
use weft_core::wire::{Answer, FrameDecoder, Hello, OUR_VERSIONS, Retry, VersionRange, WireError};

use crate::golden::full_hello;

/// A later version's hello: the same fields under the same numbers, and more.
#[derive(Clone, PartialEq, prost::Message)]
struct LaterHello {
    #[prost(uint32, tag = "1")]
    lowest_version: u32,
    #[prost(uint32, tag = "2")]
    highest_version: u32,
    #[prost(string, tag = "3")]
    service: String,
    #[prost(uint32, tag = "4")]
    port: u32,
    #[prost(string, tag = "5")]
    instance: String,
    #[prost(message, optional, tag = "15")]
    later: Option<Later>,
    #[prost(fixed64, repeated, tag = "300")]
    numbers: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Later {
    #[prost(string, tag = "1")]
    text: String,
}

/// A later version's answer.
#[derive(Clone, PartialEq, prost::Message)]
struct LaterAnswer {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    framing: String,
    #[prost(message, optional, tag = "20")]
    later: Option<Later>,
}

fn frame(version: u8, payload: &impl Message) -> Vec<u8> {
    let payload = payload.encode_to_vec();
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [b"WEFT".as_slice(), &[version], &length, &payload].concat()
}

fn later_hello(lowest_version: u32, highest_version: u32) -> LaterHello {
    LaterHello {
        lowest_version,
        highest_version,
        service: "reviews.default".into(),
        port: 80,
        instance: "reviews-1".into(),
        later: Some(Later { text: "unheard of".into() }),
        numbers: vec![1, 2, 3],
    }
}

fn read_hello(bytes: &[u8]) -> Result<Hello, WireError> {
    Hello::decode(&mut FrameDecoder::default(), &mut { bytes }).map(Option::unwrap)
}

fn read_answer(bytes: &[u8]) -> Result<Answer, WireError> {
    Answer::decode(&mut FrameDecoder::default(), &mut { bytes }).map(Option::unwrap)
}

#[test]
fn a_later_caller_that_still_speaks_ours_is_understood() {
    let hello = read_hello(&frame(1, &later_hello(1, 7))).unwrap();
    assert_eq!(hello.service.to_string(), "reviews.default");
    assert_eq!(hello.instance.as_ref().unwrap().as_str(), "reviews-1");
    assert_eq!(hello.versions, VersionRange { lowest: 1, highest: 7 });
    assert_eq!(hello.common_version(), Some(OUR_VERSIONS.highest));
}

#[test]
fn a_later_caller_that_no_longer_speaks_ours_is_told_what_we_speak() {
    let hello = read_hello(&frame(8, &later_hello(8, 9))).unwrap();
    assert_eq!(hello.common_version(), None);
    let answer = Answer::Version { ours: OUR_VERSIONS };
    assert_eq!(read_answer(&answer.encode()), Ok(answer));
}

#[test]
fn numbers_beyond_a_byte_are_only_very_high_versions() {
    let hello = read_hello(&frame(1, &later_hello(1, 70_000))).unwrap();
    assert_eq!(hello.versions, VersionRange { lowest: 1, highest: 255 });
    assert!(read_hello(&frame(1, &later_hello(3, 2))).is_err());
}

#[test]
fn a_caller_that_names_no_range_speaks_the_frames_version_alone() {
    let hello = read_hello(&frame(1, &later_hello(0, 0))).unwrap();
    assert_eq!(hello.versions, VersionRange { lowest: 1, highest: 1 });
}

/// What the first version reads of ours, were ours to grow: its fields keep their numbers.
#[test]
fn the_fields_of_version_1_keep_their_numbers() {
    let bytes = full_hello().encode().unwrap();
    let seen = LaterHello::decode(&bytes[7..]).unwrap();
    assert_eq!((seen.lowest_version, seen.highest_version, seen.port), (1, 1, 5432));
    assert_eq!((seen.service.as_str(), seen.instance.as_str()), ("db.prod", "db-0"));
}

#[test]
fn an_unknown_answer_is_a_refusal_that_is_tried_elsewhere() {
    let later = |code: u32, framing: &str| LaterAnswer {
        code,
        framing: framing.into(),
        later: Some(Later { text: "because".into() }),
    };
    let answer = read_answer(&frame(3, &later(77, ""))).unwrap();
    assert_eq!((answer.clone(), answer.retry()), (Answer::Unknown { code: 77 }, Retry::Elsewhere));
    let answer = read_answer(&frame(3, &later(4, "weft-quic/1"))).unwrap();
    assert_eq!((answer.clone(), answer.retry()), (Answer::Unknown { code: 4 }, Retry::Elsewhere));
    assert_eq!(read_answer(&frame(3, &later(1, ""))), Ok(Answer::Accepted { version: 3 }));
    assert!(read_answer(&frame(1, &later(0, ""))).is_err());
}
