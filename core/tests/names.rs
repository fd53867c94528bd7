//! Names: what is accepted, what is refused and with which words.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use weft_core::name::{HostName, InstanceName, NameError, PortName, ServiceName, WorkloadName};

/// One function for all name types, so that a table can hold them.
type Parse = fn(&str) -> Result<String, NameError>;

const LABEL: Parse = |text| PortName::new(text).map(|name| name.to_string());
const WORKLOAD: Parse = |text| WorkloadName::new(text).map(|name| name.to_string());
const SERVICE: Parse = |text| ServiceName::new(text).map(|name| name.to_string());
const HOST: Parse = |text| HostName::new(text).map(|name| name.to_string());
const INSTANCE: Parse = |text| InstanceName::new(text).map(|name| name.to_string());

#[test]
fn good_names_are_taken_as_they_are() {
    let longest = "a".repeat(63);
    for (parse, text) in [
        (LABEL, "http"),
        (LABEL, "9"),
        (LABEL, "a_b-c"),
        (LABEL, &longest),
        (WORKLOAD, "web"),
        (SERVICE, "reviews.default"),
        (SERVICE, "reviews_v2.team-a"),
        (HOST, "reviews.default.svc.cluster.local"),
        (HOST, "localhost"),
        (INSTANCE, "reviews-7d9f/10.0.0.1:8080"),
        (INSTANCE, "[::1]:80"),
    ] {
        assert_eq!(parse(text).as_deref(), Ok(text));
    }
    assert_eq!(SERVICE("reviews").as_deref(), Ok("reviews.default"));
    assert_eq!(ServiceName::new("reviews.shop").unwrap().mesh_host(), "reviews.shop.mesh");
}

#[test]
fn wrong_names_are_refused_with_the_rule_that_they_break() {
    let (long_label, long_host) = ("a".repeat(64), ["abcdefghi"; 26].join("."));
    for (parse, text, rule) in [
        (LABEL, "", "it is empty"),
        (LABEL, "-a", "begin and end"),
        (LABEL, "a-", "begin and end"),
        (LABEL, "a b", "only lower-case"),
        (LABEL, "aBc", "only lower-case"),
        (LABEL, "aéa", "only lower-case"),
        (LABEL, &long_label, "longer than 63"),
        (SERVICE, "a.b.c", "only lower-case"),
        (SERVICE, ".default", "it is empty"),
        (SERVICE, "reviews.", "it is empty"),
        (HOST, "a..b", "it is empty"),
        (HOST, "a.b.", "it is empty"),
        (HOST, "a:80", "only lower-case"),
        (HOST, &long_host, "longer than 253"),
        (INSTANCE, "", "it is empty"),
        (INSTANCE, "a b", "only visible"),
        (INSTANCE, "a\n", "only visible"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(rule), "{text:?}: {error:?} does not say {rule:?}");
    }
}

#[test]
fn an_error_repeats_no_more_than_the_beginning_of_what_was_given() {
    assert!(LABEL(&"é".repeat(10_000)).unwrap_err().to_string().len() < 300);
}

proptest! {
    #[test]
    fn what_is_taken_comes_back_unchanged_and_nothing_panics(text in "\\PC{0,40}") {
        for parse in [LABEL, WORKLOAD, HOST, INSTANCE] {
            if let Ok(name) = parse(&text) {
                prop_assert_eq!(&name, &text);
            }
        }
        if let Ok(name) = SERVICE(&text) {
            prop_assert_eq!(SERVICE(&name), Ok(name.clone()));
        }
    }

    #[test]
    fn names_survive_serialization(label in "[a-z0-9]{1,10}", namespace in "[a-z0-9]{1,10}") {
        let name = ServiceName::new(&format!("{label}.{namespace}")).unwrap();
        let text = serde_json::to_string(&name).unwrap();
        prop_assert_eq!(serde_json::from_str::<ServiceName>(&text).unwrap(), name);
    }
}
