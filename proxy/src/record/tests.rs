use std::{path::Path, rc::Rc};

use weft_core::{
    context::{Asked, Attribute, Protocol, Reached, Reporter, Verdict},
    identity::SpiffeId,
    name::{RegistryName, ServiceKey, ServiceName, WorkloadName},
    workload::Source,
};

use super::*;

/// What an outcome borrows from.
pub(super) struct Held {
    pub(super) source: Source,
    pub(super) service: ServiceKey,
    pub(super) verdict: Verdict,
    pub(super) path: String,
}

impl Held {
    pub(super) fn new(service: &str) -> Self {
        Self {
            source: Source {
                workload: Some(WorkloadName::new("web").unwrap()),
                identity: SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/web").unwrap(),
                labels: Default::default(),
            },
            service: ServiceKey {
                registry: RegistryName::new("static").unwrap(),
                service: ServiceName::new(service).unwrap(),
            },
            verdict: Verdict { status: 200, ..Verdict::default() },
            path: "/a\"b".into(),
        }
    }

    pub(super) fn outcome(&self) -> Outcome<'_> {
        Outcome {
            reporter: Reporter::Source,
            source: &self.source,
            destination: Some(Reached {
                service: &self.service,
                port: 80,
                workload: None,
                instance: None,
                identity: None,
                address: Some(([10, 0, 0, 1], 15008).into()),
            }),
            local_address: Some(([127, 0, 0, 1], 15001).into()),
            peer_address: Some(([127, 0, 0, 1], 40000).into()),
            protocol: Protocol::Http1,
            mutual_tls: true,
            request: Some(Asked {
                method: "GET",
                path: &self.path,
                authority: "reviews",
                id: "1",
                trace: "",
                grpc: false,
            }),
            route: None,
            attempts: 1,
            verdict: &self.verdict,
            duration: Duration::from_micros(1_200),
            received_bytes: 0,
            sent_bytes: 300,
        }
    }
}

fn to_file(path: &Path) -> Records {
    Records::new(&AccessLogTarget::File(path.to_owned())).unwrap()
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_names_every_known_attribute() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let records = to_file(&path);
    let held = Held::new("reviews.default");
    let recorder = records.recorder();
    recorder.record(&held.outcome(), Instant::now());
    drop(recorder);
    assert!(records.flush_log(Duration::from_secs(5)));
    let lines = lines(&path);
    assert_eq!(lines.len(), 1);
    let line = lines[0].as_object().unwrap();
    for (name, wanted) in [
        ("reporter", "source"),
        ("source.principal", "spiffe://demo.mesh/ns/default/sa/web"),
        ("destination.service", "reviews.default"),
        ("destination.address", "10.0.0.1:15008"),
        ("request.path", "/a\"b"),
    ] {
        assert_eq!(line[name], wanted, "{name}");
    }
    assert_eq!(line["response.code"], 200);
    assert_eq!(line["request.duration_us"], 1_200);
    assert!(!line.contains_key("response.fault") && !line.contains_key("response.flags"));
    assert_eq!(line["time"].as_str().unwrap().len(), "2026-01-31T23:59:59.000000Z".len());
}

/// A line's values as the attributes' own texts.
fn texts(line: &serde_json::Value) -> Vec<(String, String)> {
    let fields = line.as_object().unwrap().iter().filter(|(name, _)| *name != "time");
    let text =
        |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let mut texts: Vec<_> = fields.map(|(name, value)| (name.clone(), text(value))).collect();
    texts.sort();
    texts
}

#[test]
fn lines_say_what_the_attributes_say_whatever_they_share() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let records = to_file(&path);
    let recorder = records.recorder();
    let (mut held, mut failed) = (Held::new("reviews.default"), Held::new("reviews.default"));
    held.verdict.grpc_status = Some(0);
    failed.verdict =
        Verdict { status: 503, flags: "UF", fault: Some("connect_refused"), ..Verdict::default() };
    let mut wanted = Vec::new();
    for turn in 0..3 {
        held.path = format!("/{turn}");
        let mut outcomes = [held.outcome(), failed.outcome(), held.outcome(), failed.outcome()];
        outcomes[2].destination = None;
        outcomes[3].request = None;
        outcomes[3].protocol = Protocol::Tcp;
        for outcome in outcomes {
            recorder.record(&outcome, Instant::now());
            let context = outcome.to_context(0);
            let known =
                Attribute::ALL.iter().filter_map(|&a| Some((a.name().to_owned(), context.attribute(a)?)));
            let mut known: Vec<_> = known.filter(|(_, text)| !text.is_empty()).collect();
            known.sort();
            wanted.push(known);
        }
    }
    drop(recorder);
    assert!(records.flush_log(Duration::from_secs(5)));
    assert_eq!(lines(&path).iter().map(texts).collect::<Vec<_>>(), wanted);
}

#[tokio::test]
async fn lines_reach_the_file_without_being_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let records = to_file(&path);
    let recorder = Rc::new(records.recorder());
    let held = Held::new("reviews.default");
    let flushing = recorder.keep_flushing();
    let writing = async {
        for count in 1..=3 {
            recorder.record(&held.outcome(), Instant::now());
            while lines(&path).len() < count {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        () = flushing => unreachable!("it goes on for ever"),
        done = tokio::time::timeout(Duration::from_secs(10), writing) => done.unwrap(),
    }
}

#[test]
fn a_moved_file_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let records = to_file(&path);
    let held = Held::new("reviews.default");
    records.recorder().record(&held.outcome(), Instant::now());
    assert!(records.flush_log(Duration::from_secs(5)));
    std::fs::rename(&path, &moved).unwrap();
    records.reopen_log();
    records.recorder().record(&held.outcome(), Instant::now());
    assert!(records.flush_log(Duration::from_secs(5)));
    assert_eq!((lines(&moved).len(), lines(&path).len()), (1, 1));
}

#[test]
fn a_writer_that_hangs_costs_lines_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    // A pipe that nobody reads: the writer hangs as soon as it is full.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let records = to_file(&path);
    let recorder = records.recorder();
    let mut held = Held::new("reviews.default");
    held.path = format!("/{}", "a".repeat(64 * 1024));
    for _ in 0..200 {
        recorder.record(&held.outcome(), Instant::now());
    }
    assert!(!records.flush_log(Duration::from_millis(10)));
    let text = records.render("weft");
    let dropped = text.lines().find_map(|line| line.strip_prefix("weft_access_log_dropped_lines_total "));
    assert!(dropped.unwrap().parse::<u64>().unwrap() > 100, "{dropped:?}");
    drop(reader);
}

#[tokio::test]
async fn a_tap_sees_what_happens_while_it_listens() {
    let records = Records::new(&AccessLogTarget::Off).unwrap();
    let recorder = records.recorder();
    let held = Held::new("reviews.default");
    recorder.record(&held.outcome(), Instant::now());
    let mut tap = records.tap();
    recorder.record(&held.outcome(), Instant::now());
    let Some(Tapped::Request(seen)) = tap.next().await else { panic!("nothing was shown") };
    assert_eq!(*seen, held.outcome().to_context(seen.ended_at));
    for _ in 0..2_000 {
        recorder.record(&held.outcome(), Instant::now());
    }
    assert_eq!(tap.next().await, Some(Tapped::Missed(2_000 - 1_024)));
    drop(tap);
    assert!(!records.tap.is_listened_to());
}
