use weft_core::{
    identity::{SpiffeId, TrustDomain},
    locality::Locality,
    name::{PortName, ServiceName, WorkloadName},
    publish::Publisher,
    resource::AppProtocol,
    table::{Authorization, InboundPort},
    workload::{Workload, WorkloadPort},
};

use super::*;

fn protected() -> Arc<InboundPort> {
    let authorization =
        Authorization { trust_domain: TrustDomain::new("test.mesh").unwrap(), deny: vec![], allow: vec![] };
    let port = WorkloadPort {
        service: ServiceName::new("reviews.default").unwrap(),
        name: PortName::new("main").unwrap(),
        address: "127.0.0.1:80".parse().unwrap(),
        protocol: AppProtocol::Tcp,
    };
    Arc::new(InboundPort { port, registry: None, authorization: Arc::new(authorization) })
}

fn table(generation: u64, ports: &[&Arc<InboundPort>]) -> Table {
    let workload = Workload {
        name: WorkloadName::new("reviews").unwrap(),
        identity: SpiffeId::parse("spiffe://test.mesh/ns/default/sa/reviews").unwrap(),
        labels: Default::default(),
        locality: Locality::default(),
        ports: Vec::new(),
    };
    let key = |number| (ServiceName::new("reviews.default").unwrap(), number);
    let inbound = ports.iter().zip(1..).map(|(port, number)| (key(number), (*port).clone()));
    let inbound = inbound.collect();
    let view = View { workload: Arc::new(workload), inbound, hosts: Default::default() };
    Table { generation, views: vec![Arc::new(view)].into(), ..Table::default() }
}

#[tokio::test(flavor = "local")]
async fn open_streams_are_woken_only_by_what_may_deny_them() {
    let (old, new) = (protected(), protected());
    let mut publisher = Publisher::new(table(0, &[&old]));
    let decisions = Rc::new(Signal::default());
    LocalExecutor.spawn(watch_table(publisher.reader(), decisions.clone()));
    tokio::task::yield_now().await;
    let steps: [(&[_], u32); 5] = [(&[&old], 0), (&[&new], 1), (&[&new], 1), (&[&new, &old], 2), (&[], 3)];
    for (generation, (ports, wanted)) in (1..).zip(steps) {
        publisher.publish(table(generation, ports));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(decisions.value(), wanted, "table {generation}");
    }
}
