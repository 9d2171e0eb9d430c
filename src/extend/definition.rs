//! Definitions as nodes keep them, and what is wrong with one.
//!
//! A definition is kept as JSON. Its kind checks it where it is put, so that whoever puts a bad one is told, and again
//! wherever it is read, since a newer version of the program may have written it.

use serde_json::Value;

use crate::protocol::extension::{ExtensionKind, ExtensionName};
use crate::record::Record;

/// A definition as its kind reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The kind of what is defined.
    pub kind: ExtensionKind,
    /// Name of the definition, unique among those of its kind.
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
    /// A field that cannot be used. Two quotation marks stand for the name of a field that has none, as JSON allows.
    pub fn new(field: impl Into<String>, value: impl Into<String>, allowed: impl Into<String>) -> BadField {
        let mut field = field.into();
        if field.is_empty() || field.ends_with('.') {
            field.push_str("\"\"");
        }
        BadField { field, value: value.into(), allowed: allowed.into() }
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
