//! Through a proxy that the kubeconfig names, where new connections are seen: those of a certificate that was renewed too.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use data_encoding::BASE64;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::block_in_place,
};
use weft_testbed::Kubernetes;

use crate::{
    cluster::{SOON, by, namespace, shared},
    follower::{Follower, View},
};

/// The heads of the questions for a tunnel.
type Asked = Arc<Mutex<Vec<String>>>;

fn asked(asked: &Asked) -> Vec<String> {
    asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A proxy that makes tunnels for who shows the right password; its port.
async fn proxy(asked: Asked) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(tunnel(stream, asked.clone()));
        }
    });
    port
}

async fn tunnel(stream: TcpStream, asked: Asked) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let expected = format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(b"me:p@ss"));
    if !head.contains(&expected) {
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        drop(stream.write_all(answer.as_bytes()).await);
        return;
    }
    let target = head.split_whitespace().nth(1).unwrap();
    let mut server = TcpStream::connect(target).await.unwrap();
    drop(stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await);
    drop(copy_bidirectional(&mut stream, &mut server).await);
}

/// A certificate for somebody of a group, signed by the cluster's authority, as a plugin prints it; it is to be renewed at once.
fn credential(kubernetes: &Kubernetes, user: &str, group: &str) -> String {
    let keys = kubernetes.authority().parent().map(Path::to_path_buf).unwrap();
    let subject = format!("/O={group}/CN={user}");
    let arguments = "req -config openssl.conf -x509 -days 1 -noenc -newkey ec -pkeyopt ec_paramgen_curve:P-256 -CA ca.crt \
                     -CAkey ca.key -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=clientAuth";
    let mut command = Command::new("openssl");
    command.current_dir(&keys).args(arguments.split_whitespace()).args(["-subj", &subject]);
    let made = command.args(["-keyout", "made.key", "-out", "made.crt"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = |file: &str| fs::read_to_string(keys.join(file)).unwrap();
    let status = serde_json::json!({
        "clientCertificateData": text("made.crt"),
        "clientKeyData": text("made.key"),
        "expirationTimestamp": "2000-01-01T00:00:00Z",
    });
    serde_json::json!({"status": status}).to_string()
}

/// Puts a file where a reader sees the old one or the new one.
fn replace(file: &Path, text: &str) {
    fs::write(file.with_extension("new"), text).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_asks_on_new_connections_through_the_proxy_and_ends_no_watch() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    let heads = Asked::default();
    let port = proxy(heads.clone()).await;
    let (kubeconfig, answer) = block_in_place(|| {
        namespace(kubernetes, "proxied");
        let kubeconfig = kubernetes.kubeconfig_with_token("proxied", "inline").unwrap();
        let answer = kubernetes.scratch().path().join("proxied.json");
        replace(&answer, &credential(kubernetes, "first", "system:masters"));
        let exec = format!(
            "exec: {{apiVersion: client.authentication.k8s.io/v1, command: cat, args: [\"{}\"]}}",
            answer.display()
        );
        let text = fs::read_to_string(&kubeconfig).unwrap().replace("token: inline", &exec);
        let cluster = format!("cluster: {{proxy-url: \"http://me:p%40ss@127.0.0.1:{port}\", ");
        fs::write(&kubeconfig, text.replace("cluster: {", &cluster)).unwrap();
        (kubeconfig, answer)
    });
    let mut follower = Follower::new(by(&kubeconfig, "namespaces = [\"proxied\"]"), None);
    follower.until("a list", SOON, |view| view.seen.commits > 0).await.unwrap();
    let authority = kubernetes.url().replace("https://", "");
    assert!(asked(&heads).iter().all(|head| head.starts_with(&format!("CONNECT {authority} HTTP/1.1\r\n"))));
    let confirmed = |commits: usize| move |view: &View<'_>| view.seen.commits > commits;
    let begun = follower.view(|view| view.seen.commits);
    follower.until("a question is answered", SOON, confirmed(begun)).await.unwrap();
    let before = asked(&heads).len();
    // What asks and what is followed are nodes, services, slices and pods.
    assert!(before >= 5, "{before}");
    block_in_place(|| replace(&answer, &credential(kubernetes, "second", "system:masters")));
    follower.until("the second asks", SOON, |_| asked(&heads).len() > before).await.unwrap();
    let commits = follower.view(|view| view.seen.commits);
    follower.until("the second is answered", SOON, confirmed(commits)).await.unwrap();
    let more = asked(&heads).len() - before;
    // The question's own, and another where it is not answered soon; with those of the watches it would be five and more.
    assert!(more < 5, "{more} new connections: watches that went on need none");
    assert!(follower.view(|view| view.seen.errors.is_empty()));
    block_in_place(|| replace(&answer, &credential(kubernetes, "nobody", "none")));
    let refused =
        |view: &View<'_>| view.seen.errors.iter().any(|error| error.contains("User \"nobody\" cannot list"));
    follower.until("the third may not ask", SOON, refused).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_makes_no_tunnel_is_told_without_its_password() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    let port = proxy(Asked::default()).await;
    let kubeconfig = block_in_place(|| {
        let kubeconfig = kubernetes.kubeconfig_with_token("unproxied", "x").unwrap();
        let text = fs::read_to_string(&kubeconfig).unwrap();
        let cluster = format!("cluster: {{proxy-url: \"http://me:SECRET@127.0.0.1:{port}\", ");
        fs::write(&kubeconfig, text.replace("cluster: {", &cluster)).unwrap();
        kubeconfig
    });
    let error = by(&kubeconfig, "").rights().await.unwrap_err().to_string();
    assert!(error.contains("proxy authorization required") && !error.contains("SECRET"), "{error}");
}
