//! A configuration that changes while the agent runs.

use rustix::process::Signal;

use crate::support::{Application, Connection, Load, Mesh, address, client, mesh::identity, uid, until};

fn status_when(
    mesh: &Mesh,
    what: &str,
    mut holds: impl FnMut(&serde_json::Value) -> bool,
) -> serde_json::Value {
    until(what, || mesh.try_status("near").filter(|status| holds(status)))
}

/// The section of a registry of files.
fn registry(mesh: &Mesh, name: &str, folder: &str) -> String {
    let path = mesh.sandbox.path(folder);
    format!("\n[[registry]]\nkind = \"static\"\nname = \"{name}\"\npath = {path:?}\nallow_loopback = true\n")
}

#[test]
fn workloads_and_listeners_come_and_go_without_touching_the_others() {
    let application = Application::start("echo");
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", application.address, "http");
    mesh.caller("near", "client");
    mesh.start();
    let mut kept = Connection::open(mesh.outbound("client")).unwrap();
    assert_eq!(kept.get("echo.default.mesh", "/").unwrap().status, 200);

    // The certificate of the second workload, then the workload, with an outbound port and an upstream.
    let folder = mesh.sandbox.path("near/certificates");
    mesh.authority.write(&folder, "second", &identity("second"));
    let leaf = mesh.authority.leaf(&identity("client"), std::time::Duration::from_secs(3600));
    std::fs::write(folder.join("client.key"), leaf.key).unwrap();
    std::fs::write(folder.join("client.pem"), leaf.certificate).unwrap();
    let (outbound, upstream) = (address(), address());
    let second = format!(
        "\n[[workload]]\nname = \"second\"\nidentity = \"{}\"\noutbound = \"{outbound}\"\nuid = {}\n\
         [[workload.upstream]]\nservice = \"echo.default\"\nlisten = \"{upstream}\"\n",
        identity("second"),
        uid()
    );
    mesh.write_config("near", &second);
    status_when(&mesh, "the file is read by itself", |status| status["config"]["reloads"] == 1);
    for address in [outbound, upstream] {
        until("the new listener answers", || {
            let answer = client::get(address, "echo.default.mesh", "/").ok()?;
            (answer.status == 200).then_some(())
        });
    }
    assert_eq!(kept.get("echo.default.mesh", "/").unwrap().status, 200, "the old connection lives on");

    mesh.write_config("near", "");
    mesh.process("near").signal(Signal::HUP);
    until("the listener is gone", || std::net::TcpStream::connect(outbound).is_err().then_some(()));
    assert_eq!(kept.get("echo.default.mesh", "/").unwrap().status, 200, "the old connection lives on");
}

#[test]
fn a_bad_file_keeps_the_old_configuration_and_says_so_everywhere() {
    let application = Application::start("echo");
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", application.address, "http");
    mesh.caller("near", "client");
    mesh.start();
    mesh.write_config("near", "\n[[workload]]\nnmae = \"x\"\n");
    let status = status_when(&mesh, "the reload is refused", |status| status["config"]["refused"] == 1);
    let fault = status["config"]["fault"].as_str().unwrap();
    assert!(fault.contains("weft.toml") && fault.contains("nmae"), "{fault}");
    mesh.process("near").logged("nmae");
    let metrics = client::get(mesh.admin("near"), "weft", "/metrics").unwrap().body;
    assert!(metrics.contains("weft_config_reloads_total{result=\"refused\"} 1"), "{metrics}");
    assert_eq!(client::get(mesh.outbound("client"), "echo.default.mesh", "/").unwrap().status, 200);

    // What only a restart can change is refused too, and named.
    let settings = std::mem::replace(&mut mesh.settings, "workers = 5\n".into());
    mesh.write_config("near", "\n[access_log]\npath = \"stdout\"\n");
    let status = status_when(&mesh, "the reload is refused", |status| status["config"]["refused"] == 2);
    let fault = status["config"]["fault"].as_str().unwrap();
    assert!(fault.contains("workers") && fault.contains("[access_log]"), "{fault}");

    mesh.settings = settings;
    mesh.write_config("near", "");
    status_when(&mesh, "a good file is taken over", |status| status["config"]["fault"].is_null());
}

#[test]
fn an_agent_that_cannot_come_up_follows_its_file() {
    let application = Application::start("echo");
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", application.address, "http");
    mesh.caller("near", "client");
    mesh.write();
    // Nobody certifies `ghost`.
    let ghost = format!("\n[[workload]]\nname = \"ghost\"\nidentity = \"{}\"\n", identity("ghost"));
    mesh.write_config("near", &ghost);
    mesh.spawn("near");
    status_when(&mesh, "the certificate is missing", |status| {
        status["phase"] == "starting" && status["missing"] == serde_json::json!(["certificate of ghost"])
    });
    mesh.write_config("near", "");
    mesh.ready("near");
}

#[test]
fn a_new_split_is_followed_by_the_next_request() {
    let applications = [Application::start("one"), Application::start("two")];
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", applications[0].address, "http");
    mesh.serve("far", "echo", "v2", applications[1].address, "http");
    mesh.caller("near", "client");
    let route = |version: &str| {
        format!(
            "[[route]]\nname = \"echo\"\nservice = \"echo.default\"\n[[route.rule]]\nname = \"all\"\n\
             backends = [{{ subset = {{ version = \"{version}\" }}, weight = 1 }}]\n"
        )
    };
    mesh.resource("routes.toml", &route("v1"));
    mesh.start();
    let call = |mesh: &Mesh| client::get(mesh.outbound("client"), "echo.default.mesh", "/").unwrap();
    assert!((0..20).all(|_| call(&mesh).body.contains("one")));
    mesh.resource("routes.toml", &route("v2"));
    until("the route leads to v2", || call(&mesh).body.contains("two").then_some(()));
    assert!((0..20).all(|_| call(&mesh).body.contains("two")));
}

#[test]
fn a_route_of_a_registry_that_comes_first_counts_for_services_of_the_next() {
    let applications = [Application::start("one"), Application::start("two")];
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", applications[0].address, "http");
    mesh.serve("far", "other", "v1", applications[1].address, "http");
    mesh.caller("near", "client");
    let registries = ["routes", "mesh"].map(|name| registry(&mesh, name, &format!("{name}.d")));
    mesh.sandbox.write("routes.d/routes.toml", "# none\n");
    mesh.follow("near", &registries.concat());
    mesh.start();
    let call = |mesh: &Mesh| client::get(mesh.outbound("client"), "echo.default.mesh", "/").unwrap();
    assert!((0..20).all(|_| call(&mesh).body.contains("one")));
    let route = |backend: &str| {
        format!(
            "[[route]]\nname = \"echo\"\nservice = \"echo.default\"\n[[route.rule]]\nname = \"all\"\n\
             backends = [{{ service = \"{backend}.default\" }}]\n"
        )
    };
    mesh.sandbox.write("routes.d/routes.toml", &route("other"));
    until("the route leads to the other", || call(&mesh).body.contains("two").then_some(()));
    assert!((0..20).all(|_| call(&mesh).body.contains("two")));
    // A route of the service's own registry is of no account beside it, which is told.
    mesh.resource("routes.toml", &route("echo"));
    status_when(&mesh, "it is told", |status| status["diagnostics"].to_string().contains("mesh/echo"));
    assert!(call(&mesh).body.contains("two"));
    mesh.sandbox.write("routes.d/routes.toml", "# none\n");
    until("its own route counts", || call(&mesh).body.contains("one").then_some(()));
}

#[test]
fn a_registry_that_may_own_some_names_takes_no_other_over() {
    let applications = [Application::start("platform"), Application::start("tenant")];
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", applications[0].address, "http");
    mesh.serve("evil", "tool", "v1", applications[1].address, "http");
    mesh.caller("near", "client");
    let tenant = |name: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nports = [{{ name = \"main\", number = 80, protocol = \"http\" }}]\n\
             [[service.endpoint]]\ninstance = \"tool\"\nport = \"main\"\naddress = \"{}\"\nmesh = \"{}\"\n\
             identity = \"{}\"\n",
            applications[1].address,
            mesh.inbound("evil"),
            identity("tool")
        )
    };
    let text = tenant("tool.team") + &tenant("echo.default");
    mesh.sandbox.write("tenant.d/services.toml", &text);
    let [own, first] = ["mesh", "tenant"].map(|name| registry(&mesh, name, &format!("{name}.d")));
    // Whoever comes first has the name, unless it may not own it.
    mesh.follow("near", &format!("{first}{own}"));
    mesh.start();
    let call = |mesh: &Mesh, host: &str| client::get(mesh.outbound("client"), host, "/").unwrap();
    let is_platform = |mesh: &Mesh| call(mesh, "echo.default.mesh").body.contains("platform");
    assert!(!is_platform(&mesh), "the first registry has the name");
    mesh.follow("near", &format!("{first}may_own = [\"*.team\"]\n{own}"));
    mesh.write_config("near", "");
    until("the name is the platform's", || is_platform(&mesh).then_some(()));
    let told = "may not own the service echo.default";
    status_when(&mesh, "it is told", |status| status["registries"].to_string().contains(told));
    let services = mesh.ask("near", "services");
    let tenants = services.as_array().unwrap().iter().filter(|row| row["registry"] == "tenant");
    assert_eq!(tenants.map(|row| &row["name"]).collect::<Vec<_>>(), ["tool.team"], "{services}");
    let config = mesh.sandbox.path("near/weft.toml");
    let looked = mesh.sandbox.ok(&["check", "--registry", config.to_str().unwrap()]);
    assert!(looked.contains(told), "{looked}");
}

#[test]
fn registries_come_move_and_go_under_load() {
    let application = Application::start("echo");
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", application.address, "http");
    mesh.caller("near", "client");
    mesh.start();
    let load = Load::start(mesh.outbound("client"), "echo.default.mesh", 4);
    load.go_on(50);
    let services = std::fs::read_to_string(mesh.sandbox.path("mesh.d/services.toml")).unwrap();
    let status = |host: &str| client::get(mesh.outbound("client"), host, "/").unwrap().status;

    let more = registry(&mesh, "more", "more.d");
    // Another registry, with the same instances under another name.
    mesh.sandbox.write("more.d/more.toml", &services.replace("\"echo.default\"", "\"copy.default\""));
    mesh.write_config("near", &more);
    status_when(&mesh, "the registry is followed", |status| status["config"]["reloads"] == 1);
    until("its service is known here", || (status("copy.default.mesh") != 404).then_some(()));

    // The first one moves; what it says stays the same.
    mesh.sandbox.write("moved.d/services.toml", &services);
    let text = std::fs::read_to_string(mesh.sandbox.path("near/weft.toml")).unwrap();
    let moved = text.replace("/mesh.d\"", "/moved.d\"");
    assert_ne!(moved, text);
    mesh.sandbox.write("near/weft.toml", &moved);
    status_when(&mesh, "the registry has moved", |status| status["config"]["reloads"] == 2);
    std::fs::remove_dir_all(mesh.sandbox.path("mesh.d")).unwrap();
    load.go_on(100);
    mesh.sandbox.write("moved.d/services.toml", &services.replace("\"echo.default\"", "\"new.default\""));
    mesh.sandbox.write("moved.d/echo.toml", &services);
    until("its new folder is followed", || (status("new.default.mesh") != 404).then_some(()));

    mesh.sandbox.write("near/weft.toml", &moved.replace(&more, ""));
    status_when(&mesh, "the registry is followed no more", |status| status["config"]["reloads"] == 3);
    assert_eq!(status("copy.default.mesh"), 404);
    load.go_on(50);
    let (answered, failures) = (load.answered(), load.end());
    assert!(failures.is_empty(), "{} of {answered} failed, such as {}", failures.len(), failures[0]);
}
