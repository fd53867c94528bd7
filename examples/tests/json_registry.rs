//! The example's registry is asked what every registry is asked, and its binary looks at it.
#![allow(clippy::unwrap_used)] // A test, though not of cargo's harness: what cannot be set up ends it.

#[path = "../../registries/tests/conformance/bed.rs"]
mod bed;
#[path = "../../registries/tests/conformance/follower.rs"]
mod follower;
#[path = "../../registries/tests/conformance/report.rs"]
#[allow(dead_code)] // Nothing is ever skipped here.
mod report;
#[path = "../../registries/tests/conformance/suite.rs"]
mod suite;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, ExitCode},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::{Value, json};
use weft_agent::registries::{Environment, Settings};
use weft_core::{
    config::{SourceFile, read},
    name::RegistryName,
    registry::Registry,
};

use crate::bed::{Bed, identity};

/// A web server with one document.
struct Server {
    address: SocketAddr,
    services: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
    away: Arc<AtomicBool>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let services = Arc::<Mutex<BTreeMap<String, Vec<Value>>>>::default();
        let away = Arc::<AtomicBool>::default();
        let (shown, gone) = (services.clone(), away.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shown, gone) = (shown.clone(), gone.clone());
                thread::spawn(move || answer(&stream.unwrap(), &shown, &gone));
            }
        });
        Self { address, services, away }
    }

    fn section(&self) -> String {
        format!("address = \"http://{}\"\npoll = \"200ms\"\n", self.address)
    }
}

fn answer(mut stream: &TcpStream, services: &Mutex<BTreeMap<String, Vec<Value>>>, away: &AtomicBool) {
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(first)) = lines.next() {
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        // Who is away says nothing.
        if away.load(Ordering::SeqCst) {
            return;
        }
        assert!(first.starts_with("GET /services.json "), "{first}");
        let services = services.lock().unwrap().clone();
        let service = |(name, instances)| json!({ "name": name, "port": 80, "instances": instances });
        let body = json!({ "services": services.into_iter().map(service).collect::<Vec<_>>() }).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

impl Bed for Server {
    fn registry(&self) -> Arc<dyn Registry> {
        let source = SourceFile::new("weft.toml", self.section());
        let settings: Option<Arc<dyn Settings>> =
            read(&source, |section| (weft_examples::json_registry::KIND.read)(section)).value;
        settings.unwrap().build(&RegistryName::new("json").unwrap(), &Environment::default()).unwrap()
    }

    fn scale(&mut self, service: &str, instances: usize) {
        let instance = |number| {
            json!({
                "id": format!("{service}-{number}"),
                "address": format!("10.0.0.{number}"),
                "port": 8080,
                "meta": { "weft-mesh-port": "15008", "weft-identity": identity(service) },
            })
        };
        let mut services = self.services.lock().unwrap();
        services.remove(service);
        if instances > 0 {
            services.insert(service.into(), (1..=instances).map(instance).collect());
        }
    }

    fn ail(&mut self, service: &str, ails: bool) {
        self.services.lock().unwrap().get_mut(service).unwrap()[0]["healthy"] = (!ails).into();
    }

    fn kill(&mut self) {
        self.away.store(true, Ordering::SeqCst);
    }

    fn restart(&mut self) {
        self.away.store(false, Ordering::SeqCst);
    }
}

/// The example's own files, as a user copies them.
fn the_binary_looks_at_it(server: &Server) {
    let folder = tempfile::tempdir().unwrap();
    let copied = |name: &str| {
        fs::read_to_string(format!("{}/json-registry/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let document: Value = serde_json::from_str(&copied("services.json")).unwrap();
    let list = |service: &Value| service["instances"].as_array().unwrap().clone();
    let services = document["services"].as_array().unwrap().iter();
    let services = services.map(|service| (service["name"].as_str().unwrap().to_owned(), list(service)));
    *server.services.lock().unwrap() = services.collect();
    let config = folder.path().join("weft.toml");
    fs::write(&config, copied("weft.toml").replace("127.0.0.1:8090", &server.address.to_string())).unwrap();
    let weft = Command::new(env!("CARGO_BIN_EXE_weft-with-json"))
        .args(["check", "--registry", "-o", "json"])
        .arg(&config)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&weft.stdout).unwrap();
    let looked = &report["registries"][0];
    assert!(weft.status.success(), "{report}");
    assert_eq!((&looked["kind"], &looked["complete"]), (&"json".into(), &true.into()), "{report}");
    assert_eq!(
        (&looked["services"], &looked["endpoints"], &looked["usable"]),
        (&2.into(), &2.into(), &2.into())
    );
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let mut report = report::Report::default();
    let mut server = Server::start();
    runtime.block_on(suite::run("json", &mut server, &mut report));
    the_binary_looks_at_it(&server);
    report.print()
}
