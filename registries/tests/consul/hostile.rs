//! Whoever may write to the catalog may write anything: others are left alone, and a person is told.

use serde_json::json;
use weft_testbed::ConsulOptions;

use crate::{
    bed::{SOON, put, registry, start, write},
    follower::{Follower, View},
};

fn faults(view: &View<'_>) -> Vec<String> {
    let origins = view
        .seen
        .snapshot
        .scopes
        .iter()
        .flat_map(|(_, state)| state.origins.values().cloned().collect::<Vec<_>>());
    origins
        .flat_map(|origin| {
            origin.faults.iter().map(|it| format!("{}: {}", it.place, it.message)).collect::<Vec<_>>()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_records_leave_out_only_themselves() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    write(&consul, "n1", 1, "api", json!({}));
    let mut follower = Follower::new(registry(&consul.url(), ""), None);
    follower
        .until("the good ones", SOON, |view| view.count("web") == 1 && view.count("api") == 1)
        .await
        .unwrap();
    let labels: serde_json::Map<_, _> = (0..60).map(|number| (format!("k{number}"), json!("v"))).collect();
    let tags: Vec<String> = (0..300).map(|number| format!("t{number}")).collect();
    for (id, fields) in [
        ("no-port", json!({ "Port": 0 })),
        ("large-port", json!({ "Port": 70000 })),
        ("negative-port", json!({ "Port": -1 })),
        ("credentials", json!({ "Address": "169.254.169.254" })),
        ("loopback", json!({ "Address": "127.0.0.1" })),
        ("group", json!({ "Address": "224.0.0.1" })),
        ("name", json!({ "Address": "web.example" })),
        ("line\nbreak", json!({})),
        ("half", json!({ "Meta": { "weft-mesh-port": "15008" } })),
        ("labels", json!({ "Meta": labels, "Tags": tags })),
        ("proxy", json!({ "Kind": "mesh-gateway" })),
        ("slash/slash", json!({ "Meta": { "x": "y".repeat(500) } })),
    ] {
        let mut fields = fields;
        fields["ID"] = json!(id);
        write(&consul, "n1", 1, "web", fields);
    }
    for (number, service) in
        ["a/b", "a\nb", "..", "a.b", "", &"x".repeat(200), "\u{1f600}"].into_iter().enumerate()
    {
        let body = json!({ "ID": format!("x{number}"), "Service": service, "Port": 80 });
        let body = json!({ "Node": "n1", "Address": "10.0.0.1", "Service": body });
        // Consul refuses some of them.
        let _answer =
            tokio::task::block_in_place(|| consul.call("PUT", "/v1/catalog/register", body.to_string()));
    }
    // The good one, and those that are usable but for a part that was left out.
    let expected = ["n1/half", "n1/labels", "n1/slash/slash", "n1/web-1"];
    let names = |view: &View<'_>| {
        let endpoints = view.endpoints("web").unwrap_or_default();
        endpoints.iter().map(|it| it.instance.to_string()).collect::<Vec<_>>()
    };
    write(&consul, "n1", 1, "last", json!({}));
    follower
        .until("the last write", SOON, |view| view.count("last") == 1 && names(view) == expected)
        .await
        .unwrap();
    let told = follower.view(faults);
    for word in [
        "not between 1 and 65535",
        "169.254.169.254",
        "127.0.0.1",
        "group",
        "no IP address, and names are not looked up here",
        "visible ASCII",
        "nobody who must answer",
        "64 labels",
        "1 proxies",
        "dot",
        "a\\nb",
    ] {
        assert!(told.iter().any(|fault| fault.contains(word)), "{word}: {told:#?}");
    }
    assert!(told.iter().all(|fault| !fault.contains('\n')), "{told:#?}");
    assert_eq!(follower.view(|view| view.count("api")), 1);
    assert!(follower.view(|view| view.seen.errors.is_empty()));

    // A node that cannot be asked for by name has its changes told nevertheless.
    put(
        &consul,
        "/v1/catalog/register",
        &json!({ "Node": "n\n2", "Address": "10.0.0.7", "Service": { "ID": "o", "Service": "odd", "Port": 80 } }),
    );
    write(&consul, "n3", 3, "odd", json!({}));
    follower
        .until("an instance on a node of a good name", SOON, |view| view.count("odd") == 1)
        .await
        .unwrap();
    write(&consul, "n3", 3, "odd", json!({ "Address": "10.0.3.3" }));
    let moved = |view: &View<'_>| view.endpoints("odd").unwrap()[0].address.to_string() == "10.0.3.3:8080";
    follower.until("its address", SOON, moved).await.unwrap();
}
