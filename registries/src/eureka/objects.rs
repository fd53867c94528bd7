//! What Eureka's documents hold, read as clients of many ages write them: numbers as texts, lists of one without brackets,
//! fields that are null or missing. What an instance says wrongly costs that instance alone.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

/// How long an instance lives without a heartbeat when it does not say, in seconds.
pub(super) const DEFAULT_DURATION: u64 = 90;
/// How often an instance renews its lease when it does not say, in seconds.
pub(super) const DEFAULT_RENEWAL: u64 = 30;

/// A whole list, or the changes since a while.
#[derive(Debug, Default)]
pub(super) struct Applications {
    /// How many instances of each status the server has, all of them counted, also in a list of changes.
    pub(super) hash: String,
    /// Every instance that can be told from another.
    pub(super) instances: Vec<Instance>,
    /// How many things in it were no instances.
    pub(super) unreadable: usize,
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
    /// All the rest, as it came: for whoever passes the instance on.
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
    /// Reads it; none when it is no object or has nothing to be called by.
    pub(super) fn read(value: &Value, application: &str) -> Option<Self> {
        let fields = value.as_object()?;
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
            rest: PASSED_ON
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), fields.get(*key)?.clone())))
                .filter(|(_, value)| !value.is_null())
                .collect(),
        })
    }
}

impl Instance {
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

#[derive(Deserialize)]
struct Document {
    applications: Option<RawApplications>,
}

#[derive(Deserialize)]
struct RawApplications {
    #[serde(default, rename = "apps__hashcode")]
    hash: Value,
    #[serde(default)]
    application: Many<RawApplication>,
}

#[derive(Deserialize)]
struct RawApplication {
    #[serde(default)]
    name: Value,
    #[serde(default)]
    instance: Many<Map<String, Value>>,
}

impl<'de> Deserialize<'de> for Applications {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Document::deserialize(deserializer)?;
        let raw = document.applications.ok_or_else(|| serde::de::Error::missing_field("applications"))?;
        let mut all =
            Self { hash: text(Some(&raw.hash)), unreadable: raw.application.others, ..Self::default() };
        for application in raw.application.elements {
            let name = text(Some(&application.name));
            all.unreadable += application.instance.others;
            for instance in application.instance.elements {
                match Instance::read(&Value::Object(instance), &name) {
                    Some(instance) => all.instances.push(instance),
                    None => all.unreadable += 1,
                }
            }
        }
        Ok(all)
    }
}

/// A list of objects, or the only one of them without brackets. What is no object is counted.
struct Many<T> {
    elements: Vec<T>,
    others: usize,
}

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self { elements: Vec::new(), others: 0 }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ManyVisitor { nested: false, of: PhantomData })
    }
}

struct ManyVisitor<T> {
    /// Within a list, another list is nothing.
    nested: bool,
    of: PhantomData<T>,
}

struct Element<T>(Many<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ManyVisitor { nested: true, of: PhantomData }).map(Self)
    }
}

impl<T> ManyVisitor<T> {
    fn other<E>() -> Result<Many<T>, E> {
        Ok(Many { elements: Vec::new(), others: 1 })
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ManyVisitor<T> {
    type Value = Many<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Many<T>, A::Error> {
        let element = T::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Many { elements: vec![element], others: 0 })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Many<T>, A::Error> {
        let mut many = Many::default();
        if self.nested {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Self::other();
        }
        while let Some(Element(one)) = list.next_element::<Element<T>>()? {
            many.elements.extend(one.elements);
            many.others += one.others;
        }
        Ok(many)
    }

    fn visit_unit<E>(self) -> Result<Many<T>, E> {
        Ok(Many::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Many<T>, E> {
        Self::other()
    }

    fn visit_u64<E>(self, _: u64) -> Result<Many<T>, E> {
        Self::other()
    }

    fn visit_i64<E>(self, _: i64) -> Result<Many<T>, E> {
        Self::other()
    }

    fn visit_f64<E>(self, _: f64) -> Result<Many<T>, E> {
        Self::other()
    }

    fn visit_str<E>(self, _: &str) -> Result<Many<T>, E> {
        Self::other()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Applications {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_recorded_list_is_read() {
        let all = read(include_str!("../../fuzz/corpus/eureka/apps.json"));
        assert_eq!((all.hash.as_str(), all.unreadable), ("OUT_OF_SERVICE_1_UP_2_", 0));
        let ids: Vec<_> = all.instances.iter().map(|it| (it.app.as_str(), it.id.as_str())).collect();
        assert_eq!(ids, [("SHOP", "shop:18762"), ("PAYMENTS", "payments:18763"), ("ORDERS", "orders-1")]);
        let shop = &all.instances[0];
        assert_eq!(shop.port, Port { number: 18762, enabled: true });
        assert_eq!(shop.secure_port, Port { number: 443, enabled: false });
        assert_eq!((shop.metadata["version"].as_str(), shop.overridden.as_str()), ("v1", "UNKNOWN"));
        assert_eq!((shop.lease.duration, shop.lease.registered > 0), (3, true));
        assert_eq!(all.instances[1].metadata.len(), 0, "the class of the map is no entry");
        assert_eq!(all.instances[2].status, "OUT_OF_SERVICE");
    }

    #[test]
    fn one_object_stands_for_a_list_and_what_is_none_costs_nothing_else() {
        let all = read(
            r#"{"applications": {"versions__delta": 3, "application": {"name": "a", "instance": {"instanceId": 7}}}}"#,
        );
        assert_eq!(all.instances[0].id, "7");
        assert_eq!(all.instances[0].app, "A");
        let all = read(
            r#"{"applications": {"application": [1, null, [[]], {"instance": ["x", {}, {"hostName": "h"}]},
               {"name": {"a": 1}, "instance": 5}, {"name": "B", "instance": [{"hostName": "h", "port": [1]}]}]}}"#,
        );
        assert_eq!(all.instances.len(), 1);
        assert_eq!((all.instances[0].id.as_str(), all.unreadable), ("h", 6));
        assert!(serde_json::from_str::<Applications>("{}").is_err(), "no list is not an empty list");
        assert!(serde_json::from_str::<Applications>(r#"{"applications": null}"#).is_err());
    }
}
