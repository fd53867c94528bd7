//! An endpoint without weight: it takes nothing while another can, then everything, and what is said of it is true.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Application, Load, Mesh, client, until};

fn row(mesh: &Mesh, instance: &str) -> Value {
    let all = mesh.ask("near", "endpoints").as_array().cloned().unwrap_or_default();
    all.into_iter().find(|row| row["instance"] == instance).unwrap_or_default()
}

#[test]
fn a_stand_by_is_called_when_nobody_else_can_be_and_is_said_to_be_one() {
    let [first, second] = ["first", "second"].map(Application::start);
    let mut mesh = Mesh::new();
    mesh.caller("near", "web");
    let endpoint = |instance: &str, application: &Application, weight: u16| {
        let address = application.address;
        format!(
            "[[service.endpoint]]\ninstance = {instance:?}\nport = \"main\"\naddress = \"{address}\"\ntls = \"off\"\n\
             weight = {weight}\n"
        )
    };
    let ports = "ports = [{ name = \"main\", number = 80, protocol = \"http\" }]";
    let endpoints = endpoint("first", &first, 7) + &endpoint("second", &second, 0);
    let text = format!("[[service]]\nname = \"reviews.default\"\n{ports}\n{endpoints}");
    let folder = mesh.sandbox.path("plain.d");
    mesh.sandbox.write("plain.d/reviews.toml", &text);
    mesh.follow("near", &format!("[[registry]]\nkind = \"static\"\npath = {folder:?}\n"));
    mesh.start();
    until("both are known", || row(&mesh, "second")["reason"].is_string().then_some(()));
    // Busy is not unable: several calls are always under way.
    first.delay(Duration::from_millis(20));
    let load = Load::start(mesh.outbound("web"), "reviews.default.mesh", 8);
    load.go_on(200);
    assert_eq!(load.end(), Vec::<String>::new());
    assert_eq!(second.requests(), 0, "the other can");
    let stand_by = row(&mesh, "second");
    assert!(stand_by["reason"].as_str().unwrap().contains("a stand-by"), "{stand_by}");
    assert_eq!(stand_by["last_resort"], false, "{stand_by}");
    drop(first);
    // Connections of before rest, and are closed.
    std::thread::sleep(Duration::from_secs(2));
    until("it takes all the calls, and says so", || {
        let answer = client::get(mesh.outbound("web"), "reviews.default.mesh", "/").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        (row(&mesh, "second")["last_resort"] == true).then_some(())
    });
    assert!(second.requests() > 0);
}
