//! The documents of the API: one tree for JSON and XML. As in JSON, an attribute of XML is a key that begins with `@`, and
//! the text beside attributes is `$`.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::eureka::objects::Instance;

/// In which form an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    Json,
    Xml,
}

impl Format {
    /// As Eureka decides it: whoever does not say JSON gets XML.
    pub(super) fn wanted(accept: Option<&str>) -> Self {
        match accept.is_some_and(|accept| accept.contains("json")) {
            true => Self::Json,
            false => Self::Xml,
        }
    }

    /// What answers call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Xml => "application/xml",
        }
    }

    /// The text.
    pub(super) fn write(self, document: &Value) -> String {
        match self {
            // A tree is always written.
            Self::Json => serde_json::to_string(&Ordered(document)).unwrap_or_default(),
            Self::Xml => {
                let mut text = String::new();
                for (name, value) in document.as_object().into_iter().flatten() {
                    element(&mut text, name, value);
                }
                text
            }
        }
    }
}

/// A document whose objects end with their metadata: Netflix's reader of where an instance runs passes over whatever comes
/// behind that, and takes the end of that for the instance's own.
struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(fields) => {
                serializer.collect_map(ordered(fields).map(|(key, value)| (key, Ordered(value))))
            }
            Value::Array(all) => serializer.collect_seq(all.iter().map(Ordered)),
            scalar_value => scalar_value.serialize(serializer),
        }
    }
}

fn ordered(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let is_metadata = |(key, _): &(&String, &Value)| key.as_str() == "metadata";
    let others = fields.iter().filter(move |field| !is_metadata(field));
    others.chain(fields.iter().filter(is_metadata))
}

/// A list of applications.
pub(super) fn applications<'a>(
    instances: impl Iterator<Item = &'a Instance>,
    hash: String,
    version: &str,
) -> Value {
    let mut by_app: Vec<(&str, Vec<&Instance>)> = Vec::new();
    for instance in instances {
        match by_app.last_mut() {
            Some((app, all)) if *app == instance.app => all.push(instance),
            _ => by_app.push((&instance.app, vec![instance])),
        }
    }
    let all: Vec<Value> = by_app.into_iter().map(|(app, all)| one(app, &all)).collect();
    json!({ "applications": { "versions__delta": version, "apps__hashcode": hash, "application": all } })
}

/// One application.
pub(super) fn application(app: &str, instances: &[&Instance]) -> Value {
    json!({ "application": one(app, instances) })
}

/// One instance.
pub(super) fn instance(instance: &Instance) -> Value {
    json!({ "instance": written(instance) })
}

fn one(app: &str, instances: &[&Instance]) -> Value {
    json!({ "name": app, "instance": instances.iter().copied().map(written).collect::<Vec<_>>() })
}

fn written(it: &Instance) -> Value {
    let port = |port: crate::eureka::objects::Port| json!({ "$": port.number, "@enabled": port.enabled.to_string() });
    let class = "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo";
    let mut fields = json!({
        "countryId": 1,
        "dataCenterInfo": { "@class": class, "name": "MyOwn" },
    });
    // In XML these would be attributes, and one of them a class that a client makes an object of.
    let metadata: BTreeMap<_, _> = it.metadata.iter().filter(|(key, _)| !key.starts_with('@')).collect();
    let own = json!({
        "instanceId": it.id,
        "hostName": it.host,
        "app": it.app,
        "ipAddr": it.ip,
        "status": it.status,
        "overriddenStatus": if it.overridden.is_empty() { "UNKNOWN" } else { &it.overridden },
        "port": port(it.port),
        "securePort": port(it.secure_port),
        "leaseInfo": {
            "renewalIntervalInSecs": it.lease.renewal,
            "durationInSecs": it.lease.duration,
            "registrationTimestamp": it.lease.registered,
            "lastRenewalTimestamp": it.lease.renewed,
            "evictionTimestamp": 0,
            "serviceUpTimestamp": it.lease.up_since,
        },
        "metadata": metadata,
        "vipAddress": it.vip,
        "secureVipAddress": it.secure_vip,
        "isCoordinatingDiscoveryServer": "false",
        "lastUpdatedTimestamp": it.updated.to_string(),
        "lastDirtyTimestamp": it.dirty.to_string(),
        "actionType": if it.action.is_empty() { "ADDED" } else { &it.action },
    });
    if let Some(all) = fields.as_object_mut() {
        all.extend(it.rest.iter().map(|(key, value)| (key.clone(), value.clone())));
        all.extend(own.as_object().cloned().unwrap_or_default());
    }
    fields
}

/// Writes an element; a list is several of one name.
fn element(text: &mut String, name: &str, value: &Value) {
    // In XML this one is all lower case.
    let name = if name == "overriddenStatus" { "overriddenstatus" } else { name };
    if !is_name(name) {
        return;
    }
    match value {
        Value::Array(all) => all.iter().for_each(|one| element(text, name, one)),
        Value::Object(fields) => {
            text.push('<');
            text.push_str(name);
            attributes(text, fields);
            text.push('>');
            for (key, value) in ordered(fields).filter(|(key, _)| !key.starts_with('@')) {
                match key.as_str() {
                    "$" => escape(text, &scalar(value)),
                    key => element(text, key, value),
                }
            }
            // A string takes everything.
            let _ = write!(text, "</{name}>");
        }
        scalar_value => {
            let _ = write!(text, "<{name}>");
            escape(text, &scalar(scalar_value));
            let _ = write!(text, "</{name}>");
        }
    }
}

fn attributes(text: &mut String, fields: &Map<String, Value>) {
    for (key, value) in fields {
        if let Some(name) = key.strip_prefix('@').filter(|name| is_name(name)) {
            let _ = write!(text, " {name}=\"");
            escape(text, &scalar(value));
            text.push('"');
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
        other => other.to_string(),
    }
}

/// What an element may be called: a part of what XML allows, which holds all that Eureka's clients write.
fn is_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// What XML has no way to write is left out.
fn escape(text: &mut String, content: &str) {
    for letter in content.chars() {
        match letter {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\t' | '\n' | '\r' => {
                let _ = write!(text, "&#{};", u32::from(letter));
            }
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => {}
            letter => text.push(letter),
        }
    }
}
