//! What Netflix's clients can read. Their codec fails on the whole list for one field of one instance, so what it cannot read
//! must not be taken in. Eureka itself takes none of it in either: it reads registrations by that codec.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::eureka::objects::{Instance, text};

/// The longest lease, and the longest time between heartbeats, in seconds.
const MAX_SECONDS: u64 = 86_400;
/// The latest time that a number of Java's holds.
const MAX_TIME: u64 = i64::MAX.unsigned_abs();
/// The classes of a place that says nothing but its name, and the names that such a place may have: clients take whatever is
/// called Amazon for [`AMAZON`], and none gets a list with another class of that name.
const PLAIN: [&str; 2] =
    ["com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "com.netflix.appinfo.MyDataCenterInfo"];
const NAMES: [&str; 2] = ["MyOwn", "Netflix"];
/// The class of a place that says more of itself.
const AMAZON: &str = "com.netflix.appinfo.AmazonInfo";

/// Brings what an instance says of itself into a form that every client can read, or says why there is none.
pub(super) fn readable(instance: &mut Instance) -> Result<(), String> {
    let place = instance.rest.get("dataCenterInfo").ok_or("Missing dataCenterInfo")?;
    let place = data_center(place)?;
    let rest = instance.rest.iter().filter_map(|(key, value)| Some((key.clone(), scalar(key, value)?)));
    instance.rest = rest.collect();
    instance.rest.insert("dataCenterInfo".into(), place);
    for port in [instance.port, instance.secure_port] {
        u16::try_from(port.number).map_err(|_| format!("there is no port {}", port.number))?;
    }
    let lease = &mut instance.lease;
    for seconds in [&mut lease.renewal, &mut lease.duration] {
        *seconds = (*seconds).clamp(1, MAX_SECONDS);
    }
    for time in [&mut instance.dirty, &mut lease.up_since] {
        *time = (*time).min(MAX_TIME);
    }
    Ok(())
}

/// Where an instance runs. Its class is one that all clients have, and has the fields of that class alone.
fn data_center(value: &Value) -> Result<Value, String> {
    let is = |key: &str| text(value.get(key));
    let (class, name) = (is("@class"), is("name"));
    if class == AMAZON {
        let metadata = match value.get("metadata") {
            Some(Value::Object(fields)) => fields.clone(),
            // An element of XML without anything in it.
            Some(Value::String(text)) if text.is_empty() => Map::new(),
            _ => return Err("dataCenterInfo lacks its metadata".into()),
        };
        let fields = metadata.iter().filter(|(key, _)| !key.starts_with('@'));
        let fields: BTreeMap<_, _> = fields.map(|(key, value)| (key.as_str(), text(Some(value)))).collect();
        // The class says the name.
        return Ok(json!({ "@class": class, "name": "Amazon", "metadata": fields }));
    }
    if name.is_empty() {
        return Err("Missing dataCenterInfo Name".into());
    }
    match PLAIN.contains(&class.as_str()) && NAMES.contains(&name.as_str()) {
        true => Ok(json!({ "@class": class, "name": name })),
        false => Err("no such dataCenterInfo".into()),
    }
}

/// One of the other fields; what is no scalar is left out.
fn scalar(key: &str, value: &Value) -> Option<Value> {
    let said = Some(text(Some(value))).filter(|said| !said.is_empty());
    match key {
        "countryId" => said?.parse::<i32>().ok().map(Value::from),
        _ => said.map(Value::from),
    }
}
