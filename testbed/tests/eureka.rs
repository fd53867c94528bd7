//! Eureka: instances that are registered by hand and by the two real clients, through a kill of the server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use weft_testbed::{Eureka, EurekaClient, EurekaOptions, Kind, installed, required, until};

const SOON: Duration = Duration::from_secs(60);
const ORDERS: &str = include_str!("../eureka/orders.json");

#[test]
fn real_clients_see_each_other_also_through_a_server_that_comes_back_empty() {
    let Some(home) = required(installed(Kind::Eureka)) else { return };
    let begin = Instant::now();
    let eureka = Eureka::start(&home, EurekaOptions::default()).unwrap();
    eprintln!("Eureka is ready after {} ms", begin.elapsed().as_millis());
    eureka.register(&serde_json::from_str(ORDERS).unwrap()).unwrap();
    let begin = Instant::now();
    let netflix = EurekaClient::netflix(&home, &eureka.url(), "payments").unwrap();
    let spring = EurekaClient::spring(&home, &eureka.url(), "shop").unwrap();
    eprintln!("both clients run after {} ms", begin.elapsed().as_millis());
    let second = EurekaClient::netflix(&home, &eureka.url(), "payments").unwrap();
    until("there are two", SOON, || netflix.sees().contains(&second.id())).unwrap();
    second.kill();
    let begin = Instant::now();
    until("its lease has run out", SOON, || !netflix.sees().contains(&second.id())).unwrap();
    eprintln!("a killed client is gone after {} ms", begin.elapsed().as_millis());
    let all = ["orders-1".to_owned(), netflix.id(), spring.id()];
    for client in [&netflix, &spring] {
        until("a client sees all three", SOON, || client.sees() == all).unwrap();
    }
    assert!(spring.services().unwrap()["shop"][0]["metadata"]["version"] == "v1");
    eureka.kill();
    assert!(eureka.call("GET", "apps", "").is_err());
    let begin = Instant::now();
    eureka.restart().unwrap();
    eprintln!("it is ready again after {} ms", begin.elapsed().as_millis());
    // What was written by hand has nobody to write it again. Nor does the Netflix client come back to this server: it takes
    // the body of the server's 404, an error of Spring's, for an instance, and gives up before it looks at the status.
    for client in [&netflix, &spring] {
        until("the Spring client is back", SOON, || client.sees() == [spring.id()]).unwrap();
    }
    spring.stop().unwrap();
    until("the Spring client has left", SOON, || netflix.sees().is_empty()).unwrap();
    let folder = eureka.scratch().path().to_owned();
    drop(eureka);
    assert!(!folder.exists());
}
