//! What is shown of each endpoint, above all of those that no call goes to.

use serde_json::Value;

use crate::support::{Mesh, mesh::identity, until};

/// An endpoint of a service that is in the table already.
fn endpoint(instance: &str, address: &str, identity: &str, more: &str) -> String {
    format!(
        "[[service.endpoint]]\ninstance = \"{instance}\"\naddress = \"{address}:80\"\nmesh = \"{address}:15008\"\n\
         identity = \"{identity}\"\n{more}"
    )
}

fn service(name: &str) -> String {
    format!("[[service]]\nname = \"{name}\"\nports = [{{ name = \"http\", number = 80 }}]\n")
}

fn registry(mesh: &Mesh, name: &str, keys: &str) -> String {
    let path = mesh.sandbox.path(&format!("{name}.d"));
    format!("[[registry]]\nkind = \"static\"\nname = \"{name}\"\npath = {path:?}\n{keys}")
}

fn explained(mesh: &Mesh, service: &[&str]) -> Vec<Value> {
    let socket = mesh.socket("near");
    let arguments = ["endpoints", "--explain", "-o", "json", "--socket", &socket];
    let text = mesh.sandbox.ok(&[&arguments, service].concat());
    serde_json::from_str::<Value>(&text).unwrap().as_array().cloned().unwrap()
}

#[test]
fn every_endpoint_that_is_not_called_says_why() {
    let (web, other) = (identity("web"), identity("other"));
    let mut mesh = Mesh::new();
    mesh.caller("near", "client");
    let platform = [
        service("web.default"),
        endpoint("first", "10.1.0.1", &web, ""),
        endpoint("second", "10.1.0.2", &web, ""),
        service("far.default"),
        endpoint("abroad", "10.1.0.3", "spiffe://elsewhere.mesh/ns/default/sa/far", ""),
    ];
    let catalog = [
        service("web.default"),
        endpoint("copy", "10.1.0.1", &web, "health = \"unhealthy\"\n"),
        endpoint("third", "10.1.0.4", &web, ""),
        service("taken.default"),
        endpoint("thief", "10.1.0.5", &other, ""),
    ];
    mesh.sandbox.write("platform.d/all.toml", &platform.concat());
    mesh.sandbox.write("catalog.d/all.toml", &catalog.concat());
    let may_name = format!("may_name = [{{ identity = \"{web}\" }}]\n");
    let join = "[[join]]\nregistries = [\"platform\", \"catalog\"]\nservices = [\"web.default\"]\nprefer = [\"platform\"]\n";
    let sections =
        [registry(&mesh, "platform", ""), registry(&mesh, "catalog", &may_name), join.to_owned()].concat();
    mesh.follow("near", &sections);
    mesh.start();
    let rows = until("all is told", || Some(explained(&mesh, &[])).filter(|rows| rows.len() >= 6));
    let reason = |instance: &str| {
        let row = rows.iter().find(|row| row["instance"] == instance).unwrap_or_else(|| panic!("{rows:#?}"));
        assert_eq!(row["eligible"], row["reason"].is_null(), "{row}");
        (row["health"].as_str().unwrap().to_owned(), row["reason"].as_str().unwrap_or("called").to_owned())
    };
    let told = |instance: &str, health: &str, words: &str| {
        let (known, reason) = reason(instance);
        assert!(known == health && reason.contains(words), "{instance} is {known}: {reason}");
    };
    let first = rows.iter().find(|row| row["instance"] == "first").unwrap();
    let said_by = ["identity_from", "mesh_address_from", "tls_from"].map(|key| first[key].as_str().unwrap());
    assert_eq!(said_by, ["declared in a file", "declared in a file", "the default"]);
    told("first", "healthy", "catalog, which tells of it as copy, says that it is unhealthy");
    told("copy", "unhealthy", "the same as platform's first, which stands for both");
    told("second", "healthy", "called");
    told("third", "healthy", "those of platform, which its join prefers, take the calls: second");
    told("abroad", "healthy", "no root of the trust domain elsewhere.mesh is trusted here");
    let words = format!("may not name the identity {other}");
    let is_it = |row: &&Value| row["reason"].as_str().is_some_and(|reason| reason.contains(&words));
    let row = rows.iter().find(is_it).unwrap_or_else(|| panic!("{rows:#?}"));
    assert!(row["registry"] == "catalog" && row["eligible"] == false && row["instance"].is_null(), "{row}");
    assert!(row["place"].as_str().unwrap().contains("`thief`"), "{row}");
    let socket = mesh.socket("near");
    let status = mesh.ask("near", "status");
    let held = |registry: &str| {
        let rows = status["registries"].as_array().unwrap();
        let row = rows.iter().find(|row| row["scope"].as_str().unwrap().starts_with(registry)).unwrap();
        ["services", "endpoints"].map(|what| row["counts"][what].as_u64().unwrap())
    };
    assert_eq!((held("platform"), held("catalog")), ([2, 3], [2, 2]), "each holds what it says itself");
    let table = mesh.sandbox.ok(&["endpoints", "--explain", "web", "--socket", &socket]);
    assert!(table.contains("identity: declared in a file, mesh port: declared in a file, tls: the default"));
    let unknown = mesh.sandbox.run(&["endpoints", "--explain", "taken.defalt", "--socket", &socket]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no service taken.defalt is known here"));
    let table = mesh.sandbox.ok(&["endpoints", "--explain", "taken", "--socket", &socket]);
    assert!(
        table.contains("not taken over, or not as it is said:")
            && table.contains("`thief`")
            && !table.contains("abroad"),
        "{table}"
    );
}

#[test]
fn a_registry_that_told_of_no_services_has_said_something() {
    let mut mesh = Mesh::new();
    mesh.caller("near", "client");
    mesh.sandbox.write("empty.d/none.toml", "# nothing\n");
    let nobody = "[[registry]]\nkind = \"consul\"\nname = \"away\"\naddress = \"http://127.0.0.1:1\"\n";
    mesh.follow("near", &(registry(&mesh, "empty", "") + nobody));
    mesh.write();
    mesh.spawn("near");
    let socket = mesh.socket("near");
    let said = until("it answers, and the folder is read", || {
        let output = mesh.sandbox.run(&["services", "--socket", &socket]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success() && text.contains("empty")).then_some(text)
    });
    assert_eq!(
        said.trim(),
        "no services: there are none in empty, and away has said nothing yet (see weft status)"
    );
}
