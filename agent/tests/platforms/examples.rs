//! The examples, as a reader of their page follows them, against the real servers: from copying the files to a call that is
//! answered, by mutual TLS.

use serde_json::{Value, json};
use weft_testbed::{
    Consul, ConsulOptions, Eureka, EurekaOptions, Kind, Nomad, NomadOptions, installed, required,
};

use crate::reader::{Reader, was_answered};

/// The registry could be read, with every right given, and `web` could be called.
fn is_well(looked: &Value) {
    assert_eq!((&looked["error"], &looked["complete"]), (&Value::Null, &json!(true)), "{looked}");
    let rights = looked["rights"].as_array().unwrap();
    assert!(!rights.is_empty() && rights.iter().all(|right| right["given"] == true), "{looked}");
    assert_eq!(looked["usable"], 1, "{looked}");
}

#[test]
fn the_example_of_consul_works() {
    let Some(home) = required(installed(Kind::Consul)) else { return };
    let consul = Consul::start(&home, ConsulOptions { acl: true, ..ConsulOptions::default() }).unwrap();
    let mut reader = Reader::of("consul")
        .program(&home.program("consul"))
        .variable("CONSUL_HTTP_ADDR", &consul.url())
        .variable("CONSUL_HTTP_TOKEN", consul.token().unwrap())
        .replace("http://127.0.0.1:8500", consul.url())
        .ports(&["8080", "15001", "15008", "15020", "15021"]);
    was_answered(&reader.follows());
    is_well(&reader.looks("weft.toml"));
}

#[test]
fn the_example_of_nomad_works() {
    let Some(home) = required(installed(Kind::Nomad)) else { return };
    let nomad = Nomad::start(&home, NomadOptions { acl: true, ..NomadOptions::default() }).unwrap();
    let mut reader = Reader::of("nomad")
        .program(&home.program("nomad"))
        .variable("NOMAD_ADDR", &nomad.url())
        .variable("NOMAD_TOKEN", nomad.token().unwrap())
        .replace("http://127.0.0.1:4646", nomad.url())
        .ports(&["15001", "15020"]);
    was_answered(&reader.follows());
    is_well(&reader.looks("weft.toml"));
}

#[test]
fn the_example_of_eureka_works() {
    let Some(home) = required(installed(Kind::Eureka)) else { return };
    let eureka = Eureka::start(&home, EurekaOptions::default()).unwrap();
    let mut reader = Reader::of("eureka")
        .replace("http://127.0.0.1:8761/eureka", eureka.url().trim_end_matches('/'))
        .ports(&["8080", "8762", "15001", "15008", "15020", "15021"]);
    let printed = reader.follows();
    was_answered(&printed);
    assert!(printed.contains("<name>WEB</name>"), "Eureka's own API answers too\n{printed}");
    let looked = reader.looks("weft.toml");
    assert_eq!((&looked["error"], &looked["complete"]), (&Value::Null, &json!(true)), "{looked}");
}

#[test]
fn the_example_of_dns_works() {
    let Some(home) = required(installed(Kind::Knot)) else { return };
    let mut reader = Reader::of("dns")
        .program(&home.program("knotd"))
        .ports(&["5300", "8080", "15001", "15008", "15020", "15021"]);
    was_answered(&reader.follows());
    let looked = reader.looks("weft.toml");
    assert_eq!((&looked["error"], &looked["complete"]), (&Value::Null, &json!(true)), "{looked}");
    assert_eq!((&looked["services"], &looked["usable"]), (&json!(2), &json!(2)), "{looked}");
}
