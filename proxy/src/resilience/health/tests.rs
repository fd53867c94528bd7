use std::sync::Arc;

use weft_core::{
    name::{InstanceName, PortName, RegistryName, ServiceName},
    resource::Endpoint,
    table::Upstream,
};

use super::*;
use crate::balance::{Failures, pick};

const SETTINGS: HealthSettings = HealthSettings {
    consecutive_failures: 3,
    base: Duration::from_secs(30),
    longest: Duration::from_secs(300),
    max_percent: 50,
};

fn set(count: usize) -> EndpointSet {
    let upstream = |index: usize| {
        let endpoint = Endpoint {
            service: ServiceName::new("reviews").unwrap(),
            port_name: PortName::new("http").unwrap(),
            instance: InstanceName::new(&format!("i{index}")).unwrap(),
            address: ([127, 0, 0, 1], 80).into(),
            mesh_address: None,
            identity: None,
            said_by: Default::default(),
            tls: Default::default(),
            labels: Default::default(),
            weight: 1,
            locality: Default::default(),
            health: Default::default(),
        };
        let registry = RegistryName::new("static").unwrap();
        Arc::new(Upstream { registry, endpoint: Arc::new(endpoint), tier: 0, state: Default::default() })
    };
    EndpointSet {
        all: (0..count).map(upstream).collect(),
        first_choice: count,
        cumulative_weights: Vec::new(),
    }
}

/// Picks the endpoint at `index`, by having tried all others.
fn pick_at(set: &EndpointSet, index: usize, now: u64) -> Picked {
    let others = set.all.iter().enumerate().filter(|(at, _)| *at != index);
    let mut tried = Failures::default();
    others.for_each(|(_, upstream)| tried.note(upstream, None));
    pick(set, &tried, now).unwrap()
}

fn see(set: &EndpointSet, index: usize, observation: Observation, now: u64) -> Option<u64> {
    let picked = pick_at(set, index, now);
    observe(&SETTINGS, set, &picked, observation, now).map(|time| time.as_secs())
}

#[test]
fn an_endpoint_that_is_gone_leaves_at_once_and_is_probed_ever_later() {
    let set = set(2);
    let mut now = 1_000;
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        assert_eq!(see(&set, 0, Observation::Gone, now), Some(seconds));
        now += seconds * 1_000;
    }
    assert_eq!(see(&set, 0, Observation::Success, now), None);
    assert_eq!(set.all[0].state.ejected_until.load(Relaxed), 0);
    assert_eq!(see(&set, 0, Observation::Gone, now), Some(1));
}

#[test]
fn failures_in_a_row_eject_and_a_success_breaks_the_row() {
    let set = set(4);
    for observation in
        [Observation::Failure, Observation::Failure, Observation::Success, Observation::Failure]
    {
        assert_eq!(see(&set, 0, observation, 1), None);
    }
    assert_eq!(see(&set, 0, Observation::Failure, 1), None);
    assert_eq!(see(&set, 0, Observation::Failure, 1), Some(30));
    // The probe fails: out again at once, and longer.
    assert_eq!(see(&set, 0, Observation::Failure, 30_001), Some(60));
}

#[test]
fn requests_that_failed_together_eject_once() {
    let set = set(2);
    let picked: Vec<_> = (0..10).map(|_| pick_at(&set, 0, 1)).collect();
    let ejections = picked.iter().filter_map(|one| observe(&SETTINGS, &set, one, Observation::Gone, 2));
    assert_eq!(ejections.collect::<Vec<_>>(), [Duration::from_secs(1)]);
}

#[test]
fn a_request_from_before_the_ejection_does_not_lift_it() {
    let set = set(2);
    let old = pick_at(&set, 0, 1);
    assert_eq!(see(&set, 0, Observation::Gone, 2), Some(1));
    observe(&SETTINGS, &set, &old, Observation::Success, 3);
    assert_ne!(set.all[0].state.ejected_until.load(Relaxed), 0);
}

#[test]
fn at_most_the_share_is_ejected_for_failing_but_any_for_being_gone() {
    let set = set(4);
    for (index, wanted) in [(0, Some(30)), (1, Some(30)), (2, None), (3, None)] {
        let mut last = None;
        for _ in 0..3 {
            last = see(&set, index, Observation::Failure, 1);
        }
        assert_eq!(last, wanted, "{index}");
    }
    assert_eq!(see(&set, 2, Observation::Gone, 1), Some(1));
}

#[test]
fn an_endpoint_that_asks_for_it_is_left_alone_for_so_long() {
    let set = set(2);
    assert_eq!(see(&set, 0, Observation::Away(Duration::from_secs(7)), 1), Some(7));
    assert_eq!(see(&set, 1, Observation::Away(Duration::from_secs(9_999)), 1), Some(300));
    // It was well: when it is missed for the first time, that is the first time.
    assert_eq!(see(&set, 0, Observation::Gone, 7_001), Some(1));
}

#[test]
fn an_only_endpoint_may_be_ejected_and_is_used_all_the_same() {
    let set = set(1);
    assert_eq!(see(&set, 0, Observation::Gone, 1), Some(1));
    let picked = pick(&set, &Failures::default(), 2).unwrap();
    observe(&SETTINGS, &set, &picked, Observation::Success, 3);
    assert_eq!(set.all[0].state.ejected_until.load(Relaxed), 0);
}

#[test]
fn responses_tell_applications_from_agents() {
    assert_eq!(Observation::of_response(200, None), Observation::Success);
    assert_eq!(Observation::of_response(500, None), Observation::Success);
    assert_eq!(Observation::of_response(503, None), Observation::Failure);
    assert_eq!(Observation::of_response(503, Some(Fault::ConnectRefused)), Observation::Gone);
    assert_eq!(Observation::of_response(403, Some(Fault::Denied)), Observation::Nothing);
}
