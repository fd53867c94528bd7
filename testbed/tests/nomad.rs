//! Nomad runs jobs; its server dies and comes back; its clients die with and without their tasks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use weft_testbed::{Call, Kind, Nomad, NomadOptions, installed, required, until};

const SOON: Duration = Duration::from_secs(60);

fn start(options: NomadOptions) -> Option<Nomad> {
    let home = required(installed(Kind::Nomad))?;
    let begin = Instant::now();
    let nomad = Nomad::start(&home, options).unwrap();
    eprintln!("Nomad is ready after {} ms", begin.elapsed().as_millis());
    Some(nomad)
}

fn answers(address: &str) -> bool {
    Call::new("GET", format!("http://{address}/")).send().is_ok_and(|answer| answer.is_success())
}

/// Processes that have something open below a folder.
fn users_of(folder: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let works_there = |process: &PathBuf| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut places = open.chain([process.join("cwd")]).filter_map(|link| fs::read_link(link).ok());
        places.any(|place| place.starts_with(folder))
    };
    processes.filter(works_there).collect()
}

#[test]
fn a_job_runs_outlives_its_server_and_its_client_and_ends_with_nomad() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let begin = Instant::now();
    nomad.run_job(Nomad::WEB_JOB, &["count=2"]).unwrap();
    let addresses = nomad.await_service("web", 2).unwrap();
    eprintln!("two instances answer after {} ms", begin.elapsed().as_millis());
    nomad.kill_server();
    assert!(nomad.call("GET", "/v1/services", "").is_err());
    assert!(addresses.iter().all(|address| answers(address)));
    let begin = Instant::now();
    nomad.restart_server().unwrap();
    eprintln!("the server leads again after {} ms", begin.elapsed().as_millis());
    until("the catalog is back", SOON, || nomad.service("web").is_ok_and(|found| found == addresses))
        .unwrap();
    nomad.kill_client(0);
    assert!(addresses.iter().all(|address| answers(address)));
    nomad.restart_client(0).unwrap();
    assert!(addresses.iter().all(|address| answers(address)));
    let folder = nomad.scratch().path().to_owned();
    assert!(users_of(&folder).len() > 3);
    drop(nomad);
    assert_eq!(users_of(&folder), Vec::<PathBuf>::new());
    assert!(!folder.exists());
    assert!(!addresses.iter().any(|address| answers(address)));
    assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(folder.to_str().unwrap()));
}

#[test]
fn a_crashed_client_takes_its_tasks_and_another_runs_them() {
    let clients = ["east", "east"].map(|datacenter| format!("datacenter = \"{datacenter}\"\n")).to_vec();
    let Some(nomad) = start(NomadOptions { clients, ..NomadOptions::default() }) else { return };
    nomad
        .run_job(&Nomad::WEB_JOB.replace("group \"web\"", "datacenters = [\"east\"]\n group \"web\""), &[])
        .unwrap();
    let old = nomad.await_service("web", 1).unwrap();
    let instance = nomad.call("GET", "/v1/service/web", "").unwrap().json();
    assert_eq!(instance[0]["Datacenter"], "east");
    let node =
        nomad.call("GET", &format!("/v1/node/{}", instance[0]["NodeID"].as_str().unwrap()), "").unwrap();
    let index = usize::from(node.json()["Name"] == "client-2");
    nomad.crash_client(index).unwrap();
    assert!(!answers(&old[0]));
    until("it runs elsewhere", SOON, || {
        nomad.service("web").is_ok_and(|new| new.len() == 1 && new != old && answers(&new[0]))
    })
    .unwrap();
}

#[test]
fn with_tokens_nothing_is_shown_without_one_and_a_stopped_job_is_gone() {
    let Some(nomad) = start(NomadOptions { acl: true, ..NomadOptions::default() }) else { return };
    let anonymous = Call::new("GET", nomad.url() + "/v1/services").send().unwrap();
    assert_eq!(anonymous.status, 403);
    nomad.run_job(Nomad::WEB_JOB, &[]).unwrap();
    nomad.await_service("web", 1).unwrap();
    nomad.kill_server();
    nomad.restart_server().unwrap();
    nomad.stop_job("web").unwrap();
    until("it is gone", SOON, || nomad.service("web").is_ok_and(|found| found.is_empty())).unwrap();
    let error = nomad.run_job("no job", &[]).unwrap_err();
    assert!(error.to_string().contains("nomad job run"), "{error}");
}
