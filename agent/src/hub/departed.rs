//! A node that is removed at one hub loses its stream at every other one.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;

use super::{
    records::{NodesTold, Records},
    roster::Roster,
    store::StoreError,
};

/// How long to wait before the store is watched again, between a half of it and one and a half.
const PAUSE: Duration = Duration::from_secs(2);

/// Ends the streams of nodes that are known no more, for ever.
pub(super) async fn follow(records: Records, roster: Arc<Roster>) {
    let mut is_away = false;
    loop {
        let ended = watch(&records, &roster, &mut is_away).await;
        // Once an outage.
        if !std::mem::replace(&mut is_away, true) {
            match ended {
                Some(fault) => tracing::warn!(%fault, "who was removed is not heard of for now"),
                None => tracing::warn!("the store ended the watch of the nodes"),
            }
        }
        tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
}

/// Watches until the store fails.
async fn watch(records: &Records, roster: &Roster, is_away: &mut bool) -> Option<StoreError> {
    let mut told = records.watch_nodes();
    while let Some(told) = told.next().await {
        let gone: Vec<String> = match told {
            Err(fault) => return Some(fault),
            Ok(NodesTold::Nothing) => Vec::new(),
            Ok(NodesTold::Gone(name)) => vec![name],
            Ok(NodesTold::All(known)) => {
                roster.nodes().into_iter().filter(|name| !known.contains(name)).collect()
            }
        };
        *is_away = false;
        for name in gone {
            // A list may hide what a token may not read; a key that may not be read is refused.
            match records.node(&name).await {
                Ok(None) => roster.end(&name),
                Ok(Some(_)) => {}
                Err(fault) => return Some(fault),
            }
        }
    }
    None
}
