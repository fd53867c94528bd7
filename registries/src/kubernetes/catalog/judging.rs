//! What is to be written into objects of ours: whether what they say counts, and what it lacks.

use std::collections::BTreeSet;

use weft_core::{
    name::ServiceName,
    resource::{Route, hidden},
};

use super::Catalog;
use crate::kubernetes::{
    compact::Key,
    configured::{Judgement, Meaning, Verdict},
    objects::Kind,
};

impl Catalog {
    /// What is to be written into objects of ours since the last call. Only while all is listed: which services a route
    /// lacks is not known before.
    pub(in crate::kubernetes) fn take_verdicts(&mut self) -> Vec<Verdict> {
        if std::mem::take(&mut self.services_moved) {
            let routes = self.told.keys().filter(|(kind, _)| *kind == Kind::Routes);
            self.unjudged.extend(routes.cloned());
        }
        let unjudged = std::mem::take(&mut self.unjudged);
        unjudged.iter().filter_map(|subject| self.verdict(subject)).collect()
    }

    fn verdict(&self, subject: &(Kind, Key)) -> Option<Verdict> {
        let ((meta, said), meaning) = (self.told.get(subject)?, self.configured.get(subject)?);
        let looks = subject.0 == Kind::Routes && meaning.refusal.is_none();
        let missing = looks.then(|| self.missing_backends(meaning));
        Verdict::new(subject.0, meta, said, &self.judge(meaning), missing.as_deref())
    }

    fn judge<'a>(&self, meaning: &'a Meaning) -> Judgement<'a> {
        if let Some(why) = &meaning.refusal {
            return Judgement::Invalid(why);
        }
        let hidden = meaning.route().and_then(|route| {
            let others = self.routes_for(&route.service).map(|(_, other)| other);
            let mut routes: Vec<&Route> = others.filter(|other| other.name < route.name).collect();
            routes.sort_by_key(|other| &other.name);
            routes.push(route);
            hidden(&routes).pop().flatten()
        });
        match hidden {
            Some(hidden) if hidden.is_whole => Judgement::Conflicted(hidden.message),
            hidden => Judgement::Accepted { but: hidden.map(|hidden| hidden.message).unwrap_or_default() },
        }
    }

    /// The routes for a service, and which objects they are.
    pub(super) fn routes_for(&self, service: &ServiceName) -> impl Iterator<Item = (&(Kind, Key), &Route)> {
        let routes = self.configured.iter().filter(|((kind, _), _)| *kind == Kind::Routes);
        let routes = routes.filter_map(|(subject, meaning)| Some((subject, meaning.route()?)));
        routes.filter(move |(_, route)| route.service == *service)
    }

    /// The services of a route's backends that are not there. What is not followed may be.
    fn missing_backends(&self, meaning: &Meaning) -> Vec<String> {
        let is_missing = |service: &&ServiceName| {
            let Some((name, namespace)) = service.as_str().split_once('.') else { return false };
            let key: Key = format!("{namespace}/{name}").into();
            let is_there = self.services.get(&key).is_some_and(|entry| entry.service.is_some());
            !is_there && self.conversion.follows(&key)
        };
        let missing: BTreeSet<_> = meaning.backends().filter(is_missing).collect();
        missing.into_iter().map(ToString::to_string).collect()
    }
}
