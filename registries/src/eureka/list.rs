//! Lists of instances, read one at a time: a list of ten thousand has ten megabytes, and nobody needs two of them at once.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

use super::objects::{Instance, text};

/// What a list says beside its instances.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// How many instances of each status the server has, all of them counted, also in a list of changes.
    pub(super) hash: String,
    /// How many things in it were no instances.
    pub(super) unreadable: usize,
}

/// Reads a whole list, or the changes since a while, and hands over every instance that can be told from another.
///
/// # Errors
/// When it is no list at all.
pub(super) fn read<'de, D: Deserializer<'de>>(
    document: D,
    each: &mut dyn FnMut(Instance),
) -> Result<Head, D::Error> {
    document.deserialize_map(Document(each))
}

struct Document<'a>(&'a mut dyn FnMut(Instance));

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document with applications")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
        let mut head = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "applications" {
                head = Some(map.next_value_seed(Applications(&mut *self.0))?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        head.ok_or_else(|| A::Error::missing_field("applications"))
    }
}

struct Applications<'a>(&'a mut dyn FnMut(Instance));

impl<'de> DeserializeSeed<'de> for Applications<'_> {
    type Value = Head;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Head, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Applications<'_> {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("applications")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
        let mut head = Head::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "apps__hashcode" => head.hash = text(Some(&map.next_value()?)),
                "application" => {
                    let mut taker = Application { each: &mut *self.0, unreadable: &mut head.unreadable };
                    map.next_value_seed(Many { taker: &mut taker, nested: false })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(head)
    }
}

/// Who takes the objects of a list, and hears of whatever else is in it.
trait Taker {
    fn object<'de, A: MapAccess<'de>>(&mut self, map: A) -> Result<(), A::Error>;
    fn other(&mut self);
}

struct Application<'a> {
    each: &'a mut dyn FnMut(Instance),
    unreadable: &'a mut usize,
}

impl Taker for Application<'_> {
    fn object<'de, A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        let (mut name, mut nameless) = (None, Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => name = Some(text(Some(&map.next_value()?))),
                "instance" => {
                    let mut taker = Instances { list: self, name: name.as_deref(), nameless: &mut nameless };
                    map.next_value_seed(Many { taker: &mut taker, nested: false })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        for fields in nameless {
            self.instance(&fields, name.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    fn other(&mut self) {
        *self.unreadable += 1;
    }
}

impl Application<'_> {
    fn instance(&mut self, fields: &Map<String, Value>, application: &str) {
        match Instance::read(fields, application) {
            Some(instance) => (self.each)(instance),
            None => self.other(),
        }
    }
}

struct Instances<'a, 'b> {
    list: &'a mut Application<'b>,
    name: Option<&'a str>,
    /// Those that do not say their application, before it has said its name.
    nameless: &'a mut Vec<Map<String, Value>>,
}

impl Taker for Instances<'_, '_> {
    fn object<'de, A: MapAccess<'de>>(&mut self, map: A) -> Result<(), A::Error> {
        let fields = Map::deserialize(MapAccessDeserializer::new(map))?;
        match self.name {
            Some(name) => self.list.instance(&fields, name),
            None if !text(fields.get("app")).is_empty() => self.list.instance(&fields, ""),
            None => self.nameless.push(fields),
        }
        Ok(())
    }

    fn other(&mut self) {
        self.list.other();
    }
}

/// A list of objects, or the only one of them without brackets.
struct Many<'a, T> {
    taker: &'a mut T,
    /// Within a list, another list is nothing.
    nested: bool,
}

impl<'de, T: Taker> DeserializeSeed<'de> for Many<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<T: Taker> Many<'_, T> {
    fn other<E>(self) -> Result<(), E> {
        self.taker.other();
        Ok(())
    }
}

impl<'de, T: Taker> Visitor<'de> for Many<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.taker.object(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if self.nested {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return self.other();
        }
        while list.next_element_seed(Many { taker: &mut *self.taker, nested: true })?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.other()
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.other()
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.other()
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.other()
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.other()
    }
}

#[cfg(test)]
mod tests {
    use crate::eureka::{objects::Port, tests::Applications};

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

    #[test]
    fn an_application_may_say_its_name_last() {
        let all = read(
            r#"{"applications": {"application": {"instance": [{"instanceId": 1}, {"instanceId": 2, "app": "b"}],
               "name": "a"}}}"#,
        );
        let mut names: Vec<_> = all.instances.iter().map(|it| (it.id.as_str(), it.app.as_str())).collect();
        names.sort_unstable();
        assert_eq!(names, [("1", "A"), ("2", "B")]);
    }
}
