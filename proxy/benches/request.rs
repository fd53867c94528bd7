//! What the parts of a request cost, in nanoseconds: `cargo bench -p weft-proxy --bench request`.
//!
//! Each figure is the best of many short rounds on one thread, so it leaves out what a busy worker's cache misses cost.

#![expect(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use std::{
    hint::black_box,
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use weft_core::{
    context::{Asked, Outcome, Protocol, Reached, Reporter, Verdict},
    identity::SpiffeId,
    name::{InstanceName, PortName, RegistryName, ServiceKey, ServiceName, WorkloadName},
    resource::Endpoint,
    table::{EndpointSet, Upstream},
    workload::Source,
};
use weft_proxy::{
    balance::{Failures, pick},
    headers::{Forwarded, RequestId, Survey, TraceContext, admit, clean_request},
    normalise::{EncodedSlash, normalise},
    record::{AccessLogTarget, Records},
    resilience::{HealthSettings, Observation, RetryBudgets, observe},
    source::SocketTable,
};

const ROUNDS: usize = 500;
/// Few, so that some rounds are over before anybody else gets the processor.
const TURNS: u32 = 1_000;

fn measure(name: &str, mut turn: impl FnMut()) {
    let best = (0..ROUNDS).map(|_| {
        let started = Instant::now();
        for _ in 0..TURNS {
            turn();
        }
        started.elapsed()
    });
    let nanoseconds = best.min().unwrap_or_default().as_nanos() as f64 / f64::from(TURNS);
    println!("{name:<58} {nanoseconds:>8.1} ns");
}

fn typical_headers() -> HeaderMap {
    let fields = [
        ("host", "reviews.default.mesh"),
        ("user-agent", "curl/8.5.0"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, br"),
        ("content-type", "application/json"),
        ("authorization", "Bearer abcdefgh"),
        ("cookie", "session=1234567890"),
        ("x-custom", "1"),
    ];
    fields
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

/// A map as hyper makes it, with the room that it leaves.
fn like_hyper(fields: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.reserve(fields.len());
    for (name, value) in fields {
        headers.append(name.clone(), value.clone());
    }
    headers
}

fn headers() {
    let headers = typical_headers();
    let survey = Survey::of(&headers);
    measure("headers: survey of 8 fields", || {
        black_box(Survey::of(black_box(&headers)));
    });
    let (mut parts, ()) = Request::builder().uri("/api/v1/items").body(()).unwrap().into_parts();
    parts.headers = typical_headers();
    measure("headers: admit (host and length)", || {
        let _ = black_box(admit(black_box(&parts), survey));
    });
    measure("headers: a copy of the map, to subtract below", || {
        black_box(like_hyper(&headers));
    });
    measure("headers: copy, clean, new request ID and trace", || {
        let mut copy = like_hyper(&headers);
        clean_request(&mut copy, survey);
        black_box(RequestId::ensure(&mut copy, survey));
        black_box(TraceContext::advance(&mut copy, survey));
        black_box(copy);
    });
    let mut traced = headers.clone();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    traced.insert("traceparent", HeaderValue::from_static(parent));
    traced.insert("x-request-id", HeaderValue::from_static("6a0c7bb2-4f2e-4be6-a7d5-0d1e9cf7a3b1"));
    let survey = Survey::of(&traced);
    let forwarded = Forwarded::new([10, 0, 0, 1].into());
    measure("headers: copy, clean, kept ID, trace, x-forwarded-*", || {
        let mut copy = like_hyper(&traced);
        clean_request(&mut copy, survey);
        black_box(RequestId::ensure(&mut copy, survey));
        black_box(TraceContext::advance(&mut copy, survey));
        forwarded.apply(&mut copy, survey, traced.get("host").cloned());
        black_box(copy);
    });
}

fn paths() {
    for (name, path) in [
        ("normalise: a normal path of 27 bytes", "/api/v1/projects/42/items/7"),
        ("normalise: a path to rewrite", "/api/%761//projects/../x"),
    ] {
        measure(name, || {
            let _ = black_box(normalise(black_box(path), EncodedSlash::Refuse));
        });
    }
}

fn endpoints(count: usize) -> EndpointSet {
    let upstream = |index: usize| {
        let endpoint = Endpoint {
            service: ServiceName::new("reviews").unwrap(),
            port_name: PortName::new("http").unwrap(),
            instance: InstanceName::new(&format!("i{index}")).unwrap(),
            address: ([127, 0, 0, 1], 80).into(),
            mesh_address: None,
            identity: None,
            said_by: Default::default(),
            tls: Default::default(),
            labels: Default::default(),
            weight: 1,
            locality: Default::default(),
            health: Default::default(),
        };
        let registry = RegistryName::new("static").unwrap();
        Arc::new(Upstream { registry, endpoint: Arc::new(endpoint), tier: 0, state: Default::default() })
    };
    EndpointSet {
        all: (0..count).map(upstream).collect(),
        first_choice: count,
        cumulative_weights: Vec::new(),
    }
}

fn balance() {
    let (set, untried) = (endpoints(10), Failures::default());
    let settings = HealthSettings::default();
    measure("balance: pick one of 10, and drop", || {
        black_box(pick(&set, &untried, 1_000));
    });
    measure("balance: pick, observe a success, and drop", || {
        if let Some(picked) = pick(&set, &untried, 1_000) {
            black_box(observe(&settings, &set, &picked, Observation::Success, 1_000));
        }
    });
    let budgets = RetryBudgets::default();
    let registry = RegistryName::new("static").unwrap();
    let service = ServiceKey { registry, service: ServiceName::new("reviews").unwrap() };
    measure("resilience: budget of a service, deposit", || budgets.of(black_box(&service)).deposit(1_000));
}

fn record() {
    let source = Source {
        workload: Some(WorkloadName::new("web").unwrap()),
        identity: SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/web").unwrap(),
        labels: Default::default(),
    };
    let registry = RegistryName::new("static").unwrap();
    let service = ServiceKey { registry, service: ServiceName::new("reviews.default").unwrap() };
    let identity = SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/reviews").unwrap();
    let instance = InstanceName::new("reviews-1").unwrap();
    let verdict = Verdict { status: 200, ..Verdict::default() };
    let outcome = Outcome {
        reporter: Reporter::Source,
        source: &source,
        destination: Some(Reached {
            service: &service,
            port: 80,
            workload: None,
            instance: Some(&instance),
            identity: Some(&identity),
            address: Some(([10, 0, 0, 1], 15008).into()),
        }),
        local_address: Some(([127, 0, 0, 1], 15001).into()),
        peer_address: Some(([127, 0, 0, 1], 40000).into()),
        protocol: Protocol::Http1,
        mutual_tls: true,
        request: Some(Asked {
            method: "GET",
            path: "/api/v1/projects/42/items/7",
            authority: "reviews.default.mesh",
            id: "6a0c7bb2-4f2e-4be6-a7d5-0d1e9cf7a3b1",
            trace: "0af7651916cd43dd8448eb211c80319c",
            grpc: false,
        }),
        route: None,
        attempts: 1,
        verdict: &verdict,
        duration: Duration::from_micros(1_200),
        received_bytes: 0,
        sent_bytes: 300,
    };
    let ended = Instant::now();
    let silent = Records::new(&AccessLogTarget::Off).unwrap();
    let recorder = silent.recorder();
    measure("record: metrics", || recorder.record(black_box(&outcome), ended));
    let logged = Records::new(&AccessLogTarget::File("/dev/null".into())).unwrap();
    let recorder = logged.recorder();
    measure("record: metrics and access log", || recorder.record(black_box(&outcome), ended));
    let _tap = silent.tap();
    let recorder = silent.recorder();
    measure("record: metrics and a tap that is listened to", || recorder.record(black_box(&outcome), ended));
}

fn source() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    let local = accepted.local_addr().unwrap();
    let mut table = SocketTable::open().unwrap();
    measure("source: whose socket it is", || {
        let _ = black_box(table.caller(peer, local));
    });
}

fn main() {
    measure("clock: Instant::now", || {
        black_box(Instant::now());
    });
    headers();
    paths();
    balance();
    record();
    source();
}
