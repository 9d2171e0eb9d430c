//! Definitions: how users write them, how they are kept, and what is wrong with them.
//!
//! A definition comes as TOML or JSON and is kept as JSON. It is checked by its kind where it is put, so that whoever puts
//! a bad one is told, and again wherever it is read, since a newer version of the program may have written it.

use serde_json::Value;

use super::kinds;
use crate::protocol::extension::{ExtensionKind, ExtensionName};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Record;

/// A definition as its kind reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The kind of what is defined.
    pub kind: ExtensionKind,
    /// Its name.
    pub name: ExtensionName,
    /// Timestamp of the record that keeps the definition, in microseconds. A definition that is put anew has another.
    pub ts: u64,
    /// The definition: a JSON object.
    pub body: Value,
}

/// A field of a definition that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value}; allowed: {allowed}")]
pub struct BadField {
    /// Name of the field, with the names of the tables around it: `records[0].source`.
    pub field: String,
    /// What is wrong with the value, or the value itself.
    pub value: String,
    /// What is allowed there.
    pub allowed: String,
}

impl BadField {
    /// A field that cannot be used.
    pub fn new(field: impl Into<String>, value: impl Into<String>, allowed: impl Into<String>) -> BadField {
        BadField { field: field.into(), value: value.into(), allowed: allowed.into() }
    }
}

impl Definition {
    /// Reads the definition that a record keeps. Returns `None` if the record keeps none.
    pub fn of_record(record: &Record) -> Option<Definition> {
        let (kind, name) = ExtensionKind::of_record(record.source.as_str())?;
        // What cannot be read is a definition all the same, whose kind says what is wrong.
        let body = serde_json::from_slice(record.payload.bytes()).unwrap_or(Value::Null);
        Some(Definition { kind, name, ts: record.stamp.ts, body })
    }

    /// The name by which members are elected for it, and by which they say that they cannot run it: `KIND/NAME`.
    pub fn task(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.name)
    }
}

/// Reads the body of a request that puts a definition: TOML, or JSON. Returns the JSON text that is kept.
pub fn read_body(kind: ExtensionKind, body: &[u8], is_toml: bool) -> Result<Vec<u8>, Refusal> {
    let bad_request = |message: String| Refusal::new(Code::BadRequest, message);
    let text = std::str::from_utf8(body).map_err(|error| bad_request(error.to_string()))?;
    let value: Value = match is_toml {
        true => toml::from_str(text).map_err(|error| bad_request(toml_flaw(text, &error)))?,
        false => {
            serde_json::from_str(text).map_err(|error| Refusal::new(Code::BadJson, error.to_string()))?
        }
    };
    if !value.is_object() {
        return Err(bad_request("a definition is one object".into()));
    }
    kinds::check(kind, &value).map_err(|bad| bad_request(bad.to_string()))?;
    Ok(value.to_string().into_bytes())
}

/// Says where a TOML text is wrong, by line and column.
fn toml_flaw(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_that_are_no_definitions_are_refused_with_the_place() {
        let refused = |body: &str, is_toml| {
            read_body(ExtensionKind::Pull, body.as_bytes(), is_toml).expect_err(body).to_string()
        };
        assert!(
            refused("a = 1\nb = ", true).contains("line 2, column 5"),
            "{}",
            refused("a = 1\nb = ", true)
        );
        assert!(refused("[1]", false).contains("one object"));
        assert!(refused("{", false).starts_with("bad_json"));
        let error = read_body(ExtensionKind::Pull, b"\xff", true).expect_err("no text");
        assert_eq!(error.code, Code::BadRequest);
    }
}
