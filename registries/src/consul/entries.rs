//! Consul's config entries, as far as they mean something here. Fields that are read only so that a person is told that
//! they mean nothing here are kept as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is declared of a service, or under the name `global` of all.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Defaults {
    /// The service.
    pub name: String,
    /// What it speaks.
    pub protocol: String,
    /// Of `proxy-defaults`: where the protocol stands.
    #[serde(deserialize_with = "or_default")]
    pub config: BTreeMap<String, Value>,
}

/// How a service's instances are found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Resolver {
    /// The service.
    pub name: String,
    /// The subset of calls that name none.
    pub default_subset: String,
    /// Subsets by name.
    #[serde(deserialize_with = "or_default")]
    pub subsets: BTreeMap<String, Subset>,
    /// Another service instead.
    pub redirect: Option<Redirect>,
    /// Not taken over.
    #[serde(deserialize_with = "or_default")]
    pub failover: BTreeMap<String, Value>,
    /// How long a connection may take.
    #[serde(deserialize_with = "or_default")]
    pub connect_timeout: String,
    /// How long a request may take.
    #[serde(deserialize_with = "or_default")]
    pub request_timeout: String,
    /// Not taken over.
    pub load_balancer: Option<Value>,
}

/// Some instances of a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Subset {
    /// An expression over an instance.
    #[serde(deserialize_with = "or_default")]
    pub filter: String,
    /// Not taken over.
    pub only_passing: bool,
}

/// Where calls go instead.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Redirect {
    /// The service; empty for the same one.
    pub service: String,
    /// Its subset.
    pub service_subset: String,
    /// What is not this datacenter cannot be routed to.
    pub datacenter: String,
    /// Likewise.
    pub peer: String,
    /// Likewise.
    pub namespace: String,
    /// Likewise.
    pub partition: String,
    /// Likewise.
    pub sameness_group: String,
}

/// How calls of a service are spread.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Splitter {
    /// The service.
    pub name: String,
    /// Its parts.
    #[serde(deserialize_with = "or_default")]
    pub splits: Vec<Split>,
}

/// One part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Split {
    /// Percents, to a hundredth.
    pub weight: f64,
    /// The service; empty for the splitter's own.
    pub service: String,
    /// Its subset.
    pub service_subset: String,
    /// Not taken over.
    pub request_headers: Option<Value>,
    /// Not taken over.
    pub response_headers: Option<Value>,
}

/// Which calls of a service go where.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Router {
    /// The service.
    pub name: String,
    /// In order.
    #[serde(deserialize_with = "or_default")]
    pub routes: Vec<RouterRoute>,
}

/// One rule of a router.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RouterRoute {
    /// Which calls; all when there is none.
    pub r#match: Option<Match>,
    /// Where to; the service itself when there is none.
    pub destination: Option<Destination>,
}

/// The conditions of a rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Match {
    /// On HTTP.
    #[serde(rename = "HTTP")]
    pub http: Option<HttpMatch>,
}

/// Conditions on a request, of a rule or of a permission.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HttpMatch {
    /// The whole path.
    pub path_exact: String,
    /// How the path begins, wherever that ends.
    pub path_prefix: String,
    /// An expression over the whole path.
    pub path_regex: String,
    /// Whether case counts in the path.
    pub case_insensitive: bool,
    /// Headers, all of which must match.
    #[serde(deserialize_with = "or_default")]
    pub header: Vec<ValueMatch>,
    /// Not taken over.
    #[serde(deserialize_with = "or_default")]
    pub query_param: Vec<Value>,
    /// Methods, one of which must match.
    #[serde(deserialize_with = "or_default")]
    pub methods: Vec<String>,
}

/// A condition on a header.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ValueMatch {
    /// The header.
    pub name: String,
    /// Whether it is there.
    pub present: bool,
    /// The whole value.
    pub exact: String,
    /// How the value begins.
    pub prefix: String,
    /// How the value ends.
    pub suffix: String,
    /// What is in it.
    pub contains: String,
    /// An expression over the whole value.
    pub regex: String,
    /// Whether the condition must not hold.
    pub invert: bool,
    /// Whether case counts not.
    pub ignore_case: bool,
}

/// Where calls go, and how.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Destination {
    /// The service; empty for the router's own.
    pub service: String,
    /// Its subset.
    pub service_subset: String,
    /// What is not this datacenter's cannot be routed to.
    pub namespace: String,
    /// Likewise.
    pub partition: String,
    /// Not taken over.
    pub prefix_rewrite: String,
    /// How long a request may take.
    #[serde(deserialize_with = "or_default")]
    pub request_timeout: String,
    /// Not taken over.
    #[serde(deserialize_with = "or_default")]
    pub idle_timeout: String,
    /// Tries after the first.
    pub num_retries: u32,
    /// Always done here.
    pub retry_on_connect_failure: bool,
    /// Conditions in Envoy's words.
    #[serde(deserialize_with = "or_default")]
    pub retry_on: Vec<String>,
    /// Statuses.
    #[serde(deserialize_with = "or_default")]
    pub retry_on_status_codes: Vec<u16>,
    /// Not taken over.
    pub request_headers: Option<Value>,
    /// Not taken over.
    pub response_headers: Option<Value>,
}

/// Who may call a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Intentions {
    /// The service, or `*`.
    pub name: String,
    /// Callers.
    #[serde(deserialize_with = "or_default")]
    pub sources: Vec<Source>,
    /// Cannot be checked here.
    #[serde(rename = "JWT")]
    pub jwt: Option<Value>,
}

/// One caller.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Source {
    /// A service, or `*`.
    pub name: String,
    /// `allow` or `deny`; empty with permissions.
    pub action: String,
    /// In order, the first that matches decides.
    #[serde(deserialize_with = "or_default")]
    pub permissions: Vec<Permission>,
    /// A caller of another cluster, who cannot be named here.
    pub peer: String,
    /// Likewise.
    pub sameness_group: String,
}

/// What a caller may or may not do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Permission {
    /// `allow` or `deny`.
    pub action: String,
    /// What is asked.
    #[serde(rename = "HTTP")]
    pub http: Option<HttpMatch>,
    /// Cannot be checked here.
    #[serde(rename = "JWT")]
    pub jwt: Option<Value>,
}

/// One key of KV.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pair {
    /// The whole key.
    pub key: String,
    /// Its value in base64; none when it is empty.
    pub value: Option<String>,
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}
