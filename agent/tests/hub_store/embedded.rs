//! The store of a single hub, in its own file.

use std::{path::Path, sync::Arc, time::Duration};

use weft_agent::hub::store::{EmbeddedStore, Expected, Put, Store};

use crate::{
    contract,
    support::{Bed, eventually},
};

fn bed(folder: &Path) -> Bed {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder).unwrap());
    let lease = Duration::from_secs(4);
    Bed { stores: [store.clone(), store], lease: (lease, lease * 4) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hubs_own_file_keeps_to_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    contract::all(&bed(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_last_their_whole_time_again_after_a_restart_and_then_end() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(folder.path());
    let lease = bed.stores[0].grant(bed.lease.0).await.unwrap();
    let put = Put { lease: Some(lease.clone()), ..Put::durable("x") };
    assert!(bed.stores[0].swap("leased", Expected::Absent, Some(put)).await.unwrap());
    drop(bed);
    let store = EmbeddedStore::open(folder.path()).unwrap();
    assert!(store.keep_alive(&lease).await.unwrap());
    assert!(store.get("leased").await.unwrap().is_some());
    eventually("the end of the lease", async || store.get("leased").await.unwrap().is_none()).await;
    assert!(!store.keep_alive(&lease).await.unwrap());
}
