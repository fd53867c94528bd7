//! Bytes of the control stream that must never change, put together by hand from `docs/control-stream.md`: an agent and a
//! hub of different ages read each other's.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use prost::Message;
use weft_core::control::message::{
    Acknowledge, Announce, Announced, Bundle, Bundles, Certificate, CertificateRequest, ClientMessage,
    ClientWord, Discovery, Hello, Refusal, RefusalCode, ResumePoint, ScopePosition, ServerMessage,
    ServerWord, Subscribe, Welcome, Withdraw,
};

const WEB: &str = "spiffe://demo.mesh/ns/default/sa/web";
/// The least that looks like DER.
const DER: Bytes = Bytes::from_static(&[0x30, 0]);
const EPOCH: Bytes = Bytes::from_static(b"epoch");

fn words_of_a_hub() -> Vec<(u64, ServerWord, &'static str)> {
    let welcome = Welcome {
        version: 1,
        epoch: EPOCH,
        granted: vec![WEB.to_owned()],
        registries: vec!["platform".to_owned(), "static".to_owned()],
        life: Bytes::from_static(b"life"),
    };
    let bundle = Bundle { trust_domain: "demo.mesh".to_owned(), roots: vec![DER] };
    let discovery = Discovery {
        subscription: 1,
        registry: "static".to_owned(),
        part: "east".to_owned(),
        events: vec![Bytes::from_static(b"\x12\0"), Bytes::from_static(b"\x22\x03\x08\xac\x02")],
    };
    let certificate = Certificate { request: 7, chain: vec![DER, Bytes::from_static(&[0x30, 1])] };
    let refusal = Refusal { request: 7, code: RefusalCode::NotGranted.into(), message: "no".to_owned() };
    vec![
        (1, ServerWord::Welcome(welcome), WELCOME),
        (
            2,
            ServerWord::Bundles(Bundles { bundles: vec![bundle] }),
            "08021a110a0f0a0964656d6f2e6d65736812023000",
        ),
        (
            300,
            ServerWord::Discovery(discovery),
            "08ac02221b080112067374617469631a0465617374220212002205220308ac02",
        ),
        (3, ServerWord::Certificate(certificate), "08032a0a08071202300012023001"),
        (4, ServerWord::Refusal(refusal), "08043208080710011a026e6f"),
        (5, ServerWord::Announced(Announced { request: 7 }), "080542020807"),
    ]
}

fn words_of_an_agent() -> Vec<(ClientWord, &'static str)> {
    let hello = Hello {
        node: "one".to_owned(),
        lowest_version: 1,
        highest_version: 1,
        software: "weft 0.1".to_owned(),
    };
    let position = ScopePosition { registry: "static".to_owned(), part: "east".to_owned(), position: 300 };
    let life = Bytes::from_static(b"life");
    let resume = ResumePoint { epoch: EPOCH, positions: vec![position], part: 1, life };
    let subscribe = Subscribe {
        subscription: 1,
        registries: vec!["static".to_owned()],
        resume: Some(resume),
        namespaces: vec!["shop".to_owned()],
        services: vec!["a.b".to_owned()],
    };
    let request = CertificateRequest { request: 7, identity: WEB.to_owned(), signing_request: DER };
    vec![
        (ClientWord::Hello(hello), "0a130a036f6e651001180122087765667420302e31"),
        (
            ClientWord::Subscribe(subscribe),
            concat!(
                "1240080112067374617469631a290a0565706f636812110a0673746174696312046561737418ac02",
                "19010000000000000022046c696665220473686f702a03612e62"
            ),
        ),
        (ClientWord::CertificateRequest(request), CERTIFICATE_REQUEST),
        (ClientWord::Acknowledge(Acknowledge { sequence: 300 }), "220308ac02"),
        (
            ClientWord::Announce(Announce { request: 7, event: Bytes::from_static(b"\x12\0") }),
            "3206080712021200",
        ),
        (ClientWord::Withdraw(Withdraw { request: 7, origin: "a".to_owned() }), "3a050807120161"),
    ]
}

#[test]
fn what_a_hub_says_is_these_bytes() {
    for (sequence, word, golden) in words_of_a_hub() {
        let message = ServerMessage { sequence, word: Some(word) };
        let bytes = message.encode_to_vec();
        assert_eq!(HEXLOWER.encode(&bytes), golden, "{message:?}");
        assert_eq!(ServerMessage::decode(&bytes[..]), Ok(message));
    }
}

#[test]
fn what_an_agent_says_is_these_bytes() {
    for (word, golden) in words_of_an_agent() {
        let message = ClientMessage { word: Some(word) };
        let bytes = message.encode_to_vec();
        assert_eq!(HEXLOWER.encode(&bytes), golden, "{message:?}");
        assert_eq!(ClientMessage::decode(&bytes[..]), Ok(message));
    }
}

#[test]
fn a_hub_and_an_agent_that_know_of_no_life_are_read() {
    let welcome = WELCOME.strip_suffix("2a046c696665").unwrap().replacen("47", "41", 1);
    let word = ServerMessage::decode(&HEXLOWER.decode(welcome.as_bytes()).unwrap()[..]).unwrap().word;
    let Some(ServerWord::Welcome(welcome)) = word else { panic!("{word:?}") };
    assert!(welcome.life.is_empty() && welcome.registries.len() == 2);
    let point = ResumePoint::decode(&b"\x0a\x05epoch"[..]).unwrap();
    assert!(point.life.is_empty() && point.epoch == EPOCH);
}

#[test]
fn what_a_later_hub_adds_to_its_welcome_is_skipped() {
    // Three bytes longer, with a field 15 behind all others.
    let longer = format!("0801124a{}7a0161", WELCOME.strip_prefix("08011247").unwrap());
    let bytes = HEXLOWER.decode(longer.as_bytes()).unwrap();
    let known = ServerMessage::decode(&HEXLOWER.decode(WELCOME.as_bytes()).unwrap()[..]).unwrap();
    assert_eq!(ServerMessage::decode(&bytes[..]), Ok(known));
}

const WELCOME: &str = concat!(
    "08011247",
    "0801120565706f6368",
    "1a247370696666653a2f2f64656d6f2e6d6573682f6e732f64656661756c742f73612f776562",
    "2208706c6174666f726d2206737461746963",
    "2a046c696665",
);
const CERTIFICATE_REQUEST: &str = concat!(
    "1a2c0807",
    "12247370696666653a2f2f64656d6f2e6d6573682f6e732f64656661756c742f73612f776562",
    "1a023000",
);
