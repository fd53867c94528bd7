//! The server that leads is killed while hubs write and compete.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;
use weft_agent::hub::store::{Expected, LeaseId, Put, Store, StoreError};

use crate::support::{blocking, eventually};

/// How often the leader is killed.
const KILLS: usize = 2;
/// How many write at a time.
const WRITERS: usize = 8;
/// How many compete for one lease.
const RIVALS: usize = 4;
/// How many writes are accepted between two events.
const PHASE: u64 = 300;

/// Servers that elect a leader.
pub(crate) trait Cluster: Sync {
    /// Kills the leader, and waits until the others have another one. Blocks.
    fn kill_leader(&self);
    /// Starts what does not run. Blocks.
    fn heal(&self);
}

/// No write that was accepted is lost, and no lease is held by two at a time.
pub(crate) async fn leader_killed_under_load<C: Cluster>(
    cluster: &C,
    store: impl Fn() -> Arc<dyn Store>,
    ttl: Duration,
) {
    let (over, written, held) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(store(), writer, written.clone(), over.clone()));
    }
    let mut rivals = JoinSet::new();
    for _ in 0..RIVALS {
        rivals.spawn(compete(store(), ttl, held.clone(), over.clone()));
    }
    let phase = async || {
        let (wanted, turns) = (written.load(Ordering::Relaxed) + PHASE, held.load(Ordering::Relaxed) + 1);
        eventually("writes and leases are given", async || {
            written.load(Ordering::Relaxed) >= wanted && held.load(Ordering::Relaxed) >= turns
        })
        .await;
    };
    phase().await;
    for _ in 0..KILLS {
        blocking(|| cluster.kill_leader());
        phase().await;
        blocking(|| cluster.heal());
        phase().await;
    }
    over.store(true, Ordering::Relaxed);
    let mut accepted = BTreeMap::new();
    let mut unanswered = 0;
    for (keys, lost) in writers.join_all().await {
        accepted.extend(keys);
        unanswered += lost;
    }
    let mut intervals: Vec<_> = rivals.join_all().await.into_iter().flatten().collect();
    let listed = store().list("load/").await.unwrap();
    let listed: BTreeMap<String, Bytes> = listed.into_iter().map(|entry| (entry.key, entry.value)).collect();
    for (key, value) in &accepted {
        assert_eq!(listed.get(key), Some(value), "{key} was accepted");
    }
    println!("{} writes accepted, {unanswered} not answered, {} turns", accepted.len(), intervals.len());
    intervals.sort_by_key(|(from, _)| *from);
    for pair in intervals.windows(2) {
        let overlap = pair[0].1.saturating_duration_since(pair[1].0);
        assert!(overlap.is_zero(), "two held it for {overlap:?}");
    }
    assert!(intervals.len() > 2 * KILLS, "it changed hands");
}

/// Writes key after key, each twice; gives what was accepted last, and how many answers were lost.
async fn write(
    store: Arc<dyn Store>,
    writer: usize,
    written: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
) -> (BTreeMap<String, Bytes>, usize) {
    let (mut accepted, mut unanswered) = (BTreeMap::new(), 0);
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("load/{writer}/{number}");
        let value = Bytes::from(format!("{writer}-{number}"));
        match store.swap(&key, Expected::Absent, Some(Put::durable(value.clone()))).await {
            Ok(true) => {
                accepted.insert(key, value);
                written.fetch_add(1, Ordering::Relaxed);
            }
            Ok(false) => panic!("nobody else writes {key}"),
            Err(StoreError::Unreachable(_)) => {
                unanswered += 1;
                // On a busy machine those who elect need the time more.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(fault) => panic!("{fault}"),
        }
    }
    (accepted, unanswered)
}

/// Takes the one key with a lease, holds it, lets it go, over and over; gives when it was sure to hold it.
async fn compete(
    store: Arc<dyn Store>,
    ttl: Duration,
    held: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
) -> Vec<(Instant, Instant)> {
    let mut intervals = Vec::new();
    while !over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(10..50))).await;
        let sent = Instant::now();
        let Ok(lease) = store.grant(ttl).await else { continue };
        let put = Put { lease: Some(lease.clone()), ..Put::durable(lease_text(&lease)) };
        if store.swap("turn", Expected::Absent, Some(put)).await == Ok(true) {
            let (from, until) = hold(&*store, &lease, sent + ttl, ttl).await;
            // Not when the lease was over before the key was given.
            if until > from {
                intervals.push((from, until));
                held.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Where that fails it ends by itself. What was not answered may have been given.
        let _ended = store.revoke(&lease).await;
    }
    intervals
}

fn lease_text(lease: &LeaseId) -> String {
    format!("{lease:?}")
}

/// Holds the lease for a while; gives from when until when that was sure.
async fn hold(
    store: &dyn Store,
    lease: &LeaseId,
    mut sure_until: Instant,
    ttl: Duration,
) -> (Instant, Instant) {
    let from = Instant::now();
    let stop = from + Duration::from_millis(fastrand::u64(100..1500));
    while Instant::now() < stop.min(sure_until) {
        let sent = Instant::now();
        match store.keep_alive(lease).await {
            Ok(true) => sure_until = sent + ttl,
            Ok(false) => {
                assert!(Instant::now() >= sure_until, "the lease ended early");
                break;
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (from, Instant::now().min(sure_until))
}
