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

fn shares(set: &EndpointSet, tried: &[Arc<EndpointState>], picks: usize) -> BTreeMap<String, usize> {
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
    assert_eq!(shares(&set, &[], 200).keys().collect::<Vec<_>>(), ["i0"]);
    eject(&set.all[0], NOW + 1000);
    assert_eq!(shares(&set, &[], 200).keys().collect::<Vec<_>>(), ["i1", "i2"]);
}

#[test]
fn nobody_is_picked_from_nobody() {
    assert!(pick(&EndpointSet::default(), &[], NOW).is_none());
}

#[test]
fn a_request_is_in_flight_until_it_is_dropped() {
    let set = equal(1);
    let picked = pick(&set, &[], NOW).unwrap();
    assert_eq!(set.all[0].state.in_flight.load(Relaxed), 1);
    drop(picked);
    assert_eq!(set.all[0].state.in_flight.load(Relaxed), 0);
}

#[test]
fn idle_endpoints_share_by_weight() {
    let shares =
        shares(&set(&[(9, Health::Healthy), (1, Health::Healthy), (0, Health::Healthy)]), &[], 10_000);
    assert!((8_700..9_300).contains(&shares["i0"]), "{shares:?}");
    assert!(!shares.contains_key("i2"));
}

#[test]
fn equal_endpoints_share_equally() {
    for (_, share) in shares(&equal(4), &[], 8_000) {
        assert!((1_700..2_300).contains(&share));
    }
}

#[test]
fn requests_that_stay_spread_by_load() {
    let set = equal(10);
    let picked: Vec<_> = (0..1_000).map(|_| pick(&set, &[], NOW).unwrap()).collect();
    let loads: Vec<_> = set.all.iter().map(|upstream| upstream.state.in_flight.load(Relaxed)).collect();
    assert!(loads.iter().all(|load| (90..=110).contains(load)), "{loads:?}");
    drop(picked);
}

#[test]
fn a_slow_endpoint_gets_less() {
    let set = equal(2);
    set.all[0].state.in_flight.store(5, Relaxed);
    assert_eq!(shares(&set, &[], 100).keys().collect::<Vec<_>>(), ["i1"]);
}

#[test]
fn the_tried_and_the_ejected_are_passed_over() {
    let set = equal(5);
    eject(&set.all[1], NOW + 1);
    let tried = [set.all[0].state.clone(), set.all[3].state.clone()];
    assert_eq!(shares(&set, &tried, 200).keys().collect::<Vec<_>>(), ["i2", "i4"]);
}

#[test]
fn worse_ranks_come_in_order() {
    use Health::{Draining, Healthy, Unconfirmed, Unhealthy};
    let set = set(&[(1, Healthy), (1, Draining), (1, Unhealthy), (1, Unconfirmed)]);
    let mut tried = Vec::new();
    for wanted in ["i0", "i1", "i2", "i3"] {
        assert_eq!(shares(&set, &tried, 20).keys().collect::<Vec<_>>(), [wanted]);
        let picked = pick(&set, &tried, NOW).unwrap();
        tried.push(picked.upstream().state.clone());
    }
    assert_eq!(shares(&set, &tried, 20).keys().collect::<Vec<_>>(), ["i0"]);
}

#[test]
fn when_all_are_ejected_ejection_is_ignored() {
    let set = equal(3);
    for upstream in &set.all {
        eject(upstream, NOW + 10);
    }
    assert_eq!(shares(&set, &[], 300).len(), 3);
}

#[test]
fn one_request_probes_an_endpoint_whose_ejection_is_over() {
    let set = equal(2);
    eject(&set.all[0], NOW - 1);
    let mut probes = 0;
    for _ in 0..100 {
        probes += usize::from(pick(&set, &[], NOW).unwrap().endpoint.instance.as_str() == "i0");
    }
    assert_eq!(probes, 1);
    assert_eq!(set.all[0].state.ejected_until.load(Relaxed), NOW + PROBE);
}
