//! A look at a hub as this host, beside an agent that may run with the same state: what answers there, whether it is the
//! mesh's own, and what it relays. Nothing is written here, and nothing is said to the hub that an agent would be held to.

use std::{path::Path, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};
use weft_core::{
    control::RelayedState,
    identity::SpiffeId,
    name::{InstanceName, RegistryName, ServiceName},
    registry::{OriginFault, RegistryError, Right},
};
use weft_registries::{
    BuildError, Environment, Plan,
    hub::{HubLink, HubRegistry, LinkState, RelayedStates, answers},
    probe::{Probe, probe, spelled},
};

use crate::{
    hub::records::is_of_node,
    identity::{self, StateError},
};

/// How long a hub that relayed all it has may take to say how its registries are.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// What was found, and the registries that the hub relays; none of them where it did not say.
pub(super) type Found = (Probe, Option<Vec<RegistryName>>);

/// What the host announces at a hub.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    /// Each service, and as whom.
    pub(super) services: Vec<(ServiceName, SpiffeId)>,
    /// What the file says that instances' names begin with; none for the node's name.
    pub(super) instance: Option<InstanceName>,
}

/// Looks at the hub at `address`, or at the one that the host joined by, for at most `within`; `announced` is what the host
/// announces there. Must be called within a runtime.
pub(super) async fn look(
    plan: &Plan,
    state_dir: &Path,
    address: Option<&str>,
    announced: &Announced,
    within: Duration,
) -> Result<Found, BuildError> {
    let began = Instant::now();
    let hubs = address.map(str::to_owned).into_iter().collect();
    let (mut probe, relayed) = match identity::look(state_dir, hubs) {
        Ok(config) => {
            let node = config.node_name.clone();
            let link = HubLink::start(config);
            let found = linked(plan, &link, (&node, announced), began + within, within).await;
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
    (node, announced): (&str, &Announced),
    deadline: Instant,
    within: Duration,
) -> Result<Found, BuildError> {
    let mut state = link.state();
    let is_settled = |state: &LinkState| !matches!(state, LinkState::Connecting);
    let settled = timeout_at(deadline, state.wait_for(is_settled)).await;
    let settled = settled.ok().and_then(Result::ok).map(|state| state.clone());
    let (registries, rights) = match settled {
        Some(LinkState::Connected { registries, granted, .. }) => {
            (registries.to_vec(), rights(&granted, node, announced))
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

/// The identities as which something is announced, each with whether the host's token granted it; and the name, where it is
/// none of the node's.
fn rights(granted: &[SpiffeId], node: &str, announced: &Announced) -> Vec<Right> {
    let right = |(service, identity): &(ServiceName, SpiffeId)| Right {
        name: format!("a token that grants {identity}"),
        given: Some(granted.contains(identity)),
        needed_for: format!("announcing instances of {service}"),
        optional: false,
    };
    let foreign = announced.instance.as_ref().filter(|instance| !is_of_node(instance.as_str(), node));
    let named = foreign.filter(|_| !announced.services.is_empty()).map(|instance| Right {
        name: format!("instances called `{instance}.…`, for those of node {node} are `{node}.…`"),
        given: Some(false),
        needed_for: "announcing anything with that `[announce] instance`".into(),
        optional: false,
    });
    announced.services.iter().map(right).chain(named).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_instances_that_the_hub_refuses_is_told() {
        let identity = SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/web").unwrap();
        let missing = |instance: Option<&str>, services: usize| {
            let services = vec![("web.default".parse().unwrap(), identity.clone()); services];
            let announced = Announced { services, instance: instance.map(|it| it.parse().unwrap()) };
            let rights = rights(std::slice::from_ref(&identity), "one", &announced).into_iter();
            rights.filter(|right| right.given == Some(false)).map(|right| right.name).collect::<Vec<_>>()
        };
        let refused = ["instances called `host-5.…`, for those of node one are `one.…`"];
        assert_eq!(missing(Some("host-5"), 1), refused);
        assert_eq!(missing(Some("host-5"), 0), [""; 0], "nothing is announced there");
        assert_eq!(
            [missing(Some("one"), 1), missing(Some("one.a"), 1), missing(None, 1)],
            [(); 3].map(|()| Vec::<String>::new())
        );
    }
}
