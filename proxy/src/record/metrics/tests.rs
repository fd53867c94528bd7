use std::time::Duration;

use weft_core::{context::Reached, name::InstanceName};

use super::{super::tests::Held, instances::MAX_INSTANCES, *};

fn render(metrics: &Metrics, now: Instant) -> Vec<String> {
    let text = metrics.render("weft", now);
    text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect()
}

fn value(lines: &[String], name: &str, label: &str) -> Option<u64> {
    let fits = |line: &&String| line.starts_with(name) && line.contains(label);
    let line = lines.iter().find(fits)?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn workers_are_summed() {
    let metrics = Metrics::default();
    let workers = [metrics.worker(), metrics.worker()];
    let held = Held::new("reviews.default");
    for worker in &workers {
        for _ in 0..5 {
            worker.record(&held.outcome(), Instant::now(), |_| {});
        }
    }
    let text = metrics.render("istio", Instant::now());
    let labels = "reporter=\"source\",source_workload=\"web\",source_workload_namespace=\"default\",\
        source_principal=\"spiffe://demo.mesh/ns/default/sa/web\",destination_service=\"reviews.default\",\
        destination_service_name=\"reviews\",destination_service_namespace=\"default\",\
        destination_workload=\"unknown\",destination_workload_namespace=\"unknown\",\
        destination_principal=\"unknown\",request_protocol=\"http\",response_code=\"200\",response_flags=\"-\",\
        grpc_response_status=\"\",connection_security_policy=\"mutual_tls\"";
    for wanted in [
        "# TYPE istio_requests_total counter".to_owned(),
        format!("istio_requests_total{{{labels}}} 10"),
        "# TYPE istio_request_duration_milliseconds histogram".to_owned(),
        format!("istio_request_duration_milliseconds_bucket{{{labels},le=\"1\"}} 0"),
        format!("istio_request_duration_milliseconds_bucket{{{labels},le=\"5\"}} 10"),
        format!("istio_request_duration_milliseconds_bucket{{{labels},le=\"+Inf\"}} 10"),
        format!("istio_request_duration_milliseconds_sum{{{labels}}} 12"),
        format!("istio_response_bytes_sum{{{labels}}} 3000"),
        format!("istio_request_bytes_count{{{labels}}} 10"),
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted}\n{text}");
    }
}

#[test]
fn what_differs_is_counted_apart() {
    let metrics = Metrics::default();
    let worker = metrics.worker();
    let mut held = Held::new("reviews.default");
    worker.record(&held.outcome(), Instant::now(), |_| {});
    held.verdict.status = 503;
    held.verdict.flags = "UF";
    worker.record(&held.outcome(), Instant::now(), |_| {});
    worker.record(&held.outcome(), Instant::now(), |_| {});
    let lines = render(&metrics, Instant::now());
    assert_eq!(value(&lines, "weft_requests_total", "response_code=\"200\""), Some(1));
    assert_eq!(value(&lines, "weft_requests_total", "response_flags=\"UF\""), Some(2));
}

#[test]
fn opaque_connections_count_their_bytes_as_they_go() {
    let metrics = Metrics::default();
    let worker = metrics.worker();
    let held = Held::new("database.default");
    let mut outcome = held.outcome();
    outcome.request = None;
    let series = worker.open_connection(&outcome, Instant::now());
    series.add(10, 20);
    series.add(1, 2);
    let lines = render(&metrics, Instant::now());
    assert_eq!(value(&lines, "weft_tcp_connections_opened_total", "database"), Some(1));
    assert_eq!(value(&lines, "weft_tcp_connections_closed_total", "database"), None);
    assert_eq!(value(&lines, "weft_tcp_received_bytes_total", "database"), Some(11));
    assert_eq!(value(&lines, "weft_tcp_sent_bytes_total", "database"), Some(22));
    worker.close_connection(&series, Instant::now());
    let lines = render(&metrics, Instant::now());
    assert_eq!(value(&lines, "weft_tcp_connections_closed_total", "database"), Some(1));
}

#[test]
fn what_opened_less_what_closed_is_what_is_open() {
    let metrics = Metrics::default();
    let worker = metrics.worker();
    let mut held = Held::new("database.default");
    let open = |held: &Held| {
        let outcome = Outcome { request: None, ..held.outcome() };
        worker.open_connection(&outcome, Instant::now())
    };
    let (first, _second) = (open(&held), open(&held));
    held.verdict.flags = "UF";
    worker.record(&Outcome { request: None, ..held.outcome() }, Instant::now(), |_| {});
    worker.close_connection(&first, Instant::now());
    let lines = render(&metrics, Instant::now());
    for (flags, opened, closed) in [("-", 2, 1), ("UF", 1, 1)] {
        let flags = format!("response_flags=\"{flags}\"");
        assert_eq!(value(&lines, "weft_tcp_connections_opened_total", &flags), Some(opened));
        assert_eq!(value(&lines, "weft_tcp_connections_closed_total", &flags), Some(closed));
    }
}

#[test]
fn the_number_of_series_is_bounded() {
    let metrics = Metrics::default();
    let worker = metrics.worker();
    for number in 0..MAX_SERIES + 7 {
        worker.record(&Held::new(&format!("s{number}.default")).outcome(), Instant::now(), |_| {});
    }
    let lines = render(&metrics, Instant::now());
    let totals = lines.iter().filter(|line| line.starts_with("weft_requests_total"));
    assert_eq!(totals.count(), MAX_SERIES + 1);
    assert_eq!(value(&lines, "weft_requests_total", "destination_service=\"other\""), Some(7));
}

#[test]
fn a_caller_names_the_instances_it_called_but_not_too_many_of_a_service() {
    let metrics = Metrics::default();
    let worker = metrics.worker();
    let call = |service: &str, instance: &str, now| {
        let held = Held::new(service);
        let instance = InstanceName::new(instance).unwrap();
        let mut outcome = held.outcome();
        outcome.destination = outcome.destination.map(|it| Reached { instance: Some(&instance), ..it });
        worker.record(&outcome, now, |_| {});
    };
    let total = |lines: &[String], workload: &str| {
        value(lines, "weft_requests_total", &format!("destination_workload=\"{workload}\""))
    };
    let now = Instant::now();
    for number in 0..MAX_INSTANCES + 9 {
        call("reviews.default", &format!("10.0.0.{number}:80"), now);
    }
    call("ratings.default", "ratings-1", now);
    call("reviews.default", "10.0.0.1:80", now);
    let lines = render(&metrics, now);
    assert_eq!(total(&lines, "10.0.0.1:80"), Some(2));
    assert_eq!(total(&lines, "other"), Some(9));
    assert_eq!(total(&lines, "ratings-1"), Some(1), "another service's instances have their own places");

    let later = now + Duration::from_secs(60 * (IDLE + 2));
    call("reviews.default", "10.0.1.1:80", later);
    assert_eq!(total(&render(&metrics, later), "10.0.1.1:80"), Some(1), "those that nobody calls made room");
}

#[test]
fn idle_series_go_but_not_those_of_open_connections() {
    let metrics = Metrics::default();
    let worker = metrics.worker();
    let (idle, open) = (Held::new("idle.default"), Held::new("open.default"));
    let now = Instant::now();
    worker.record(&idle.outcome(), now, |_| {});
    let mut connection = open.outcome();
    connection.request = None;
    let series = worker.open_connection(&connection, now);
    let later = now + Duration::from_secs(60 * (IDLE + 2));
    worker.record(&Held::new("other.default").outcome(), later, |_| {});
    assert_eq!(worker.requests.borrow().len(), 1);
    let lines = render(&metrics, later);
    assert_eq!(value(&lines, "weft_requests_total", "idle"), None);
    assert_eq!(value(&lines, "weft_tcp_connections_opened_total", "open"), Some(1));
    drop(series);
    let lines = render(&metrics, later);
    assert_eq!(value(&lines, "weft_tcp_connections_opened_total", "open"), None);
}

#[test]
fn labels_are_escaped() {
    let metrics = Metrics::default();
    let worker = metrics.worker();
    let held = Held::new("reviews.default");
    let mut outcome = held.outcome();
    outcome.destination = None;
    worker.record(&outcome, Instant::now(), |_| {});
    assert_eq!(
        value(&render(&metrics, Instant::now()), "weft_requests_total", "destination_service=\"unknown\""),
        Some(1)
    );
    let mut out = String::new();
    series::escape(&mut out, "a\"b\\c\nd");
    assert_eq!(out, "a\\\"b\\\\c\\nd");
}
