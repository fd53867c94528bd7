//! What one changed endpoint costs, from the registry's word to the published table, and what a mesh weighs in memory.
//!
//! `cargo bench -p weft-core --bench compile [-- -o json]`. Each size runs in a process of its own, so that resident
//! memory is that of the size alone: the snapshot, the table and everything that the merge and the compiler keep.

#![allow(clippy::unwrap_used, reason = "a bench stops where a test would")]

use std::{
    alloc::System,
    collections::{BTreeMap, HashMap},
    env,
    process::Command,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use weft_core::{
    compile::{CompileConfig, Compiler},
    identity::SpiffeId,
    locality::Locality,
    merge::{Merge, Snapshot},
    name::{InstanceName, OriginName, RegistryName, ServiceName},
    publish::Publisher,
    registry::{Completeness, Event, Scope, Version},
    resource::{Address, AppProtocol, Endpoint, Health, Resource, Service, ServicePort, TlsMode},
    table::Table,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SIZES: [u32; 3] = [100, 1_000, 10_000];
const ENDPOINTS: u32 = 10;
const CHANGES: u32 = 4_000;

/// One mesh under test.
struct Mesh {
    merge: Merge,
    compiler: Compiler,
    snapshots: Publisher<Snapshot>,
    tables: Publisher<Table>,
}

impl Mesh {
    fn new() -> Self {
        Self {
            merge: Merge::new(BTreeMap::new()),
            compiler: Compiler::new(CompileConfig::default()),
            snapshots: Publisher::new(Snapshot::default()),
            tables: Publisher::new(Table::default()),
        }
    }

    fn apply(&mut self, event: Event) {
        self.merge.apply(event, SystemTime::UNIX_EPOCH);
    }

    fn publish(&mut self) {
        let changes = self.merge.take_changes();
        let table = self.compiler.compile(self.merge.snapshot(), &changes);
        self.snapshots.publish(self.merge.snapshot().clone());
        self.tables.publish(table);
    }
}

fn scope() -> Scope {
    Scope::whole(RegistryName::new("kubernetes").unwrap())
}

fn service_name(service: u32) -> ServiceName {
    ServiceName::new(&format!("service-{service}.team-{}", service / 20)).unwrap()
}

/// What an EndpointSlice with its service says, every text made anew as a converter makes it.
fn origin(service: u32, version: u32) -> Event {
    let name = service_name(service);
    let host = format!("{name}.svc.cluster.local");
    let port = || "http".parse().unwrap();
    let declared = Service {
        name: name.clone(),
        ports: vec![ServicePort { name: port(), number: 80, protocol: AppProtocol::Http }],
        nearest: false,
        declared: true,
        hosts: vec![host.parse().unwrap()],
    };
    let endpoints = (0..ENDPOINTS).map(|number| {
        let address =
            |port| Address::from(((0x0a00_0000 + service * ENDPOINTS + number).to_be_bytes(), port));
        let labels = [("app", name.label()), ("version", if number % 2 == 0 { "v1" } else { "v2" })];
        Resource::Endpoint(Arc::new(Endpoint {
            service: service_name(service),
            port_name: port(),
            instance: InstanceName::new(&format!("service-{service}-7d4b9c6f5-{number:05}")).unwrap(),
            address: address(8080),
            mesh_address: Some(address(15008)),
            identity: SpiffeId::parse(&format!(
                "spiffe://demo.mesh/ns/team-{}/sa/service-{service}",
                service / 20
            ))
            .ok(),
            said_by: Default::default(),
            tls: TlsMode::Required,
            labels: labels.into_iter().collect(),
            weight: if number == 3 { u16::try_from(version).unwrap() } else { 1 },
            locality: Locality::new(&format!("eu/zone-{}", number % 3)).unwrap(),
            health: Health::Healthy,
        }))
    });
    Event::Replace {
        scope: scope(),
        origin: OriginName::new(&format!("{name}/slice-1")).unwrap(),
        version: Version(version.to_string().into()),
        resources: [Resource::Service(Arc::new(declared))].into_iter().chain(endpoints).collect(),
        faults: Vec::new(),
    }
}

/// Bytes of resident memory of this process, without what is mapped from files.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Fills a mesh of one size, changes endpoints in it and prints one row of JSON.
fn measure(services: u32) {
    let idle = resident();
    let mut mesh = Mesh::new();
    let filling = Instant::now();
    mesh.apply(Event::Reset { scope: scope() });
    for service in 0..services {
        mesh.apply(origin(service, 1));
    }
    mesh.apply(Event::Ready { scope: scope(), completeness: Completeness::Full });
    mesh.apply(Event::Commit { scope: scope(), resume: None, age: Duration::ZERO });
    mesh.publish();
    let filled = filling.elapsed();
    let memory = resident() - idle;
    let live = ALLOCATOR.stats();
    let live = live.bytes_allocated - live.bytes_deallocated;
    assert_eq!(mesh.tables.current().destinations().count(), services as usize);
    let mut random = fastrand::Rng::with_seed(3);
    let mut times = Vec::with_capacity(CHANGES as usize);
    let (mut allocations, mut bytes) = (0, 0);
    for change in 0..CHANGES {
        let event = origin(random.u32(0..services), change % 60_000 + 2);
        let commit = Event::Commit { scope: scope(), resume: None, age: Duration::ZERO };
        let region = Region::new(ALLOCATOR);
        let began = Instant::now();
        mesh.apply(event);
        mesh.apply(commit);
        mesh.publish();
        times.push(began.elapsed());
        let used = region.change();
        allocations += used.allocations;
        bytes += used.bytes_allocated;
    }
    times.sort();
    let row = serde_json::json!({
        "services": services,
        "endpoints": services * ENDPOINTS,
        "fill_ms": filled.as_secs_f64() * 1e3,
        "change_us_p50": micros(times[times.len() / 2]),
        "change_us_p99": micros(times[times.len() * 99 / 100]),
        "allocations": allocations / CHANGES as usize,
        "allocated_bytes": bytes / CHANGES as usize,
        "live_bytes": live,
        "resident_bytes": memory,
        "resident_bytes_after_changes": resident() - idle,
    });
    println!("{row}");
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn main() {
    if let Ok(services) = env::var("WEFT_BENCH_SERVICES") {
        return measure(services.parse().unwrap());
    }
    let json = env::args().any(|argument| argument == "json");
    let mut base = None;
    if !json {
        println!("one endpoint changes, from the registry's word to the published table");
        println!(
            "{:>9} {:>10} {:>9} {:>9} {:>7} {:>9} {:>8} {:>8} {:>8} {:>8}",
            "services", "fill ms", "p50 us", "p99 us", "x 100", "allocs", "KB", "live MB", "MB", "MB then"
        );
    }
    for services in SIZES {
        let this = env::current_exe().unwrap();
        let output = Command::new(this).env("WEFT_BENCH_SERVICES", services.to_string()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        if json {
            print!("{text}");
            continue;
        }
        let row: HashMap<String, f64> = serde_json::from_str(&text).unwrap();
        let base = *base.get_or_insert(row["change_us_p50"]);
        println!(
            "{:>9} {:>10.0} {:>9.1} {:>9.1} {:>7.2} {:>9} {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
            services,
            row["fill_ms"],
            row["change_us_p50"],
            row["change_us_p99"],
            row["change_us_p50"] / base,
            row["allocations"],
            row["allocated_bytes"] / 1e3,
            row["live_bytes"] / 1e6,
            row["resident_bytes"] / 1e6,
            row["resident_bytes_after_changes"] / 1e6,
        );
    }
}
