//! How the hub's registries are, for the agents that live on what they say.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::watch;
use weft_core::{
    control::{MOST_FAULTS, RelayedState, message::RegistryStates},
    flow::{RegistryStatus, Status},
    name::RegistryName,
    publish::Reader,
    registry::OriginFault,
};

/// How one registry is. Holds only what an agent should hear of, so that it changes seldom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RegistryView {
    registry: RegistryName,
    down_since: Option<SystemTime>,
    error: String,
    faults: Vec<OriginFault>,
}

/// Follows the flow's status for as long as somebody wants to know.
pub(super) async fn follow(mut statuses: Reader<Status>, views: watch::Sender<Arc<[RegistryView]>>) {
    loop {
        let now = views_of(&statuses.load_full());
        views.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        if !statuses.changed().await {
            return;
        }
    }
}

pub(super) fn views_of(status: &Status) -> Arc<[RegistryView]> {
    status.registries.iter().map(RegistryView::of).collect()
}

/// As it is told at the moment `now`.
pub(super) fn states_of(views: &[RegistryView], now: SystemTime) -> RegistryStates {
    let state = |view: &RegistryView| {
        let state = RelayedState {
            registry: view.registry.clone(),
            down_for: view.down_since.map(|since| now.duration_since(since).unwrap_or_default()),
            error: view.error.clone(),
            faults: view.faults.clone(),
        };
        state.to_message()
    };
    RegistryStates { registries: views.iter().map(state).collect() }
}

impl RegistryView {
    fn of(status: &RegistryStatus) -> Self {
        let faults = status.scopes.iter().flat_map(|scope| &scope.faults).flat_map(|(_, faults)| faults);
        Self {
            registry: status.name.clone(),
            down_since: status.down_since,
            error: status.last_error.clone().unwrap_or_default(),
            faults: faults.take(MOST_FAULTS).cloned().collect(),
        }
    }
}
