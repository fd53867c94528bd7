//! Clients and servers that others wrote and that know nothing of Weft: curl and grpcio.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Application, Mesh, Process, address};

/// A Python that has grpcio; none when there is none on this machine, which is said loudly.
fn python_with_grpc() -> Option<PathBuf> {
    let python = std::env::var_os("WEFT_TEST_PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    let has_grpc =
        Command::new(&python).args(["-c", "import grpc"]).output().is_ok_and(|o| o.status.success());
    if has_grpc {
        return Some(python);
    }
    skipped("grpcio", "python3 -m venv v && v/bin/pip install grpcio; export WEFT_TEST_PYTHON=v/bin/python");
    None
}

fn skipped(what: &str, how: &str) {
    assert!(
        std::env::var_os("WEFT_TESTS_MUST_NOT_SKIP").is_none(),
        "{what} is missing, and nothing may be skipped"
    );
    eprintln!("SKIPPED: {what} is not on this machine; get it with: {how}");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

#[test]
fn grpc_passes_in_all_four_shapes_with_metadata_trailers_and_errors() {
    let Some(python) = python_with_grpc() else { return };
    let application = address();
    let mut mesh = Mesh::new();
    mesh.serve("called", "echo", "v1", application, "grpc");
    mesh.caller("calling", "web");
    let mut command = Command::new(&python);
    command.arg(script("grpc_server.py")).arg(application.port().to_string());
    let mut server = Process::spawn("grpc server", mesh.sandbox.path("grpc-server.log"), command);
    server.logged("ready");
    mesh.start();
    let outbound = mesh.outbound("web").to_string();
    let client =
        Command::new(&python).arg(script("grpc_client.py")).args([&outbound, "echo.default.mesh"]).output();
    let output = client.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "passed");
}

#[test]
fn curl_calls_over_both_http_versions() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped("curl", "your package manager");
    }
    let application = Application::start("one");
    let mut mesh = Mesh::new();
    mesh.serve("called", "reviews", "v1", application.address, "http");
    mesh.caller("calling", "web");
    mesh.start();
    let url = format!("http://{}/hello?a=1", mesh.outbound("web"));
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        let code = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: reviews.default.mesh"];
        let output = Command::new("curl").arg(version).args(code).arg(&url).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{version}");
    }
    assert_eq!(application.requests(), 3);
}
