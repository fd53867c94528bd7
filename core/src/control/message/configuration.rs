//! Routes and policies. They change rarely, so their strings stand in place.
//!
//! A reader skips fields that it does not know, and a condition skipped is a rule that matches more: a new condition
//! is therefore a new version of the words, never just a new field.

use prost::{Enumeration, Message};

/// The routing of one service.
#[derive(Clone, PartialEq, Message)]
pub struct Route {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The service, `name.namespace`.
    #[prost(string, tag = "2")]
    pub service: String,
    /// The rules in order.
    #[prost(message, repeated, tag = "3")]
    pub rules: Vec<RouteRule>,
}

/// One rule of a route.
#[derive(Clone, PartialEq, Message)]
pub struct RouteRule {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Alternatives.
    #[prost(message, repeated, tag = "2")]
    pub matches: Vec<RouteMatch>,
    /// Where to.
    #[prost(message, repeated, tag = "3")]
    pub backends: Vec<Backend>,
    /// Until the response's head; zero means no limit.
    #[prost(message, optional, tag = "4")]
    pub request_timeout: Option<Duration>,
    /// Until a connection is made.
    #[prost(message, optional, tag = "5")]
    pub connect_timeout: Option<Duration>,
    /// Tries after the first.
    #[prost(uint32, tag = "6")]
    pub attempts: u32,
    /// Whether gateway errors of idempotent requests are tried again.
    #[prost(bool, tag = "7")]
    pub on_gateway_error: bool,
    /// Whether requests of every method count as idempotent.
    #[prost(bool, tag = "8")]
    pub all_methods: bool,
}

/// A length of time.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Duration {
    /// Whole seconds.
    #[prost(uint64, tag = "1")]
    pub seconds: u64,
    /// The rest, below 1 000 000 000.
    #[prost(uint32, tag = "2")]
    pub nanoseconds: u32,
}

/// Conditions that must hold together.
#[derive(Clone, PartialEq, Message)]
pub struct RouteMatch {
    /// The normalised path.
    #[prost(message, optional, tag = "1")]
    pub path: Option<TextMatch>,
    /// The method; empty for any.
    #[prost(string, tag = "2")]
    pub method: String,
    /// Headers.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<HeaderMatch>,
}

/// A condition on a text.
#[derive(Clone, PartialEq, Message)]
pub struct TextMatch {
    /// How it is compared.
    #[prost(enumeration = "TextMatchKind", tag = "1")]
    pub kind: i32,
    /// With what; empty for a test of presence.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// How a text is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum TextMatchKind {
    /// Not said: refused.
    Unspecified = 0,
    /// The whole text.
    Exact = 1,
    /// How it begins; for a path, by whole segments.
    Prefix = 2,
    /// A regular expression over the whole text.
    Regex = 3,
    /// That it is there.
    Present = 4,
    /// That it is not there.
    Absent = 5,
}

/// A condition on a header.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderMatch {
    /// Lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<TextMatch>,
}

/// One destination.
#[derive(Clone, PartialEq, Message)]
pub struct Backend {
    /// The service; empty means the route's own.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Labels that endpoints must carry, sorted by key.
    #[prost(message, repeated, tag = "2")]
    pub subset: Vec<Label>,
    /// Relative share.
    #[prost(uint32, tag = "3")]
    pub weight: u32,
}

/// One label.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// Its key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// An authorization policy.
#[derive(Clone, PartialEq, Message)]
pub struct Policy {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it protects.
    #[prost(message, optional, tag = "2")]
    pub target: Option<PolicyTarget>,
    /// 1 allow, 2 deny; any other value is refused.
    #[prost(uint32, tag = "3")]
    pub action: u32,
    /// Alternatives.
    #[prost(message, repeated, tag = "4")]
    pub rules: Vec<PolicyRule>,
}

/// What a policy protects.
#[derive(Clone, PartialEq, Message)]
pub struct PolicyTarget {
    /// 1 the whole mesh, 2 a service, 3 an identity; any other value is refused.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// The service or identity; empty for the mesh.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// One rule of a policy.
#[derive(Clone, PartialEq, Message)]
pub struct PolicyRule {
    /// Its name; empty for none.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Callers.
    #[prost(message, repeated, tag = "2")]
    pub from: Vec<PrincipalMatch>,
    /// Operations.
    #[prost(message, repeated, tag = "3")]
    pub to: Vec<Operation>,
}

/// A condition on the caller: an identity, or a trust domain with or without a namespace.
#[derive(Clone, PartialEq, Message)]
pub struct PrincipalMatch {
    /// This identity.
    #[prost(string, tag = "1")]
    pub identity: String,
    /// Any identity of this trust domain.
    #[prost(string, tag = "2")]
    pub trust_domain: String,
    /// And of this namespace.
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// A condition on what is asked.
#[derive(Clone, PartialEq, Message)]
pub struct Operation {
    /// Methods.
    #[prost(string, repeated, tag = "1")]
    pub methods: Vec<String>,
    /// Paths.
    #[prost(string, repeated, tag = "2")]
    pub paths: Vec<String>,
    /// Ports.
    #[prost(uint32, repeated, tag = "3")]
    pub ports: Vec<u32>,
}
