use tokio::net::TcpListener;
use weft_core::{
    publish::Publisher,
    tls::{Credentials, TlsContext},
};

use super::*;
use crate::fault::Fault;

const BYTES: u64 = 256 << 20;

fn pool() -> Pool {
    let credentials = Publisher::new(Credentials::default()).reader();
    let tls = Arc::new(TlsContext::new(credentials.clone()));
    Pool::new(
        Dialer { tls, credentials, quiet: Arc::default() },
        &Limits { window_bytes: BYTES, ..Limits::default() },
    )
}

/// A place that accepts connections and says nothing.
async fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test(flavor = "local")]
async fn a_dial_that_fails_gives_its_window_back() {
    let (_listener, address) = silent().await;
    let pool = pool();
    for _ in 0..40 {
        let missed = pool.plain(address).lease(Duration::from_millis(5)).await.unwrap_err();
        assert_eq!(missed.fault, Fault::ConnectTimeout);
    }
    // The last dial ends in the same moment as its wait, by a task of its own.
    let end = Instant::now() + Duration::from_secs(10);
    while pool.shared.window_bytes.get() != BYTES {
        assert!(Instant::now() < end, "{} bytes are gone", BYTES - pool.shared.window_bytes.get());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn who_waits_for_anothers_dial_waits_no_longer_than_allowed() {
    let (_listener, address) = silent().await;
    let pool = pool();
    let patient = pool.plain(address);
    tokio::task::spawn_local(async move { patient.lease(Duration::from_secs(60)).await.map(drop) });
    tokio::task::yield_now().await;
    let began = Instant::now();
    let missed = pool.plain(address).lease(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(missed.fault, Fault::ConnectTimeout);
    assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
}
