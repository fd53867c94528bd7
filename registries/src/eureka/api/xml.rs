//! XML of a client as the tree that JSON has. No entities but XML's own five and characters by number: nothing is fetched and
//! nothing grows.

use quick_xml::{
    Reader,
    escape::resolve_predefined_entity,
    events::{BytesStart, Event},
};
use serde_json::{Map, Value};

/// How deep elements may lie in each other; an instance needs four.
const MAX_DEPTH: usize = 16;

/// Reads a document; none when it is no such XML.
pub(super) fn read(bytes: &[u8]) -> Option<Value> {
    let mut reader = Reader::from_reader(bytes);
    let mut open: Vec<(String, Map<String, Value>, String)> =
        vec![(String::new(), Map::new(), String::new())];
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                if open.len() > MAX_DEPTH {
                    return None;
                }
                open.push((name(&start)?, attributes(&start)?, String::new()));
            }
            Event::Empty(start) => {
                let (name, fields) = (name(&start)?, attributes(&start)?);
                add(&mut open.last_mut()?.1, name, closed(fields, String::new()));
            }
            Event::End(_) => {
                let (name, fields, text) = open.pop()?;
                add(&mut open.last_mut()?.1, name, closed(fields, text));
            }
            Event::Text(text) => open.last_mut()?.2.push_str(&text.decode().ok()?),
            Event::CData(text) => open.last_mut()?.2.push_str(&text.decode().ok()?),
            Event::GeneralRef(reference) => {
                let text = &mut open.last_mut()?.2;
                match reference.resolve_char_ref().ok()? {
                    Some(letter) => text.push(letter),
                    None => text.push_str(resolve_predefined_entity(&reference.decode().ok()?)?),
                }
            }
            Event::DocType(_) => return None,
            Event::Eof => break,
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
        }
    }
    let (_, fields, _) = open.pop().filter(|_| open.is_empty())?;
    Some(Value::Object(fields))
}

fn name(start: &BytesStart<'_>) -> Option<String> {
    Some(std::str::from_utf8(start.name().as_ref()).ok()?.to_owned())
}

fn attributes(start: &BytesStart<'_>) -> Option<Map<String, Value>> {
    let mut fields = Map::new();
    for attribute in start.attributes() {
        let attribute = attribute.ok()?;
        let key = std::str::from_utf8(attribute.key.as_ref()).ok()?;
        fields.insert(format!("@{key}"), attribute.unescape_value().ok()?.into_owned().into());
    }
    Some(fields)
}

/// An element without attributes and elements is its text.
fn closed(mut fields: Map<String, Value>, text: String) -> Value {
    let text = text.trim();
    if fields.is_empty() {
        return text.into();
    }
    if !text.is_empty() {
        fields.insert("$".into(), text.into());
    }
    Value::Object(fields)
}

/// Several elements of a name are a list.
fn add(fields: &mut Map<String, Value>, name: String, value: Value) {
    match fields.get_mut(&name) {
        Some(Value::Array(all)) => all.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
        None => drop(fields.insert(name, value)),
    }
}
