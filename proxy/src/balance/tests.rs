use std::collections::BTreeMap;

use weft_core::{
    name::{InstanceName, PortName, RegistryName, ServiceName},
    resource::{Endpoint, Health},
};

use super::*;

const NOW: u64 = 1_000_000;

fn upstream(index: usize, weight: u16, health: Health) -> Arc<Upstream> {
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
        weight,
        locality: Default::default(),
        health,
    };
    Arc::new(Upstream {
        registry: RegistryName::new("static").unwrap(),
        endpoint: Arc::new(endpoint),
        tier: 0,
        state: Default::default(),
    })
}

/// Endpoints by weight and health, in ranked order; weights are given to the balancer if they differ.
fn set(endpoints: &[(u16, Health)]) -> EndpointSet {
    let all: Vec<_> = endpoints
        .iter()
        .enumerate()
        .map(|(index, &(weight, health))| upstream(index, weight, health))
        .collect();
    let healthy = endpoints.iter().filter(|(_, health)| *health == Health::Healthy).count();
    let mut sum = 0;
    let weights = endpoints[..healthy].iter().map(|(weight, _)| {
        sum += u32::from(*weight);
        sum
    });
    let differ = endpoints[..healthy].windows(2).any(|pair| pair[0].0 != pair[1].0);
    let cumulative_weights = if differ { weights.collect() } else { Vec::new() };
    EndpointSet { all, first_choice: healthy, cumulative_weights }
}

fn equal(count: usize) -> EndpointSet {
    set(&vec![(1, Health::Healthy); count])
}

fn shares(set: &EndpointSet, tried: &Failures, picks: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..picks {
        let picked = pick(set, tried, NOW).unwrap();
        *shares.entry(picked.endpoint.instance.to_string()).or_default() += 1;
    }
    shares
}

fn eject(upstream: &Upstream, until: u64) {
    upstream.state.ejected_until.store(until, Relaxed);
}

#[test]
fn a_stand_by_takes_nothing_while_one_with_a_weight_can_however_busy_that_is() {
    let set = set(&[(7, Health::Healthy), (0, Health::Healthy), (0, Health::Healthy)]);
    set.all[0].state.in_flight.store(100, Relaxed);
    assert_eq!(shares(&set, &Failures::default(), 200).keys().collect::<Vec<_>>(), ["i0"]);
    eject(&set.all[0], NOW + 1000);
    assert_eq!(shares(&set, &Failures::default(), 200).keys().collect::<Vec<_>>(), ["i1", "i2"]);
}

#[test]
fn a_mesh_address_that_could_not_be_reached_counts_for_all_behind_it() {
    let at = |index, port| {
        let Upstream { endpoint, .. } = &*upstream(index, 1, Health::Healthy);
        let mesh_address = Some(([10, 0, 0, 1], port).into());
        let endpoint = Arc::new(Endpoint { mesh_address, ..Endpoint::clone(endpoint) });
        let registry = RegistryName::new("static").unwrap();
        Arc::new(Upstream { registry, endpoint, tier: 0, state: Default::default() })
    };
    let all = vec![at(0, 15008), at(1, 15008), at(2, 15008), at(3, 15009)];
    let set = EndpointSet { all, first_choice: 4, cumulative_weights: Vec::new() };
    let after = |fault| {
        let mut tried = Failures::default();
        tried.note(&set.all[0], fault);
        tried
    };
    eject(&set.all[3], NOW + 1);
    for fault in [Fault::ConnectRefused, Fault::ConnectFailed, Fault::ConnectTimeout, Fault::PeerDraining] {
        let mut tried = after(Some(fault));
        assert_eq!(shares(&set, &tried, 50).keys().collect::<Vec<_>>(), ["i3"], "{fault:?}");
        tried.note(&set.all[3], None);
        assert!(!shares(&set, &tried, 50).contains_key("i0"), "{fault:?}: those behind it may be tried yet");
    }
    for fault in [None, Some(Fault::NotHere), Some(Fault::NotDispatched), Some(Fault::TlsFailed)] {
        let shares = shares(&set, &after(fault), 200);
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["i1", "i2"], "{fault:?}");
    }
}

#[test]
fn a_stand_by_of_the_best_tier_comes_after_those_of_others() {
    let of_tier = |index, weight, tier| {
        let upstream = Arc::into_inner(upstream(index, weight, Health::Healthy)).unwrap();
        Arc::new(Upstream { tier, ..upstream })
    };
    let all = vec![of_tier(0, 1, 0), of_tier(1, 1, 3), of_tier(2, 0, 0)];
    let set = EndpointSet { all, first_choice: 1, cumulative_weights: Vec::new() };
    eject(&set.all[0], NOW + 1000);
    assert_eq!(shares(&set, &Failures::default(), 50).keys().collect::<Vec<_>>(), ["i1"]);
    eject(&set.all[1], NOW + 1000);
    assert_eq!(shares(&set, &Failures::default(), 50).keys().collect::<Vec<_>>(), ["i2"]);
}

#[test]
fn nobody_is_picked_from_nobody() {
    assert!(pick(&EndpointSet::default(), &Failures::default(), NOW).is_none());
}

#[test]
fn a_request_is_in_flight_until_it_is_dropped() {
    let set = equal(1);
    let picked = pick(&set, &Failures::default(), NOW).unwrap();
    assert_eq!(set.all[0].state.in_flight.load(Relaxed), 1);
    drop(picked);
    assert_eq!(set.all[0].state.in_flight.load(Relaxed), 0);
}

#[test]
fn idle_endpoints_share_by_weight() {
    let shares = shares(
        &set(&[(9, Health::Healthy), (1, Health::Healthy), (0, Health::Healthy)]),
        &Failures::default(),
        10_000,
    );
    assert!((8_700..9_300).contains(&shares["i0"]), "{shares:?}");
    assert!(!shares.contains_key("i2"));
}

#[test]
fn equal_endpoints_share_equally() {
    for (_, share) in shares(&equal(4), &Failures::default(), 8_000) {
        assert!((1_700..2_300).contains(&share));
    }
}

#[test]
fn requests_that_stay_spread_by_load() {
    let set = equal(10);
    let picked: Vec<_> = (0..1_000).map(|_| pick(&set, &Failures::default(), NOW).unwrap()).collect();
    let loads: Vec<_> = set.all.iter().map(|upstream| upstream.state.in_flight.load(Relaxed)).collect();
    assert!(loads.iter().all(|load| (90..=110).contains(load)), "{loads:?}");
    drop(picked);
}

#[test]
fn a_slow_endpoint_gets_less() {
    let set = equal(2);
    set.all[0].state.in_flight.store(5, Relaxed);
    assert_eq!(shares(&set, &Failures::default(), 100).keys().collect::<Vec<_>>(), ["i1"]);
}

#[test]
fn the_tried_and_the_ejected_are_passed_over() {
    let set = equal(5);
    eject(&set.all[1], NOW + 1);
    let mut tried = Failures::default();
    [&set.all[0], &set.all[3]].into_iter().for_each(|upstream| tried.note(upstream, None));
    assert_eq!(shares(&set, &tried, 200).keys().collect::<Vec<_>>(), ["i2", "i4"]);
}

#[test]
fn worse_ranks_come_in_order() {
    use Health::{Draining, Healthy, Unconfirmed, Unhealthy};
    let set = set(&[(1, Healthy), (1, Unconfirmed), (1, Draining), (1, Unhealthy)]);
    let mut tried = Failures::default();
    for wanted in ["i0", "i1", "i2", "i3"] {
        assert_eq!(shares(&set, &tried, 20).keys().collect::<Vec<_>>(), [wanted]);
        let picked = pick(&set, &tried, NOW).unwrap();
        tried.note(picked.upstream(), None);
    }
    assert_eq!(shares(&set, &tried, 20).keys().collect::<Vec<_>>(), ["i0"]);
}

#[test]
fn when_all_are_ejected_ejection_is_ignored() {
    let set = equal(3);
    for upstream in &set.all {
        eject(upstream, NOW + 10);
    }
    assert_eq!(shares(&set, &Failures::default(), 300).len(), 3);
}

#[test]
fn one_request_probes_an_endpoint_whose_ejection_is_over() {
    let set = equal(2);
    eject(&set.all[0], NOW - 1);
    let mut probes = 0;
    for _ in 0..100 {
        probes +=
            usize::from(pick(&set, &Failures::default(), NOW).unwrap().endpoint.instance.as_str() == "i0");
    }
    assert_eq!(probes, 1);
    assert_eq!(set.all[0].state.ejected_until.load(Relaxed), NOW + PROBE);
}
