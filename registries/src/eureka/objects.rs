//! What Eureka's documents hold, read as clients of many ages write them: numbers as texts, lists of one without brackets,
//! fields that are null or missing. What an instance says wrongly costs that instance alone.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// How long an instance lives without a heartbeat when it does not say, in seconds.
pub(super) const DEFAULT_DURATION: u64 = 90;
/// How often an instance renews its lease when it does not say, in seconds.
pub(super) const DEFAULT_RENEWAL: u64 = 30;

/// The statuses that Eureka knows.
pub(super) const STATUSES: [&str; 5] = ["UP", "DOWN", "STARTING", "OUT_OF_SERVICE", "UNKNOWN"];

/// How many instances there are of each status, as servers and clients write it to compare what they have: in the order of
/// the statuses, without those that nobody has.
pub(super) fn status_counts(counts: BTreeMap<&str, usize>) -> String {
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    counts.map(|(status, count)| format!("{status}_{count}_")).collect()
}

/// One instance, checked for nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instance {
    /// What it is called among those of its application.
    pub(super) id: String,
    /// Its application, in upper case.
    pub(super) app: String,
    /// Its host name, often an address.
    pub(super) host: String,
    /// Its address.
    pub(super) ip: String,
    /// How it is, what an operator said about it counted.
    pub(super) status: String,
    /// What an operator said; `UNKNOWN` when nobody did.
    pub(super) overridden: String,
    pub(super) port: Port,
    pub(super) secure_port: Port,
    /// The names by which it is found, separated by commas.
    pub(super) vip: String,
    /// The same for its secure port.
    pub(super) secure_vip: String,
    /// Where it runs, as its cloud says.
    pub(super) zone: String,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) lease: Lease,
    /// `ADDED`, `MODIFIED` or `DELETED` in a list of changes.
    pub(super) action: String,
    /// When it last changed by its own clock, in milliseconds.
    pub(super) dirty: u64,
    /// When the server last took something in about it, in milliseconds.
    pub(super) updated: u64,
    /// All the rest, as it came, where it was asked for ([`Instance::keep_rest`]): for whoever passes the instance on.
    pub(super) rest: BTreeMap<String, Value>,
}

/// A port, and whether anything listens there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) number: u64,
    pub(super) enabled: bool,
}

/// Times in milliseconds of the server's clock; zero when it did not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// Seconds between heartbeats.
    pub(super) renewal: u64,
    /// Seconds that it lives without one.
    pub(super) duration: u64,
    pub(super) registered: u64,
    pub(super) renewed: u64,
    pub(super) up_since: u64,
}

impl Default for Lease {
    fn default() -> Self {
        Self { renewal: DEFAULT_RENEWAL, duration: DEFAULT_DURATION, registered: 0, renewed: 0, up_since: 0 }
    }
}

/// About what any part of an instance takes beside its text: its place in a map, and what an allocation costs.
const PART: usize = 64;

/// Fields that a person or a program may want and the mesh does not: passed on as they came.
const PASSED_ON: [&str; 9] = [
    "appGroupName",
    "sid",
    "homePageUrl",
    "statusPageUrl",
    "healthCheckUrl",
    "secureHealthCheckUrl",
    "asgName",
    "countryId",
    "dataCenterInfo",
];

impl Instance {
    /// Reads it without the rest; none when it has nothing to be called by.
    pub(super) fn read(fields: &Map<String, Value>, application: &str) -> Option<Self> {
        let is = |key: &str| text(fields.get(key));
        let app = Some(is("app")).filter(|app| !app.is_empty()).unwrap_or_else(|| application.to_owned());
        let id = Some(is("instanceId")).filter(|id| !id.is_empty()).unwrap_or_else(|| is("hostName"));
        if app.is_empty() || id.is_empty() {
            return None;
        }
        let overridden = Some(is("overriddenStatus")).filter(|it| !it.is_empty());
        let cloud = fields.get("dataCenterInfo").and_then(|it| it.get("metadata"));
        Some(Self {
            id,
            app: app.to_uppercase(),
            host: is("hostName"),
            ip: is("ipAddr"),
            status: is("status"),
            overridden: overridden.unwrap_or_else(|| is("overriddenstatus")),
            port: Port::read(fields.get("port")),
            secure_port: Port::read(fields.get("securePort")),
            vip: is("vipAddress"),
            secure_vip: is("secureVipAddress"),
            zone: text(cloud.and_then(|it| it.get("availability-zone"))),
            metadata: metadata(fields.get("metadata")),
            lease: Lease::read(fields.get("leaseInfo")),
            action: is("actionType"),
            dirty: number(fields.get("lastDirtyTimestamp")),
            updated: number(fields.get("lastUpdatedTimestamp")),
            rest: BTreeMap::new(),
        })
    }

    /// Keeps the rest of what it was read from.
    pub(super) fn keep_rest(&mut self, fields: &Map<String, Value>) {
        let rest = PASSED_ON.iter().filter_map(|key| Some(((*key).to_owned(), fields.get(*key)?.clone())));
        self.rest = rest.filter(|(_, value)| !value.is_null()).collect();
    }

    /// About how many bytes of memory it takes.
    pub(super) fn weight(&self) -> usize {
        let texts = [&self.id, &self.app, &self.host, &self.ip, &self.status, &self.overridden, &self.vip];
        let texts = texts.into_iter().chain([&self.secure_vip, &self.zone, &self.action]);
        let texts = texts.chain(self.metadata.iter().flat_map(|(key, value)| [key, value]));
        let rest = self.rest.iter().map(|(key, value)| PART + key.len() + weight(value));
        size_of::<Self>() + texts.map(|text| PART + text.len()).sum::<usize>() + rest.sum::<usize>()
    }

    /// Whether nothing is different but times.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let plain = |it: &Self| {
            let lease = Lease { registered: 0, renewed: 0, up_since: 0, ..it.lease };
            Self { lease, dirty: 0, updated: 0, action: String::new(), ..it.clone() }
        };
        plain(self) == plain(other)
    }

    /// Fills in the times that nobody said yet.
    pub(super) fn stamp(&mut self, now: u64) {
        self.updated = now;
        for time in
            [&mut self.dirty, &mut self.lease.registered, &mut self.lease.renewed, &mut self.lease.up_since]
        {
            if *time == 0 {
                *time = now;
            }
        }
    }
}

impl Port {
    fn read(value: Option<&Value>) -> Self {
        match value {
            Some(Value::Object(fields)) => Self {
                number: number(fields.get("$")),
                enabled: fields.get("@enabled").is_some_and(|it| text(Some(it)).eq_ignore_ascii_case("true")),
            },
            // As the very first clients wrote it.
            Some(value) => Self { number: number(Some(value)), enabled: number(Some(value)) != 0 },
            None => Self::default(),
        }
    }
}

impl Lease {
    fn read(value: Option<&Value>) -> Self {
        let is = |key: &str| number(value.and_then(|it| it.get(key)));
        let or = |number: u64, default| if number == 0 { default } else { number };
        Self {
            renewal: or(is("renewalIntervalInSecs"), DEFAULT_RENEWAL),
            duration: or(is("durationInSecs"), DEFAULT_DURATION),
            registered: is("registrationTimestamp"),
            renewed: is("lastRenewalTimestamp"),
            up_since: is("serviceUpTimestamp"),
        }
    }
}

fn weight(value: &Value) -> usize {
    PART + match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(key, value)| PART + key.len() + weight(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Java's name of the map's class is none of its entries.
fn metadata(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    let entries = entries.filter(|(key, _)| !key.starts_with('@'));
    entries.map(|(key, value)| (key.clone(), text(Some(value)))).collect()
}

/// A scalar as text; nothing else has one.
pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(is)) => is.to_string(),
        // As XML with attributes is read: the text is under a key of its own.
        Some(Value::Object(fields)) => fields.get("$").map(|value| text(Some(value))).unwrap_or_default(),
        _ => String::new(),
    }
}

fn number(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::Number(number)) => number.as_u64().unwrap_or(0),
        Some(other) => text(Some(other)).trim().parse().unwrap_or(0),
        None => 0,
    }
}
