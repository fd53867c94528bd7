//! Something between us and Consul that lets no question wait: it answers at once, for ever.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use weft_testbed::ConsulOptions;

use crate::{
    bed::{SOON, registry, start, write},
    follower::Follower,
};

/// What is waited by, and what Consul does not know.
const INDEX: (&[u8], &[u8]) = (b"&index=", b"&xndex=");
/// Asked for by one question at a time.
const NODES: &[u8] = b"GET /v1/catalog/nodes";

/// Passes everything on to `server`, but for what makes questions wait. Counts the questions for nodes.
fn impatient(server: &str) -> (String, Arc<AtomicUsize>) {
    let server = server.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    thread::spawn(move || {
        for caller in listener.incoming().map_while(Result::ok) {
            let Ok(called) = TcpStream::connect(&server) else { continue };
            let (from, to) = (called.try_clone().unwrap(), caller.try_clone().unwrap());
            thread::spawn(move || pass(from, to, |_| {}));
            let counted = counted.clone();
            thread::spawn(move || {
                pass(caller, called, |bytes| {
                    let questions = bytes.windows(NODES.len()).filter(|it| *it == NODES).count();
                    counted.fetch_add(questions, Ordering::Relaxed);
                    for at in 0..bytes.len().saturating_sub(INDEX.0.len()) {
                        // The first parameter of a query, or a later one.
                        let word = &mut bytes[at..at + INDEX.0.len()];
                        if matches!(word[0], b'&' | b'?') && word[1..] == INDEX.0[1..] {
                            word[1..].copy_from_slice(&INDEX.1[1..]);
                        }
                    }
                });
            });
        }
    });
    (url, asked)
}

fn pass(mut from: TcpStream, mut to: TcpStream, change: impl Fn(&mut [u8])) {
    let mut bytes = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        change(&mut bytes[..length]);
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _closed = to.shutdown(Shutdown::Write);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lets_no_question_wait_is_asked_more_and_more_seldom() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    let (url, asked) = impatient(&consul.url());
    let mut follower = Follower::new(registry(&url, ""), None);
    follower.until("the list", SOON, |view| view.count("web") == 1).await.unwrap();
    // Rests of 0.1, 0.2, 0.4, 0.8 and 1.6 s lie between them; without any, six questions take a fifth of a second. They begin
    // anew when Consul writes of its own node.
    let six_that_rest = async {
        loop {
            let (began, first) = (Instant::now(), asked.load(Ordering::Relaxed));
            while asked.load(Ordering::Relaxed) < first + 6 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if began.elapsed() > Duration::from_millis(1500) {
                return;
            }
        }
    };
    tokio::time::timeout(3 * SOON, six_that_rest).await.expect("it is asked all the same, and rests");
    write(&consul, "n2", 2, "web", json!({}));
    follower.until("what is new", SOON, |view| view.count("web") == 2).await.unwrap();
}
