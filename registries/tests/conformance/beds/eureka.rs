//! A Eureka server. It forgets everything when it dies, so what it held is registered again, as applications do with
//! their next heartbeat.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use weft_core::{
    config::{SourceFile, read},
    name::RegistryName,
    registry::Registry,
};
use weft_registries::{Environment, Plan};
use weft_testbed::{Eureka, EurekaOptions, Kind, installed, required};

use crate::bed::{Bed, identity};

struct Server {
    eureka: Eureka,
    instances: BTreeMap<String, usize>,
}

pub(crate) fn open() -> Option<Box<dyn Bed>> {
    let home = required(installed(Kind::Eureka))?;
    let eureka = Eureka::start(&home, EurekaOptions::default()).unwrap();
    Some(Box::new(Server { eureka, instances: BTreeMap::new() }))
}

impl Server {
    fn put(&self, service: &str, number: usize) {
        self.eureka.register(&instance(service, number)).unwrap();
    }

    fn call(&self, method: &str, service: &str, number: usize, rest: &str) {
        let path = format!("apps/{}/{service}-{number}{rest}", service.to_uppercase());
        self.eureka.call(method, &path, "").unwrap().success(method).unwrap();
    }
}

/// Its lease outlives the suite without a heartbeat.
fn instance(service: &str, number: usize) -> Value {
    let host = format!("10.0.0.{number}");
    json!({ "instance": {
        "instanceId": format!("{service}-{number}"), "app": service.to_uppercase(), "hostName": host, "ipAddr": host,
        "status": "UP", "vipAddress": service, "port": { "$": 8080, "@enabled": "true" },
        "metadata": { "weft-mesh-port": "15008", "weft-identity": identity(service) },
        "leaseInfo": { "durationInSecs": 86_400 },
        "dataCenterInfo": { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" },
    }})
}

impl Bed for Server {
    fn registry(&self) -> Arc<dyn Registry> {
        let text = format!("kind = \"eureka\"\naddress = \"{}\"\npoll = \"1s\"\n", self.eureka.url());
        let plan =
            read(&SourceFile::new("weft.toml", text), |section| Plan::read(section, "")).value.unwrap();
        assert_eq!(plan.name.value, RegistryName::new("eureka").unwrap());
        plan.build(&Environment::default()).unwrap()
    }

    fn scale(&mut self, service: &str, instances: usize) {
        let before = self.instances.insert(service.into(), instances).unwrap_or(0);
        (before..instances).for_each(|number| self.put(service, number + 1));
        (instances..before).for_each(|number| self.call("DELETE", service, number + 1, ""));
    }

    fn ail(&mut self, service: &str, ails: bool) {
        let (method, value) = if ails { ("PUT", "DOWN") } else { ("DELETE", "UP") };
        self.call(method, service, 1, &format!("/status?value={value}"));
    }

    fn kill(&mut self) {
        self.eureka.kill();
    }

    fn restart(&mut self) {
        self.eureka.restart().unwrap();
        for (service, instances) in &self.instances {
            (0..*instances).for_each(|number| self.put(service, number + 1));
        }
    }
}
