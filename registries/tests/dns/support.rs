//! A server and who follows it.

use std::sync::Arc;

use weft_core::{
    config::{SourceFile, read},
    registry::Registry,
};
use weft_registries::{Environment, Plan};
use weft_testbed::{Kind, Knot, installed, required};

use crate::follower::{Follower, View};

pub(crate) const DB: &str = "[[follow]]\nservice = \"db\"\nhost = \"db.test\"\nport = 5432\n";

pub(crate) fn knot(records: &str) -> Option<Knot> {
    let home = required(installed(Kind::Knot))?;
    Some(Knot::start(&home, records).unwrap())
}

pub(crate) fn registry(resolvers: &[String], more: &str) -> Arc<dyn Registry> {
    let text = format!("kind = \"dns\"\nresolvers = {resolvers:?}\nmin_ttl = \"1s\"\n{more}");
    let source = SourceFile::new("weft.toml", text);
    let outcome = read(&source, |section| Plan::read(section, ""));
    let plan = outcome.value.unwrap_or_else(|| panic!("{:?}", outcome.faults));
    plan.build(&Environment::default()).unwrap()
}

pub(crate) fn follower(knot: &Knot, more: &str) -> Follower {
    Follower::of(registry(&[knot.address().to_string()], more))
}

/// Follows `NAME.test` as the service `NAME`.
pub(crate) fn follow(name: &str) -> String {
    format!("[[follow]]\nservice = \"{}\"\nhost = \"{name}.test\"\nport = 80\n", name.replace('.', "-"))
}

pub(crate) fn has(view: &View, service: &str, addresses: &[&str]) -> bool {
    view.addresses(service) == addresses
}
