//! Reads the fields of a definition: each with its type and its range, and a clear error for what cannot be used.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::extend::definition::BadField;

/// Fields that the definitions of all kinds have. `format` is of most kinds.
pub(super) const COMMON_FIELDS: &[&str] =
    &["kind", "records", "cel", "format", "always", "max_records_per_s", "max_bytes", "timeout"];

/// Longest part of a value that an error repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 80;
/// Names of the units of durations, and the microseconds of each.
const UNITS: [(&str, u64); 5] =
    [("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// A table of a definition whose fields are read one by one.
pub(super) struct PullFields<'a> {
    /// Names of the tables around it, with a dot at the end; empty for the definition itself.
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> PullFields<'a> {
    /// The fields of `value`, which is found at `path` in the definition; `""` is the definition itself.
    pub fn new(path: &str, value: &'a Value) -> Result<PullFields<'a>, BadField> {
        let Value::Object(map) = value else {
            let field = if path.is_empty() { "definition" } else { path };
            return Err(BadField::new(field, shown(value), "a table"));
        };
        let path = if path.is_empty() { String::new() } else { format!("{path}.") };
        Ok(PullFields { path, map })
    }

    /// Refuses the first field that is none of these.
    pub fn only(&self, known: &[&[&str]]) -> Result<(), BadField> {
        let is_known = |name: &str| known.iter().any(|names| names.contains(&name));
        match self.map.iter().find(|(name, _)| !is_known(name)) {
            None => Ok(()),
            Some((name, value)) => {
                let allowed = format!("no such field; known are {}", known.concat().join(", "));
                Err(BadField::new(self.name(name), shown(value), allowed))
            }
        }
    }

    /// The whole name of a field of this table.
    pub fn name(&self, field: &str) -> String {
        format!("{}{field}", self.path)
    }

    /// The error that `field` is not what is allowed.
    pub fn bad(&self, field: &str, allowed: impl Into<String>) -> BadField {
        let value = self.map.get(field).map_or_else(|| "missing".to_owned(), shown);
        BadField::new(self.name(field), value, allowed)
    }

    /// The value of a field as it is.
    pub fn value(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field)
    }

    /// A text that is not empty.
    pub fn text(&self, field: &str) -> Result<Option<&'a str>, BadField> {
        match self.map.get(field) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(self.bad(field, "a text that is not empty")),
        }
    }

    /// A text that must be there.
    pub fn required_text(&self, field: &str, allowed: &str) -> Result<&'a str, BadField> {
        self.text(field)?.ok_or_else(|| self.bad(field, allowed))
    }

    /// A flag; `default` if it is not there.
    pub fn flag(&self, field: &str, default: bool) -> Result<bool, BadField> {
        match self.map.get(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.bad(field, "true or false")),
        }
    }

    /// A whole number in this range; `default` if it is not there.
    pub fn number(&self, field: &str, range: RangeInclusive<u64>, default: u64) -> Result<u64, BadField> {
        let Some(value) = self.map.get(field) else { return Ok(default) };
        value
            .as_u64()
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.bad(field, format!("a whole number in {} to {}", range.start(), range.end())))
    }

    /// One of several words; the first of them if the field is not there.
    pub fn choice<T: Copy>(&self, field: &str, choices: &[(&str, T)]) -> Result<T, BadField> {
        let given = self.text(field)?;
        let found = choices.iter().find(|(word, _)| given.is_none_or(|given| given == *word));
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.bad(field, words.join(", "))
        })
    }

    /// A duration in microseconds, written with its unit as in `"5s"`; `default_us` if it is not there.
    pub fn duration_us(
        &self,
        field: &str,
        range_us: RangeInclusive<u64>,
        default_us: u64,
    ) -> Result<u64, BadField> {
        let Some(value) = self.map.get(field) else { return Ok(default_us) };
        value.as_str().and_then(duration_us).filter(|us| range_us.contains(us)).ok_or_else(|| {
            let (from, to) = (range_us.start() / 1_000, range_us.end() / 1_000_000);
            self.bad(
                field,
                format!("a text with the unit ms, s, m, h or d, such as \"5s\": {from}ms to {to}s"),
            )
        })
    }

    /// A list; empty if it is not there.
    pub fn list(&self, field: &str, items_max: usize) -> Result<&'a [Value], BadField> {
        match self.map.get(field) {
            None => Ok(&[]),
            Some(Value::Array(items)) if items.len() <= items_max => Ok(items),
            Some(_) => Err(self.bad(field, format!("a list of at most {items_max}"))),
        }
    }

    /// A list of texts, none of which is empty.
    pub fn texts(&self, field: &str, items_max: usize) -> Result<Vec<String>, BadField> {
        let text = |item: &Value| item.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let texts: Option<Vec<String>> = self.list(field, items_max)?.iter().map(text).collect();
        texts.ok_or_else(|| self.bad(field, "a list of texts that are not empty"))
    }

    /// Names and texts of a table; empty if it is not there.
    pub fn pairs(&self, field: &str, items_max: usize) -> Result<Vec<(&'a str, &'a str)>, BadField> {
        let Some(value) = self.map.get(field) else { return Ok(Vec::new()) };
        let pairs = value.as_object().filter(|table| table.len() <= items_max).and_then(|table| {
            table.iter().map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
        });
        pairs.ok_or_else(|| self.bad(field, format!("a table of at most {items_max} texts")))
    }
}

/// Parses a whole number with its unit. Returns microseconds.
fn duration_us(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// The JSON text of a value for an error, cut if it is long.
fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > SHOWN_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_name_the_field_the_value_and_what_is_allowed() {
        let value = json!({"every": "5", "n": 0, "flag": 1, "kind": "ftp", "text": "", "other": null});
        let fields = PullFields::new("records[0]", &value).expect("a table");
        let told = |error: BadField| error.to_string();
        let every = told(fields.duration_us("every", 1_000..=60_000_000, 0).expect_err("no unit"));
        assert!(
            every.starts_with("records[0].every: \"5\"; allowed: ") && every.contains("1ms to 60s"),
            "{every}"
        );
        let number = told(fields.number("n", 1..=5, 1).expect_err("too little"));
        assert_eq!(number, "records[0].n: 0; allowed: a whole number in 1 to 5");
        assert_eq!(
            told(fields.flag("flag", true).expect_err("no flag")),
            "records[0].flag: 1; allowed: true or false"
        );
        let kind = told(fields.choice("kind", &[("http", 1), ("mqtt", 2)]).expect_err("unknown"));
        assert_eq!(kind, "records[0].kind: \"ftp\"; allowed: http, mqtt");
        assert!(fields.text("text").is_err());
        let missing = told(fields.required_text("url", "an address").expect_err("missing"));
        assert_eq!(missing, "records[0].url: missing; allowed: an address");
        let other = told(fields.only(&[&["every", "n", "flag", "kind", "text"]]).expect_err("unknown"));
        assert!(other.starts_with("records[0].other: null; allowed: no such field"), "{other}");
        assert!(PullFields::new("", &json!([1])).is_err());
    }

    /// A field whose name is empty was refused by a message that named no field.
    #[test]
    fn a_field_without_a_name_is_named() {
        for (path, name) in [("", "\"\""), ("records[0]", "records[0].\"\"")] {
            let table = json!({"": 1});
            let bad = PullFields::new(path, &table).expect("a table").only(&[&["url"]]).expect_err("unknown");
            assert_eq!((bad.field.as_str(), bad.value.as_str()), (name, "1"));
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration_us("250ms"), Some(250_000));
        assert_eq!(duration_us("5s"), Some(5_000_000));
        assert_eq!(duration_us("2h"), Some(7_200_000_000));
        for bad in ["", "5", "s", "5 s", "-5s", "1.5s", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration_us(bad), None, "{bad}");
        }
    }
}
