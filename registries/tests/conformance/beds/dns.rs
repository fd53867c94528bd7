//! Names of a zone: as many addresses as instances. Rules of the file say who answers there, as names say nothing of it.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use weft_core::{
    config::{SourceFile, read},
    name::RegistryName,
    registry::Registry,
};
use weft_registries::Environment;
use weft_testbed::{Kind, Knot, installed, required};

use crate::bed::Bed;

pub(super) fn open() -> Option<Box<dyn Bed>> {
    let home = required(installed(Kind::Knot))?;
    let knot = Knot::start(&home, "").unwrap();
    Some(Box::new(DnsBed { knot, instances: BTreeMap::new() }))
}

struct DnsBed {
    knot: Knot,
    instances: BTreeMap<String, usize>,
}

impl Bed for DnsBed {
    fn registry(&self) -> Arc<dyn Registry> {
        let mut text = format!(
            "resolvers = [\"{}\"]\nmin_ttl = \"1s\"\nmesh_port = 15008\n\
             identity = \"spiffe://test.mesh/ns/{{namespace}}/sa/{{service}}\"\n",
            self.knot.address()
        );
        for service in ["web", "api", "late"] {
            write!(text, "[[follow]]\nservice = \"{service}\"\nhost = \"{service}.test\"\nport = 8080\n")
                .unwrap();
        }
        let source = SourceFile::new("weft.toml", text);
        let settings = read(&source, |section| weft_registries::dns::read(section));
        let settings = settings.value.unwrap_or_else(|| panic!("{:?}", settings.faults));
        settings.build(&RegistryName::new("dns").unwrap(), &Environment::default()).unwrap()
    }

    fn scale(&mut self, service: &str, instances: usize) {
        self.instances.insert(service.into(), instances);
        let lines = self.instances.iter().flat_map(|(service, instances)| {
            (1..=*instances).map(move |number| format!("{service} A 10.0.0.{number}\n"))
        });
        self.knot.set(&lines.collect::<String>()).unwrap();
    }

    fn kill(&mut self) {
        self.knot.process().kill();
    }

    fn restart(&mut self) {
        self.knot.restart().unwrap();
    }
}
