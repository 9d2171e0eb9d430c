//! JSON text as values, a part of it by its path, and values as JSON text.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::budget::WorkBudget;
use super::error::{Failure, Stop};
use super::time;
use super::value::{CelMap, CelText, CelValue};

/// Reads JSON text; `None` if it is no JSON. The text may be nested as deep as serde_json allows, 128 levels.
pub(super) fn read(text: &str) -> Option<CelValue<'_>> {
    read_at(text, &[])?
}

/// Reads the part of JSON text that a path of fields leads to: `Some(None)` if there is none, `None` if the text is
/// no JSON.
pub(super) fn read_at<'v>(text: &'v str, path: &[Box<str>]) -> Option<Option<CelValue<'v>>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = Part { path }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(found)
}

/// Reads what a path leads to, and passes over everything else.
struct Part<'p> {
    path: &'p [Box<str>],
}

impl<'v> DeserializeSeed<'v> for Part<'_> {
    type Value = Option<CelValue<'v>>;

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.path {
            [] => deserializer.deserialize_any(WholeVisitor).map(Some),
            [name, rest @ ..] => deserializer.deserialize_any(FieldVisitor { name, rest }),
        }
    }
}

/// Looks for one field of an object.
struct FieldVisitor<'p> {
    name: &'p str,
    rest: &'p [Box<str>],
}

impl<'v> Visitor<'v> for FieldVisitor<'_> {
    type Value = Option<CelValue<'v>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(IsName(self.name))? {
            if is_it {
                found = map.next_value_seed(Part { path: self.rest })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'v>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Tells whether a key is the one that is looked for.
struct IsName<'p>(&'p str);

impl<'v> DeserializeSeed<'v> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// Reads a whole value.
struct WholeVisitor;

impl<'v> DeserializeSeed<'v> for WholeVisitor {
    type Value = CelValue<'v>;

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<CelValue<'v>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'v> Visitor<'v> for WholeVisitor {
    type Value = CelValue<'v>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<CelValue<'v>, E> {
        Ok(CelValue::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<CelValue<'v>, E> {
        Ok(CelValue::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<CelValue<'v>, E> {
        Ok(CelValue::count(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<CelValue<'v>, E> {
        Ok(CelValue::Double(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'v str) -> Result<CelValue<'v>, E> {
        Ok(CelValue::Text(CelText::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<CelValue<'v>, E> {
        Ok(CelValue::text(value))
    }

    fn visit_unit<E: Error>(self) -> Result<CelValue<'v>, E> {
        Ok(CelValue::Null)
    }

    fn visit_seq<A: SeqAccess<'v>>(self, mut items: A) -> Result<CelValue<'v>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(WholeVisitor)? {
            values.push(value);
        }
        Ok(CelValue::list(values))
    }

    fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<CelValue<'v>, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(WholeVisitor)? {
            entries.push((key, map.next_value_seed(WholeVisitor)?));
        }
        Ok(CelValue::Map(CelMap::of_json(entries).into()))
    }
}

/// Writes a value as JSON text. Bytes become base64, moments RFC 3339, and spans of time a number of seconds with
/// `s`. A double that is no number, or a value without data such as a type, is an error.
pub(super) fn write<'v>(
    value: &CelValue<'_>,
    out: &mut String,
    budget: &mut WorkBudget,
) -> Result<(), Stop<'v>> {
    budget.charge(1)?;
    match value {
        CelValue::Null => out.push_str("null"),
        CelValue::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        CelValue::Int(value) => out.push_str(&value.to_string()),
        CelValue::UInt(value) => out.push_str(&value.to_string()),
        CelValue::Double(value) => match serde_json::Number::from_f64(*value) {
            Some(number) => out.push_str(&number.to_string()),
            None => return Err(Failure::NotConverted("JSON", "double").into()),
        },
        CelValue::Text(value) => write_text(value.as_str(), out, budget)?,
        CelValue::Bytes(value) => {
            budget.charge_bytes(value.as_slice().len())?;
            write_text(&STANDARD.encode(value.as_slice()), out, budget)?;
        }
        CelValue::Timestamp(us) => write_text(&time::timestamp_text(*us), out, budget)?,
        CelValue::Duration(us) => write_text(&time::duration_text(*us), out, budget)?,
        CelValue::List(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(value, out, budget)?;
            }
            out.push(']');
        }
        CelValue::Map(map) => {
            out.push('{');
            for (at, (key, value)) in map.entries().iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_key(key, out, budget)?;
                out.push(':');
                write(value, out, budget)?;
            }
            out.push('}');
        }
        CelValue::Type(_) => return Err(Failure::NotConverted("JSON", "type").into()),
    }
    Ok(())
}

fn write_key<'v>(key: &CelValue<'_>, out: &mut String, budget: &mut WorkBudget) -> Result<(), Stop<'v>> {
    match key {
        CelValue::Text(text) => write_text(text.as_str(), out, budget),
        other => {
            out.push('"');
            write(other, out, budget)?;
            out.push('"');
            Ok(())
        }
    }
}

fn write_text<'v>(text: &str, out: &mut String, budget: &mut WorkBudget) -> Result<(), Stop<'v>> {
    budget.charge_bytes(text.len())?;
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => return Err(Failure::NotConverted("JSON", "string").into()),
    }
    Ok(())
}
