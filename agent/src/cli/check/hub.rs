//! A look at a hub as this host, beside an agent that may run with the same state: what answers there, whether it is the
//! mesh's own, and what it relays. Nothing is written here, and nothing is said to the hub that an agent would be held to.

use std::{path::Path, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};
use weft_core::{
    control::RelayedState,
    identity::SpiffeId,
    name::{RegistryName, ServiceName},
    registry::{OriginFault, RegistryError, Right},
};
use weft_registries::{
    BuildError, Environment, Plan,
    hub::{HubLink, HubRegistry, LinkState, RelayedStates, answers},
    probe::{Probe, probe, spelled},
};

use crate::identity::{self, StateError};

/// How long a hub that relayed all it has may take to say how its registries are.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// What was found, and the registries that the hub relays; none of them where it did not say.
pub(super) type Found = (Probe, Option<Vec<RegistryName>>);

/// Looks at the hub at `address`, or at the one that the host joined by, for at most `within`; `announced` is what the host
/// has announced there, and as whom. Must be called within a runtime.
pub(super) async fn look(
    plan: &Plan,
    state_dir: &Path,
    address: Option<&str>,
    announced: &[(ServiceName, SpiffeId)],
    within: Duration,
) -> Result<Found, BuildError> {
    let began = Instant::now();
    let hubs = address.map(str::to_owned).into_iter().collect();
    let (mut probe, relayed) = match identity::look(state_dir, hubs) {
        Ok(config) => {
            let link = HubLink::start(config);
            let found = linked(plan, &link, announced, began + within, within).await;
            link.stop();
            found?
        }
        Err(fault @ StateError::NotJoined(_)) => (strange(address, &fault, within).await, None),
        Err(fault) => (failed(&RegistryError::Malformed(fault.to_string())), None),
    };
    probe.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok((probe, relayed))
}

/// The host has nothing to ask with: whether there is anybody to join at is all that can be said.
async fn strange(address: Option<&str>, missing: &StateError, within: Duration) -> Probe {
    let Some(address) = address else {
        return failed(&RegistryError::Denied(format!("{missing}; nor does the file name a hub to join at")));
    };
    let late = |_| Err(format!("{address}: no answer within {}", spelled(within)));
    match timeout(within, answers(address)).await.unwrap_or_else(late) {
        Ok(()) => {
            let found =
                "somebody answers, and whether it is the hub and what it relays shows with an identity";
            failed(&RegistryError::Denied(format!("{address}: {found}: {missing}")))
        }
        Err(fault) => failed(&RegistryError::Unreachable(format!("{fault}; and {missing}"))),
    }
}

/// What a stream of our own shows.
async fn linked(
    plan: &Plan,
    link: &HubLink,
    announced: &[(ServiceName, SpiffeId)],
    deadline: Instant,
    within: Duration,
) -> Result<Found, BuildError> {
    let mut state = link.state();
    let is_settled = |state: &LinkState| !matches!(state, LinkState::Connecting);
    let settled = timeout_at(deadline, state.wait_for(is_settled)).await;
    let settled = settled.ok().and_then(Result::ok).map(|state| state.clone());
    let (registries, rights) = match settled {
        Some(LinkState::Connected { registries, granted, .. }) => {
            (registries.to_vec(), rights(&granted, announced))
        }
        Some(LinkState::Away { reason, .. }) => {
            return Ok((failed(&RegistryError::Unreachable(reason)), None));
        }
        Some(LinkState::Connecting) | None => {
            let late = format!("the hub has not answered within {}", spelled(within));
            return Ok((failed(&RegistryError::Unreachable(late)), None));
        }
    };
    if registries.is_empty() {
        return Ok((Probe { complete: Some(true), rights, ..Probe::default() }, Some(registries)));
    }
    let environment = Environment { hub: Some(HubRegistry::factory(link.clone())), ..Environment::default() };
    let registry = plan.build(&environment)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let mut found = probe(&*registry, &plan.limits, &[], left).await;
    found.rights.extend(rights);
    let mut told = link.relayed();
    let told = timeout(TOLD_WITHIN, told.wait_for(Option::is_some)).await;
    if let Some(states) = told.ok().and_then(Result::ok).and_then(|states| states.clone()) {
        add_states(&mut found, &states);
    }
    Ok((found, Some(registries)))
}

/// The identities as which something is announced, each with whether the host's token granted it.
fn rights(granted: &[SpiffeId], announced: &[(ServiceName, SpiffeId)]) -> Vec<Right> {
    let right = |(service, identity): &(ServiceName, SpiffeId)| Right {
        name: format!("a token that grants {identity}"),
        given: Some(granted.contains(identity)),
        needed_for: format!("announcing instances of {service}"),
        optional: false,
    };
    announced.iter().map(right).collect()
}

/// What the hub says of its registries, beside what they say through it.
fn add_states(probe: &mut Probe, states: &RelayedStates) {
    let lost = |state: &RelayedState| OriginFault {
        message: format!(
            "the hub has had no word from it for {} s: {}",
            state.down_for.unwrap_or_default().as_secs(),
            state.error
        ),
        place: state.registry.to_string(),
        keeps_last_good: true,
    };
    for state in &states.registries {
        probe.skipped.extend(state.down_for.is_some().then(|| lost(state)));
        for fault in &state.faults {
            if !probe.skipped.contains(fault) {
                probe.skipped.push(fault.clone());
            }
        }
    }
}

fn failed(error: &RegistryError) -> Probe {
    Probe { error: Some(error.to_string()), error_kind: Some(error.label()), ..Probe::default() }
}
