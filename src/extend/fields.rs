//! Reads the fields of a definition one after the other, with an error that names the field, its value, and what is
//! allowed. A field that nobody asked for is an error, too, because it is most often a misspelt one.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::definition::BadField;
use crate::record::Pattern;

/// Most characters of a wrong value that an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// The units of a length of time, with their microseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 24 * 3_600_000_000)];

/// The fields of a definition, and which of them were asked for.
#[derive(Debug)]
pub struct DefinitionFields<'a> {
    map: &'a Map<String, Value>,
    asked: Vec<&'static str>,
}

/// Makes the error of a field.
pub fn bad_field(field: &str, value: &Value, allowed: impl Into<String>) -> BadField {
    let text = value.to_string();
    let shown = match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    };
    BadField::new(field, shown, allowed)
}

impl<'a> DefinitionFields<'a> {
    /// The fields of a definition, which must be an object.
    pub fn of(body: &'a Value) -> Result<DefinitionFields<'a>, BadField> {
        let map = body.as_object();
        let map = map.ok_or_else(|| bad_field("definition", body, "a table of fields"))?;
        Ok(DefinitionFields { map, asked: Vec::new() })
    }

    /// The value of a field; `None` if it is missing.
    pub fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.asked.push(name);
        self.map.get(name)
    }

    /// A text that is not empty.
    pub fn text(&mut self, name: &'static str, allowed: &str) -> Result<Option<&'a str>, BadField> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match value.as_str() {
            Some(text) if !text.is_empty() => Ok(Some(text)),
            _ => Err(bad_field(name, value, allowed)),
        }
    }

    /// A text that must be there.
    pub fn required(&mut self, name: &'static str, allowed: &str) -> Result<&'a str, BadField> {
        self.text(name, allowed)?.ok_or_else(|| missing(name, allowed))
    }

    /// A whole number in this range.
    pub fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, BadField> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_u64().filter(|number| range.contains(number));
        let allowed = || format!("a whole number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| bad_field(name, value, allowed()))
    }

    /// True or false.
    pub fn flag(&mut self, name: &'static str) -> Result<Option<bool>, BadField> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| bad_field(name, value, "true or false"))
    }

    /// A length of time in microseconds, such as `"30s"`, in this range.
    pub fn duration_us(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, BadField> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let us = value.as_str().and_then(duration_us).filter(|us| range.contains(us));
        let allowed = || {
            let (from, to) = (shown_us(*range.start()), shown_us(*range.end()));
            format!("{from} to {to}, with a unit of ms, s, m, h or d, such as \"5s\"")
        };
        us.map(Some).ok_or_else(|| bad_field(name, value, allowed()))
    }

    /// Patterns of sources: one text, or a list of up to `most`.
    pub fn patterns(&mut self, name: &'static str, most: usize) -> Result<Option<Vec<Pattern>>, BadField> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let allowed = format!("a pattern such as \"sensors/**\", or a list of 1 to {most}");
        let texts: Vec<&str> = match value {
            Value::String(text) => vec![text.as_str()],
            Value::Array(list) if (1..=most).contains(&list.len()) => {
                list.iter().filter_map(Value::as_str).collect()
            }
            _ => return Err(bad_field(name, value, allowed)),
        };
        let count = value.as_array().map_or(1, Vec::len);
        if texts.len() != count {
            return Err(bad_field(name, value, allowed));
        }
        let parsed = texts.iter().map(|text| Pattern::parse(text));
        let parsed = parsed.collect::<Result<Vec<Pattern>, _>>();
        parsed.map(Some).map_err(|error| bad_field(name, value, format!("{allowed} ({error})")))
    }

    /// Ends with an error if there is a field that was not asked for.
    pub fn finish(self) -> Result<(), BadField> {
        let known = |name: &String| self.asked.iter().any(|asked| asked == name);
        match self.map.iter().find(|(name, _)| !known(name)) {
            Some((name, value)) => {
                // An empty name is shown as one.
                let name = if name.is_empty() { "\"\"" } else { name.as_str() };
                Err(bad_field(name, value, format!("one of {}", self.asked.join(", "))))
            }
            None => Ok(()),
        }
    }
}

/// Makes the error of a field that is not there.
pub fn missing(name: &str, allowed: &str) -> BadField {
    BadField::new(name, "missing", allowed)
}

/// Parses a length of time with its unit. Returns microseconds.
fn duration_us(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, scale) = TIME_UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// Writes a length of time in the greatest unit that divides it.
fn shown_us(us: u64) -> String {
    let fits = |unit: &&(&str, u64)| us.is_multiple_of(unit.1);
    match TIME_UNITS.iter().rev().find(fits) {
        Some((name, scale)) => format!("{}{name}", us / scale),
        None => format!("{us} µs"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_by_their_kind() {
        let body = json!({"a": "x", "n": 5, "t": "90s", "p": ["a/*", "b"], "f": true});
        let mut fields = DefinitionFields::of(&body).expect("an object");
        assert_eq!(fields.required("a", "a text"), Ok("x"));
        assert_eq!(fields.number("n", 1..=5), Ok(Some(5)));
        assert_eq!(fields.duration_us("t", 0..=100_000_000), Ok(Some(90_000_000)));
        assert_eq!(fields.patterns("p", 2).expect("patterns").map(|list| list.len()), Some(2));
        assert_eq!(fields.flag("f"), Ok(Some(true)));
        assert_eq!(fields.number("none", 1..=5), Ok(None));
        assert_eq!(fields.finish(), Ok(()));
    }

    #[test]
    fn errors_name_field_value_and_what_is_allowed() {
        let body = json!({"n": 6, "t": "90", "p": ["a//b"], "q": ["a", 1], "extra": "y".repeat(200)});
        let mut fields = DefinitionFields::of(&body).expect("an object");
        let text = |error: BadField| error.to_string();
        let error = fields.number("n", 1..=5).map_err(text);
        assert_eq!(error, Err("n: 6; allowed: a whole number from 1 to 5".into()));
        let error = fields.duration_us("t", 1_000_000..=60_000_000).map_err(text).expect_err("no unit");
        assert!(error.contains("\"90\"") && error.contains("1s to 1m"), "{error}");
        assert!(fields.patterns("p", 2).is_err() && fields.patterns("q", 2).is_err());
        let error = fields.required("m", "a text").map_err(text);
        assert_eq!(error, Err("m: missing; allowed: a text".into()));
        let error = fields.finish().map_err(text).expect_err("unknown");
        assert!(error.starts_with("extra: ") && error.contains("one of n, t, p, q, m"), "{error}");
        assert!(error.len() < 300, "{error}");
        assert!(DefinitionFields::of(&json!([])).is_err());
    }
}
