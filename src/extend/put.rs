//! How users write definitions: as TOML, or as JSON.

use serde_json::Value;

use super::json::read_json;
use super::kinds;
use crate::protocol::extension::ExtensionKind;
use crate::protocol::refusal::{Code, Refusal};

/// Reads the body of a request that puts a definition: TOML, or JSON. Returns the JSON text that is kept.
pub fn read_body(kind: ExtensionKind, body: &[u8], is_toml: bool) -> Result<Vec<u8>, Refusal> {
    let bad_request = |message: String| Refusal::new(Code::BadRequest, message);
    let text = std::str::from_utf8(body).map_err(|error| bad_request(error.to_string()))?;
    let value: Value = match is_toml {
        true => toml::from_str(text).map_err(|error| bad_request(toml_flaw(text, &error)))?,
        false => read_json(text)?,
    };
    if !value.is_object() {
        return Err(bad_request("a definition is one object".into()));
    }
    kinds::check(kind, &value).map_err(|bad| bad_request(bad.to_string()))?;
    Ok(value.to_string().into_bytes())
}

/// Says where a TOML text is wrong, by line and column.
pub(super) fn toml_flaw(text: &str, error: &toml::de::Error) -> String {
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
