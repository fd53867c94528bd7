//! A thousand services of ten instances, within the connections that Consul gives one address.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::block_in_place;
use weft_testbed::{Consul, ConsulOptions, Gate};

use crate::{
    bed::{put, registry, start, write},
    follower::Follower,
};

const SERVICES: usize = 1000;

/// Writes the services on a hundred nodes, thirty-two instances with their checks at a time.
fn fill(consul: &Consul) {
    let mut operations: Vec<Value> = Vec::new();
    for node in 0..100 {
        put(
            consul,
            "/v1/catalog/register",
            &json!({ "Node": format!("ext-{node}"), "Address": format!("10.1.0.{node}") }),
        );
    }
    for (service, instance) in
        (0..SERVICES).flat_map(|service| (0..10).map(move |instance| (service, instance)))
    {
        let (node, id) =
            (format!("ext-{}", (service * 7 + instance) % 100), format!("s{service}-{instance}"));
        let fields = json!({ "ID": id, "Service": format!("s{service}"), "Port": 8000, "Address": format!("10.2.{}.{instance}", service % 250) });
        let check =
            json!({ "Node": node, "CheckID": id, "Name": "up", "Status": "passing", "ServiceID": id });
        operations.push(json!({ "Service": { "Verb": "set", "Node": node, "Service": fields } }));
        operations.push(json!({ "Check": { "Verb": "set", "Check": check } }));
    }
    let (next, operations) = (AtomicUsize::new(0), &operations);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(some) = operations.chunks(64).nth(next.fetch_add(1, Ordering::Relaxed)) {
                    let body = Value::from(some).to_string();
                    consul.call("PUT", "/v1/txn", body).unwrap().success("write").unwrap();
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_services_fit_the_connections_of_one_client() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    block_in_place(|| fill(&consul));
    let gate = Gate::before(&consul.url()).unwrap();
    let began = Instant::now();
    let mut follower = Follower::new(registry(&gate.url(), ""), None);
    let whole = |view: &crate::follower::View<'_>| {
        view.count(&format!("s{}", SERVICES - 1)) == 10 && view.count("s0") == 10
    };
    follower.until("everything", Duration::from_secs(60), whole).await.unwrap();
    eprintln!("{SERVICES} services were listed after {} ms", began.elapsed().as_millis());
    let mut took = Vec::new();
    for number in 0..20_u8 {
        let (service, address) = (format!("s{}", number * 3), format!("10.9.9.{number}"));
        write(&consul, "ext-5", 200, &service, json!({ "Address": "10.9.8.7" }));
        let began = Instant::now();
        follower
            .until("an instance more", Duration::from_secs(20), |view| view.count(&service) == 11)
            .await
            .unwrap();
        took.push(began.elapsed());
        write(&consul, "ext-5", 200, &service, json!({ "Address": address }));
        let began = Instant::now();
        let moved = |view: &crate::follower::View<'_>| {
            view.endpoints(&service)
                .unwrap_or_default()
                .iter()
                .any(|it| it.address.to_string() == format!("{address}:8080"))
        };
        follower.until("another address", Duration::from_secs(20), moved).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort();
    eprintln!(
        "a change was told after {:?}, the slowest of {} after {:?}",
        took[took.len() / 2],
        took.len(),
        took[took.len() - 1]
    );
    let counts = gate.counts();
    eprintln!("{counts:?}");
    assert!(counts.most_open <= 24, "{counts:?}");
    assert!(follower.view(|view| view.seen.errors.is_empty()));
}
