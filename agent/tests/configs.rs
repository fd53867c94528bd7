//! Configurations: each wrong one is refused with every fault in its place, and the good ones mean what they should.
//!
//! A file of `tests/configs` begins with what it is (`# agent`, `# hub` or `# mesh`) and all its faults, in order:
//! `# error 5:12 @ 3 message ~ help` is an error at line 5, column 12, that also points to line 3. Nothing else may be said.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use weft_agent::config::{
    AccessLogTarget, Allowed, FileKind, IdentityConfig, ListenAddress, MetricPrefix, Overrides, kind_of,
    read_agent, read_hub, survey,
};
use weft_core::config::{Fault, SourceFile, Style, read_mesh, render_all};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// All that is said of a text, in the form of the files' heads; whether it was accepted; and how a person sees it.
fn said(kind: &str, source: &SourceFile) -> (Vec<String>, bool, Vec<Fault>) {
    let (faults, accepted) = match kind {
        "agent" => {
            let outcome = read_agent(source, &Overrides::default());
            (outcome.faults, outcome.value.is_some())
        }
        "hub" => {
            let outcome = read_hub(source, &Overrides::default());
            (outcome.faults, outcome.value.is_some())
        }
        "mesh" => {
            let outcome = read_mesh(source);
            (outcome.faults, outcome.value.is_some())
        }
        other => panic!("{}: {other} is no kind of file", source.name()),
    };
    (faults.iter().map(line).collect(), accepted, faults)
}

fn line(fault: &Fault) -> String {
    let related: String = fault.related.iter().map(|related| format!(" @ {}", related.place.line)).collect();
    let help =
        if fault.help.starts_with("did you mean") { format!(" ~ {}", fault.help) } else { String::new() };
    let (place, severity) = (&fault.place, fault.severity.word());
    format!("# {severity} {}:{}{related} {}{help}", place.line, place.column, fault.message)
}

#[test]
fn every_wrong_configuration_is_refused_with_all_its_faults_in_their_places() {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder("tests/configs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 50, "the wrong configurations are there");
    let mut wrong = Vec::new();
    for path in paths {
        let source = SourceFile::read(&path).unwrap();
        let mut head = source.text().lines().take_while(|line| line.starts_with("# "));
        let kind = head.next().unwrap().trim_start_matches("# ").to_owned();
        let expected: Vec<&str> = head.collect();
        let (found, accepted, faults) = said(&kind, &source);
        assert!(
            expected.iter().any(|line| line.starts_with("# error")),
            "{}: expects no error",
            path.display()
        );
        if accepted || found != expected {
            let state = if accepted { "was accepted" } else { "has other faults" };
            wrong.push(format!("{} {state}:\n{}\n{}", path.display(), found.join("\n"), shown(&faults)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn shown(faults: &[Fault]) -> String {
    render_all(faults, Style::Plain)
}

#[test]
fn what_is_not_said_has_its_default() {
    let source = SourceFile::new("weft.toml", "");
    let config = read_agent(&source, &Overrides::default()).value.unwrap();
    assert_eq!((config.workers, config.drain_deadline.as_secs(), config.fault_header), (2, 60, true));
    assert_eq!(
        (config.state_dir.to_str(), config.run_dir.to_str()),
        (Some("/var/lib/weft"), Some("/run/weft"))
    );
    assert_eq!(config.admin.socket.to_str(), Some("/run/weft/admin.sock"));
    assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:15020");
    assert_eq!((config.inbound, config.identity, config.hubs), (None, IdentityConfig::None, vec![]));
    assert_eq!((config.access_log, config.metric_prefix), (AccessLogTarget::Off, MetricPrefix::Weft));
    let config = read_hub(&SourceFile::new("hub.toml", ""), &Overrides::default()).value.unwrap();
    assert_eq!((config.listen.to_string().as_str(), config.ca.leaf_ttl.as_secs()), ("0.0.0.0:15012", 86_400));
}

#[test]
fn workloads_mean_what_is_written() {
    let text = r#"
        run_dir = "/tmp/run"
        access_log = { path = "/var/log/weft.log" }
        metrics = { prefix = "istio" }
        identity = { kind = "files", directory = "/etc/weft/identity" }
        registry = [{ kind = "static", path = "/etc/weft/mesh.d" }]
        [[workload]]
        name = "web"
        identity = "spiffe://demo.mesh/ns/default/sa/web"
        labels = { version = "v1" }
        locality = "eu/a"
        outbound = ["127.0.0.1:0", "unix:/run/weft/web.sock"]
        uid = [1000, 1001]
        upstream = [{ service = "reviews", port = "http", listen = "[::1]:9101" }]
        port = [{ service = "web.default", name = "grpc", address = "127.0.0.1:8080", protocol = "grpc" }]
    "#;
    let outcome = read_agent(&SourceFile::new("weft.toml", text), &Overrides::default());
    let config = outcome.value.unwrap_or_else(|| panic!("{}", shown(&outcome.faults)));
    assert_eq!(config.admin.socket.to_str(), Some("/tmp/run/admin.sock"));
    assert_eq!(config.access_log, AccessLogTarget::File("/var/log/weft.log".into()));
    assert_eq!(config.metric_prefix.as_str(), "istio");
    assert_eq!(config.trust_domain.unwrap().as_str(), "demo.mesh", "the workloads' own");
    assert_eq!(config.inbound.unwrap()[0].port(), 15_008, "there is a port to serve");
    let web = &config.workloads[0];
    assert_eq!(web.allowed, Some(Allowed::Uids(vec![1000, 1001])));
    assert_eq!(web.outbound[1], ListenAddress::Unix("/run/weft/web.sock".into()));
    assert_eq!(web.upstreams[0].service.to_string(), "reviews.default");
    assert_eq!(web.workload.ports[0].address.port(), 8080);
    assert_eq!(web.workload.labels.get("version"), Some("v1"));
}

#[test]
fn the_environment_wins_over_the_file() {
    let overrides = Overrides::of_agent(|name| match name {
        "WEFT_STATE_DIR" => Some("/elsewhere".into()),
        "WEFT_RUN_DIR" => Some("".into()),
        _ => None,
    });
    let source = SourceFile::new("weft.toml", "state_dir = \"/here\"\nrun_dir = \"/run/here\"\n");
    let config = read_agent(&source, &overrides).value.unwrap();
    assert_eq!((config.state_dir.to_str(), config.run_dir.to_str()), (Some("/elsewhere"), Some("/run/here")));
}

#[test]
fn a_socket_that_the_environment_makes_too_long_is_not_the_files_fault() {
    let run_dir = Some(PathBuf::from(format!("/run/{}", "x".repeat(110))));
    let source = SourceFile::new("weft.toml", "state_dir = \"/here\"\nrun_dir = \"/run/here\"\n");
    let faults = read_agent(&source, &Overrides { run_dir, state_dir: None }).faults;
    let fault = faults.iter().find(|fault| fault.is_error()).unwrap();
    assert_eq!(fault.place.line, 0, "{}", shown(&faults));
    assert!(fault.message.ends_with("admin.sock` is too long") && fault.help.contains("WEFT_RUN_DIR"));
}

#[test]
fn an_agent_and_a_hub_on_one_host_have_variables_of_their_own() {
    let environment = |name: &str| Some(format!("/of/{name}").into());
    let (agent, hub) = (Overrides::of_agent(environment), Overrides::of_hub(environment));
    let paths = |overrides: &Overrides| (overrides.state_dir.clone(), overrides.run_dir.clone());
    let of = |name: &str| Some(std::path::PathBuf::from(format!("/of/{name}")));
    assert_eq!(paths(&agent), (of("WEFT_STATE_DIR"), of("WEFT_RUN_DIR")));
    assert_eq!(paths(&hub), (of("WEFT_HUB_STATE_DIR"), of("WEFT_HUB_RUN_DIR")));
}

#[test]
fn a_plan_is_equal_when_it_means_the_same() {
    let registry = |text: &str| {
        let source = SourceFile::new("weft.toml", text);
        read_agent(&source, &Overrides::default()).value.unwrap().registries.remove(0)
    };
    let first = registry("[[registry]]\nkind = \"static\"\npath = \"/a\"\n");
    assert_eq!(first, registry("\n\n[[registry]]\npath = \"/a\"\nkind = \"static\"\nname = \"static\"\n"));
    assert_ne!(first, registry("[[registry]]\nkind = \"static\"\npath = \"/b\"\n"));
}

#[test]
fn the_examples_are_good_and_known_for_what_they_are() {
    let root = folder("..").join("examples/quickstart");
    let eureka = folder("..").join("examples/eureka/weft.toml");
    let checked = survey(&[root.clone(), root.join("mesh.d"), eureka], None);
    // Paths in the examples are relative to the root of the repository, where this test does not run.
    for file in checked.iter().filter(|file| file.kind.is_some()) {
        assert!(!file.faults.iter().any(Fault::is_error), "{}\n{}", file.path.display(), shown(&file.faults));
    }
    let kinds = |name: &str| checked.iter().find(|file| file.path.ends_with(name)).and_then(|file| file.kind);
    assert_eq!(kinds("quickstart/web.toml"), Some(FileKind::Agent));
    assert_eq!(kinds("quickstart/hub.toml"), Some(FileKind::Hub));
    assert_eq!(kinds("mesh.d/reviews.toml"), Some(FileKind::Mesh));
    assert_eq!(kinds("eureka/weft.toml"), Some(FileKind::Agent));
    let text = SourceFile::new("any", "listen = \"0.0.0.0:1\"\n[ca]\n");
    assert_eq!(kind_of(Path::new("any.toml"), &text), FileKind::Hub);
    let of = |text: &str| kind_of(Path::new("any.toml"), &SourceFile::new("any.toml", text));
    assert_eq!(of("listen = \"0.0.0.0:15012\"\n[[registry]]\nkind = \"consul\"\n"), FileKind::Hub);
    assert_eq!(of("[inbound]\nlisten = \"0.0.0.0:15008\"\n[[registry]]\n"), FileKind::Agent);
}

#[test]
fn checking_follows_a_configuration_into_its_folders() {
    let folder = tempfile::tempdir().unwrap();
    let mesh = folder.path().join("mesh.d");
    fs::create_dir(&mesh).unwrap();
    let service = "[[service]]\nname = \"a\"\nports = [{ name = \"http\", number = 80 }]\n";
    fs::write(mesh.join("1.toml"), service).unwrap();
    fs::write(mesh.join("2.toml"), service).unwrap();
    let config = folder.path().join("weft.toml");
    fs::write(&config, format!("[[registry]]\nkind = \"static\"\npath = {mesh:?}\n")).unwrap();
    let checked = survey(std::slice::from_ref(&config), None);
    assert_eq!(checked.len(), 3, "{checked:#?}");
    let fault = &checked[2].faults[0];
    assert!(
        fault.message.contains("defined by two files") && fault.related[0].place.file.ends_with("1.toml")
    );

    fs::remove_dir_all(&mesh).unwrap();
    let checked = survey(&[config, folder.path().join("none.toml")], None);
    let said: Vec<String> = checked.iter().flat_map(|file| &file.faults).map(ToString::to_string).collect();
    assert!(
        said.len() == 2 && said[0].contains("weft.toml:1:1") && said[1].contains("none.toml"),
        "{said:#?}"
    );
}

#[test]
fn checking_tells_names_that_no_file_declares_and_files_that_say_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("1.toml", "[[service]]\nname = \"reviews\"\nports = [{ name = \"http\", number = 80 }]\n");
    let policy =
        "[[policy]]\nname = \"p\"\ntarget = { service = \"reviws\" }\naction = \"deny\"\n[[policy.rule]]\n";
    let route = "[[route]]\nname = \"r\"\nservice = \"reviews\"\n[[route.rule]]\nname = \"all\"\n\
                 backends = [{ service = \"elsewhere\" }, { weight = 1 }]\n";
    write("2.toml", &format!("{policy}{route}"));
    write("3.toml", "\n");
    let said = |files: &[weft_agent::config::CheckedFile]| -> Vec<String> {
        let faults = files.iter().flat_map(|file| &file.faults);
        faults.map(|fault| format!("{} {} {}", fault.severity.word(), fault.message, fault.help)).collect()
    };
    let checked = survey(&[folder.path().to_owned()], None);
    let mut told = said(&checked);
    told.sort();
    assert_eq!(
        told,
        [
            "error the file is empty delete the file, or leave a comment in it, to take its resources away",
            "warning protects `reviws.default`, which no file checked here declares did you mean `reviews.default`?",
            "warning routes to `elsewhere.default`, which no file checked here declares right if another registry has it",
        ]
    );
    // Files that declare nothing are about what others declare.
    let checked = survey(&[folder.path().join("2.toml")], None);
    assert!(said(&checked).is_empty(), "{checked:#?}");
}
