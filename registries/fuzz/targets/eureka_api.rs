//! Any request to Eureka's API, its first line being method, path and form: no panic, and what it lists afterwards can be
//! read, in both forms.
#![no_main]

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use weft_core::merge::Snapshot;
use weft_registries::eureka::{
    api::{Api, Leads, Listeners, Moment, Question, Source},
    listing,
};

fuzz_target!(|bytes: &[u8]| {
    let (head, body) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()));
    let head = String::from_utf8_lossy(head);
    let mut words = head.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (Ok(method), target, form) = (word().parse::<Method>(), word(), word()) else { return };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (api, snapshot, listeners) = (Api::default(), Snapshot::default(), Listeners::new());
    let eureka = BTreeSet::new();
    let source = Source {
        snapshot: &snapshot,
        order: &[],
        joins: &[],
        leads: Leads(&|_| None),
        eureka: &eureka,
        listeners: &listeners,
        lacks: false,
    };
    let at = |milliseconds| Moment { wall: milliseconds, steady: milliseconds };
    let question = Question {
        method: &method,
        path,
        query,
        accept: Some("application/json"),
        content_type: Some(form),
        body: body.get(1..).unwrap_or_default(),
    };
    api.answer(question, Some(&source), at(1));
    let get = Question { method: &Method::GET, path: "/eureka/apps", query: "", body: b"", ..question };
    let json = api.answer(get, Some(&source), at(2));
    assert_eq!(json.status, StatusCode::OK);
    listing(&json.body).expect("what we write can be read");
    let xml = api.answer(Question { accept: None, ..get }, Some(&source), at(2));
    assert!(xml.body.starts_with(b"<applications>") && xml.body.ends_with(b"</applications>"));
});
