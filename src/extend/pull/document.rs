//! What counts as a document: JSON as it is, a text as a JSON text, and bytes that are neither.

use super::mapped::Mapped;
use super::mapping::Mapping;
use super::pointer::json_value;
use super::template::Facts;

/// How the bytes of a document are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DocumentFormat {
    /// As JSON if they are, else as text if they are UTF-8, else as bytes.
    Auto,
    /// As JSON, and as a failure if they are not.
    Json,
    /// As a text, even if it is JSON.
    Text,
    /// As bytes, which are published as binary data.
    Binary,
}

/// The words for the formats in a definition. The first is the default.
pub(super) const DOCUMENT_FORMATS: [(&str, DocumentFormat); 4] = [
    ("auto", DocumentFormat::Auto),
    ("json", DocumentFormat::Json),
    ("text", DocumentFormat::Text),
    ("binary", DocumentFormat::Binary),
];

/// Adds the records of a document to those of others.
pub(super) fn take_document(
    mapping: &Mapping,
    format: DocumentFormat,
    bytes: &[u8],
    facts: Facts<'_>,
    mapped: &mut Mapped,
) {
    match (format, std::str::from_utf8(bytes)) {
        (DocumentFormat::Binary, _) | (DocumentFormat::Auto, Err(_)) => {
            mapping.map_binary(bytes, facts, mapped)
        }
        (DocumentFormat::Json | DocumentFormat::Text, Err(_)) => {
            mapped.fail("a document that is no UTF-8".into())
        }
        (DocumentFormat::Json, Ok(text)) => mapping.map(text, facts, mapped),
        (DocumentFormat::Auto, Ok(text)) if json_value(text).is_some() => mapping.map(text, facts, mapped),
        (DocumentFormat::Auto | DocumentFormat::Text, Ok(text)) => {
            mapping.map(&serde_json::Value::from(text).to_string(), facts, mapped);
        }
    }
}
