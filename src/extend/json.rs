//! Reads JSON as TOML is read: a field that is there twice is refused. `serde_json` takes the last one in silence, so that a
//! definition would do something else than what its first lines say to whoever reads them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

use crate::protocol::refusal::{Code, Refusal};

/// Reads a text of JSON in which no object has a field twice.
pub(in crate::extend) fn read_json(text: &str) -> Result<Value, Refusal> {
    serde_json::from_str(text).map(|UniqueFields(value)| value).map_err(|error| {
        let code = match error.classify() {
            Category::Data => Code::BadRequest,
            Category::Io | Category::Syntax | Category::Eof => Code::BadJson,
        };
        Refusal::new(code, error.to_string())
    })
}

/// A value in which no object has a field twice.
struct UniqueFields(Value);

impl<'de> Deserialize<'de> for UniqueFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UniqueFields, D::Error> {
        deserializer.deserialize_any(UniqueFieldsVisitor).map(UniqueFields)
    }
}

struct UniqueFieldsVisitor;

impl<'de> Visitor<'de> for UniqueFieldsVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(UniqueFields(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let UniqueFields(value) = fields.next_value()?;
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("field {name:?} is there twice")));
            }
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_as_serde_reads_it() {
        let text = r#"{"a":[1,-2,2.5,1e3,18446744073709551615,null,true,"\u0041\n"],"b":{"c":{}}}"#;
        assert_eq!(read_json(text), Ok(serde_json::from_str(text).expect("JSON")));
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused_wherever_it_is() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"c":2,"\u0061":3}]}"#] {
            let refusal = read_json(text).expect_err(text);
            assert_eq!(refusal.code, Code::BadRequest, "{text}");
            assert!(refusal.message.starts_with("field \"a\" is there twice"), "{}", refusal.message);
        }
    }

    #[test]
    fn what_is_no_json_is_told_apart() {
        for text in ["", "{", "nul", "{\"a\":1}}", &"[".repeat(200)] {
            assert_eq!(read_json(text).expect_err(text).code, Code::BadJson, "{text}");
        }
    }
}
