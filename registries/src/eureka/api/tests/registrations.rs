//! Who may register, and for how long that is listed.

use super::*;

#[test]
fn who_registers_is_listed_while_it_renews() {
    let bench = bench();
    let path = "/eureka/apps/LEGACY/legacy%3A1";
    assert_eq!(bench.status(&Method::PUT, path, b"", NOW), 404, "nobody knows it");
    assert_eq!(
        bench.ask(&Method::PUT, path, None, b"", NOW).body,
        "",
        "a body would be taken for an instance"
    );
    assert_eq!(bench.status(&Method::POST, "/eureka/apps/legacy", &registration(5), NOW), 204);
    assert!(bench.ids(NOW).contains(&"legacy:1=UP".to_owned()));
    let one = &bench.get(path, NOW)["instance"];
    assert_eq!((&one["homePageUrl"], &one["sid"]), (&json!("http://h/"), &json!("na")));
    assert_eq!(
        bench.status(&Method::PUT, &format!("{path}?status=UP&lastDirtyTimestamp=5"), b"{}", NOW + 2_000),
        200
    );
    assert_eq!(
        bench.status(&Method::PUT, &format!("{path}?lastDirtyTimestamp=6"), b"", NOW),
        404,
        "it knows more"
    );
    assert_eq!(bench.status(&Method::PUT, &format!("{path}/status?value=OUT_OF_SERVICE"), b"", NOW), 200);
    assert_eq!(bench.status(&Method::POST, "/eureka/apps/legacy", &registration(7), NOW + 2_000), 204);
    assert!(bench.ids(NOW).contains(&"legacy:1=OUT_OF_SERVICE".to_owned()), "the operator's word stands");
    assert_eq!(bench.status(&Method::DELETE, &format!("{path}/status?value=UP"), b"", NOW), 200);
    assert_eq!(bench.status(&Method::PUT, &format!("{path}/metadata?k=v%20w"), b"", NOW), 200);
    assert_eq!(bench.get(path, NOW)["instance"]["metadata"]["k"], "v w");
    assert!(bench.ids(NOW + 5_000).contains(&"legacy:1=UP".to_owned()));
    assert!(!bench.ids(NOW + 5_001).contains(&"legacy:1=UP".to_owned()), "its lease ran out");
    assert_eq!(bench.status(&Method::PUT, path, b"", NOW + 5_001), 404);
    assert_eq!(bench.status(&Method::POST, "/eureka/apps/legacy", &registration(7), NOW), 204);
    assert_eq!(bench.status(&Method::DELETE, path, b"", NOW), 200);
    assert_eq!(bench.status(&Method::DELETE, path, b"", NOW), 404);
}

#[test]
fn who_does_not_say_when_it_changed_has_changed_when_it_registered() {
    let bench = bench();
    let path = "/eureka/apps/LEGACY/legacy%3A1";
    assert_eq!(bench.status(&Method::POST, "/eureka/apps/legacy", &registration(0), NOW), 204);
    assert_eq!(bench.get(path, NOW)["instance"]["lastDirtyTimestamp"], NOW.to_string());
    for (dirty, expected) in [(1, 200), (NOW, 200), (NOW + 1, 404)] {
        let heartbeat = format!("{path}?lastDirtyTimestamp={dirty}");
        assert_eq!(bench.status(&Method::PUT, &heartbeat, b"", NOW + 1_000), expected, "{dirty}");
    }
    // Once more, by a clock that was set back.
    let elsewhere = String::from_utf8(registration(0)).unwrap().replace("10.9.9.9", "10.9.9.8");
    assert_eq!(bench.status(&Method::POST, "/eureka/apps/legacy", elsewhere.as_bytes(), NOW - 5), 204);
    assert_eq!(bench.get(path, NOW)["instance"]["ipAddr"], "10.9.9.8", "the later word stands");
}

#[test]
fn xml_registers_too_and_what_is_wrong_is_refused() {
    let bench = bench();
    let recorded = include_bytes!("../../../../fuzz/corpus/eureka/apps-ORDERS-orders-1.xml");
    assert_eq!(bench.status(&Method::POST, "/eureka/apps/ORDERS", recorded, NOW), 204);
    let entities = b"<!DOCTYPE a [<!ENTITY b \"c\">]><instance><app>A</app></instance>";
    for (path, body) in [
        ("/eureka/apps/ORDERS", &entities[..]),
        ("/eureka/apps/ORDERS", b"{"),
        ("/eureka/apps/ORDERS", b"{}"),
        ("/eureka/apps/OTHER", recorded),
        ("/eureka/apps/A", br#"{"instance": {"app": "A", "instanceId": "a"}}"#),
        ("/eureka/apps/A", br#"{"instance": {"app": "A", "instanceId": "a", "hostName": "h"}}"#),
        (
            "/eureka/apps/A",
            br#"{"instance": {"app": "A", "instanceId": "a\n", "hostName": "h", "dataCenterInfo": {}}}"#,
        ),
    ] {
        assert_eq!(
            bench.status(&Method::POST, path, body, NOW),
            400,
            "{path} {:?}",
            String::from_utf8_lossy(body)
        );
    }
    let form = Question {
        method: &Method::POST,
        path: "/eureka/apps/A",
        query: "",
        accept: None,
        content_type: None,
        body: b"{}",
    };
    let status = |content_type| bench.api.answer(Question { content_type, ..form }, None, MOMENT).status;
    for form in
        [None, Some("text/plain"), Some("text/plain;json"), Some("multipart/form-data; boundary=json")]
    {
        assert_eq!(status(form), 415, "any page of the web could send {form:?}");
    }
    for form in
        ["application/json", "Application/JSON; charset=utf-8", "application/vnd.eureka+xml", "text/xml"]
    {
        assert_eq!(status(Some(form)), 400, "{form}");
    }
    assert_eq!(bench.status(&Method::PATCH, "/eureka/apps/A", b"", NOW), 405);
}

#[test]
fn nobody_registers_with_what_clients_cannot_read() {
    let bench = bench();
    let post = |field: &str, value: Value| {
        let mut object: Value = serde_json::from_slice(&registration(5)).unwrap();
        object["instance"][field] = value;
        bench.status(&Method::POST, "/eureka/apps/LEGACY", object.to_string().as_bytes(), NOW)
    };
    let amazon = |name: &str, metadata: Value| json!({ "@class": "com.netflix.appinfo.AmazonInfo", "name": name, "metadata": metadata });
    for place in [
        json!({ "name": "MyOwn" }),
        json!({ "@class": "my.Own", "name": "MyOwn" }),
        json!({ "@class": "java.lang.Object", "name": "MyOwn" }),
        json!({ "@class": "com.netflix.appinfo.MyDataCenterInfo", "name": "myown" }),
        json!({ "@class": "com.netflix.appinfo.MyDataCenterInfo" }),
        json!({ "@class": "com.netflix.appinfo.MyDataCenterInfo", "name": "Amazon" }),
        json!("MyOwn"),
        json!([]),
        json!({ "@class": "com.netflix.appinfo.AmazonInfo", "name": "Amazon" }),
        amazon("Amazon", json!("x")),
    ] {
        assert_eq!(post("dataCenterInfo", place.clone()), 400, "{place}");
    }
    assert_eq!(post("securePort", json!({ "$": 99_999_999_999_u64, "@enabled": "true" })), 400);
    assert_eq!(bench.ids(NOW).len(), 2, "nobody was taken in");

    let path = "/eureka/apps/LEGACY/legacy%3A1";
    let listed = || bench.get(path, NOW)["instance"].clone();
    assert_eq!(
        post("dataCenterInfo", amazon("Amazon", json!({ "ami-id": 7, "@class": "x", "more": [1] }))),
        204
    );
    assert_eq!(listed()["dataCenterInfo"], amazon("Amazon", json!({ "ami-id": "7", "more": "" })));
    for accept in [Some("application/json"), None] {
        let reply = bench.ask(&Method::GET, path, accept, b"", NOW);
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        let place = text.split_once("AmazonInfo").unwrap().1;
        assert!(
            place.find("name") < place.find("metadata"),
            "clients read nothing behind the metadata: {text}"
        );
    }
    let with_more = json!({ "@class": data_center()["@class"], "name": "MyOwn", "more": { "a": 1 } });
    assert_eq!(post("dataCenterInfo", with_more), 204);
    assert_eq!(listed()["dataCenterInfo"], data_center());
    for (field, value, written) in [
        ("countryId", json!({}), json!(1)),
        ("countryId", json!([2]), json!(1)),
        ("countryId", json!(10_000_000_000_u64), json!(1)),
        ("countryId", json!("49"), json!(49)),
        ("homePageUrl", json!({ "a": "b" }), Value::Null),
        ("homePageUrl", json!(["http://h/"]), Value::Null),
        ("sid", json!(5), json!("5")),
    ] {
        assert_eq!(post(field, value.clone()), 204);
        assert_eq!(listed()[field], written, "{field} {value}");
    }
    let lease = json!({ "renewalIntervalInSecs": 10_000_000_000_u64, "durationInSecs": 10_000_000_000_u64,
                        "serviceUpTimestamp": u64::MAX });
    assert_eq!(post("leaseInfo", lease), 204);
    let lease = listed()["leaseInfo"].clone();
    for (field, most) in [
        ("renewalIntervalInSecs", i64::from(i32::MAX)),
        ("durationInSecs", i64::from(i32::MAX)),
        ("serviceUpTimestamp", i64::MAX),
    ] {
        assert!(lease[field].as_i64().is_some_and(|number| number <= most), "{lease}");
    }
    assert_eq!(post("lastDirtyTimestamp", json!(u64::MAX.to_string())), 204);
    assert_eq!(listed()["lastDirtyTimestamp"], json!(i64::MAX.to_string()));
    assert_eq!(
        bench.status(&Method::PUT, &format!("{path}/metadata?@class=java.lang.Runtime&k=v"), b"", NOW),
        200
    );
    assert_eq!(bench.get(path, NOW)["instance"]["metadata"], json!({ "k": "v" }));
}

#[test]
fn nobody_registers_under_a_name_that_another_registry_has() {
    let mut bench = bench();
    let resources = vec![
        service("payments", &["payments.shop.svc"]),
        endpoint("payments", "pod-1", Health::Healthy),
        service("empty", &[]),
    ];
    bench.snapshot = mesh(&mut bench.merge, "kubernetes", resources);
    let mesh = bench.ids(NOW);
    for (app, id, vip) in [
        ("PAYMENTS", "pod-1", "payments"),
        ("payments", "mine", "mine"),
        ("OTHER", "mine", "other, Payments"),
        ("OTHER", "also-mine", "payments.shop.svc"),
        ("EMPTY", "mine", "empty"),
    ] {
        registered(&bench, app, id, vip);
        assert_eq!(bench.ids(NOW), mesh, "{app} {vip}");
    }
    let list: Applications = serde_json::from_value(bench.get("/eureka/vips/payments", NOW)).unwrap();
    assert_eq!(list.instances.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["pod-1"]);
    // It is Eureka where everybody may say so.
    registered(&bench, "ORDERS", "orders-1", "orders");
    assert_eq!(bench.get("/eureka/instances/orders-1", NOW)["instance"]["ipAddr"], "10.6.6.6");
    // And while the registry does not know the name, it is free.
    bench.snapshot = self::mesh(&mut bench.merge, "kubernetes", vec![]);
    assert_eq!(bench.get("/eureka/instances/pod-1", NOW)["instance"]["ipAddr"], "10.6.6.6");
}

#[test]
fn who_left_is_not_listed_again_before_eureka_says_so_anew() {
    let mut bench = bench();
    let path = "/eureka/apps/ORDERS/orders-1";
    registered(&bench, "ORDERS", "orders-1", "orders");
    assert_eq!(bench.status(&Method::DELETE, path, b"", NOW), 200);
    assert_eq!(bench.ids(NOW), ["orders-2=OUT_OF_SERVICE"], "what Eureka said before it went is no news");
    assert_eq!(
        bench.status(&Method::DELETE, "/eureka/apps/orders/orders-2", b"", NOW),
        404,
        "nobody knows it here"
    );
    assert_eq!(bench.ids(NOW), Vec::<String>::new(), "and it goes all the same");
    registered(&bench, "ORDERS", "orders-1", "orders");
    assert_eq!(bench.ids(NOW + 90_000), ["orders-1=UP"]);
    assert_eq!(bench.ids(NOW + 90_001), Vec::<String>::new(), "its lease ran out");

    // Eureka is there again, empty: it has not said that anybody is there.
    let at = |millis| SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(millis);
    let both = || {
        let endpoints = ["orders-1", "orders-2"].map(|id| endpoint("orders", id, Health::Healthy));
        [service("orders", &[])].into_iter().chain(endpoints).collect()
    };
    let (filtered, full) = (Completeness::Filtered, Completeness::Full);
    bench.snapshot = mesh_at(&mut bench.merge, "eureka", Vec::new(), filtered, at(NOW + 100_000));
    assert_eq!(bench.ids(NOW + 100_000), Vec::<String>::new());
    bench.snapshot = mesh_at(&mut bench.merge, "eureka", both(), full, at(NOW + 110_000));
    assert_eq!(bench.ids(NOW + 110_000), ["orders-1=UP", "orders-2=UP"], "its word counts");

    // Who goes over to Eureka is silent here, and there all the while.
    let register = |now| {
        let body = json!({ "instance": {
            "instanceId": "orders-1", "app": "ORDERS", "hostName": "h", "status": "UP", "dataCenterInfo": data_center(),
        }});
        bench.status(&Method::POST, "/eureka/apps/ORDERS", body.to_string().as_bytes(), now)
    };
    assert_eq!(register(NOW + 120_000), 204);
    bench.snapshot = mesh_at(&mut bench.merge, "eureka", both(), full, at(NOW + 130_000));
    assert_eq!(bench.ids(NOW + 220_000), ["orders-1=UP", "orders-2=UP"]);
    assert_eq!(bench.status(&Method::DELETE, path, b"", NOW + 220_000), 404, "it is Eureka's");
}

#[test]
fn a_cut_that_silences_most_takes_nobody_away() {
    let bench = bench();
    let ids: Vec<String> = (0..10).map(|number| format!("i-{number}")).collect();
    ids.iter().for_each(|id| registered(&bench, "MANY", id, "many"));
    let beat = |id: &str, now| bench.status(&Method::PUT, &format!("/eureka/apps/MANY/{id}"), b"", now);
    let count = |now| bench.ids(now).iter().filter(|id| id.starts_with("i-")).count();
    // Somebody on this side of the cut asks on all the while.
    for second in 0..300 {
        assert_eq!(count(NOW + second * 1000), 10, "after {second} s");
    }
    // They are heard again one by one, each at its own second of thirty; one does not come back.
    let back = NOW + 300_000;
    for (second, id) in (0_u64..).step_by(3).zip(&ids[1..]) {
        assert_eq!(beat(id, back + second * 1000), 200);
        assert_eq!(count(back + second * 1000), 10);
    }
    for (second, id) in (30_u64..).step_by(3).zip(&ids[1..]) {
        assert_eq!(beat(id, back + second * 1000), 200);
    }
    assert_eq!(count(back + 30_000), 10);
    for (second, left) in [(75, 10), (100, 10), (125, 9)] {
        for id in &ids[1..] {
            assert_eq!(beat(id, back + second * 1000), 200);
        }
        assert_eq!(count(back + second * 1000), left, "alone it has a whole lease");
    }
    // Nobody else is counted with a few.
    let few = super::bench();
    for id in &ids[..7] {
        registered(&few, "MANY", id, "many");
    }
    assert_eq!(few.ids(NOW + 90_001).len(), 2);
}

#[test]
fn what_registers_is_bounded_in_memory() {
    let bench = bench();
    let register = |number: usize, pairs: usize, length: usize| {
        let mut document: Value = serde_json::from_slice(&registration(5)).unwrap();
        let metadata: serde_json::Map<_, _> =
            (0..pairs).map(|n| (format!("k{n}"), "v".repeat(length).into())).collect();
        document["instance"]["instanceId"] = format!("i{number}").into();
        document["instance"]["metadata"] = metadata.into();
        let body = document.to_string().into_bytes();
        assert!(body.len() <= MAX_BODY);
        bench.status(&Method::POST, "/eureka/apps/legacy", &body, NOW)
    };
    assert_eq!(register(0, 150, 20), 204);
    assert_eq!(register(0, 1, 62_000), 413, "its text");
    assert_eq!(register(0, 3_000, 1), 413, "a thousand small things");
    let path = "/eureka/apps/LEGACY/i0";
    assert_eq!(bench.get(path, NOW)["instance"]["metadata"].as_object().unwrap().len(), 150, "as it was");
    let long = format!(
        "{path}/metadata?{}",
        (0..64).map(|n| format!("m{n}={}&", "v".repeat(900))).collect::<String>()
    );
    assert_eq!(bench.status(&Method::PUT, &long, b"", NOW), 413);
    assert_eq!(bench.status(&Method::PUT, &format!("{path}/metadata?a=b"), b"", NOW), 200);
    assert_eq!(bench.get(path, NOW)["instance"]["metadata"].as_object().unwrap().len(), 151);
    let refused = (1..3_000).find(|number| register(*number, 1, 30_000) != 204).unwrap();
    assert!((2_000..2_200).contains(&refused), "{refused}");
    assert_eq!(register(refused, 1, 30_000), 429);
    assert_eq!(register(1, 1, 30_000), 204, "who is there stays and renews");
    assert_eq!(bench.status(&Method::DELETE, "/eureka/apps/LEGACY/i1", b"", NOW), 200);
    assert_eq!(register(refused, 1, 30_000), 204, "there is room again");
}
