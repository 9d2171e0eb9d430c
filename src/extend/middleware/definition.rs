//! The definition of a middleware: how users write it, and how it is kept.
//!
//! It is kept as a JSON object with the version before it, so that the way back is one step. A module in WebAssembly is
//! too large for that record: the definition names it by its hash, and its parts are records of their own
//! ([`super::parts`]).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::bounds::MODULE_BYTES_MAX;
use super::link::OnFailure;
use super::parts::ModuleId;
use crate::expression::{Dialect, Expression};
use crate::extend::definition::BadField;
use crate::record::{Pattern, Source};

/// The fields that users write.
const FIELDS: [&str; 6] = ["on", "order", "cel", "wasm", "when", "on_failure"];
/// The fields that a node adds, which are passed over in what users write, so that they can put back what they got.
const OWN_FIELDS: [&str; 3] = ["kind", "version", "previous"];

/// What decides about records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleText {
    /// An expression in CEL.
    Cel(String),
    /// A module in WebAssembly.
    Wasm(ModuleId),
}

/// One version of a middleware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MiddlewareVersion {
    /// The sources whose records it is for.
    pub pattern: Pattern,
    /// Place of the middleware among all: those with smaller numbers decide first.
    pub order: i64,
    /// The expression or module that decides about records.
    pub rule: RuleText,
    /// The condition under which it is asked at all.
    pub when: Option<String>,
    /// What becomes of a record when it fails.
    pub on_failure: OnFailure,
    /// Number of the version: 1 for the first.
    pub version: u64,
}

/// A middleware as it is kept: the version in force, and the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MiddlewareDefinition {
    /// The version in force.
    pub current: MiddlewareVersion,
    /// The version before it, if there was one.
    pub previous: Option<MiddlewareVersion>,
}

impl MiddlewareDefinition {
    /// Reads a definition as it is kept.
    pub fn read(body: &Value) -> Result<MiddlewareDefinition, BadField> {
        let fields = object(body)?;
        let previous = match fields.get("previous") {
            None | Some(Value::Null) => None,
            Some(previous) => Some(MiddlewareVersion::read(object(previous)?)?),
        };
        Ok(MiddlewareDefinition { current: MiddlewareVersion::read(fields)?, previous })
    }

    /// The JSON text that is kept.
    pub fn write(&self) -> String {
        let mut fields = self.current.fields();
        if let Some(previous) = &self.previous {
            fields.insert("previous".into(), Value::Object(previous.fields()));
        }
        Value::Object(fields).to_string()
    }

    /// Makes the definition that follows when another version is put in force.
    pub fn followed_by(
        held: Option<MiddlewareDefinition>,
        mut next: MiddlewareVersion,
    ) -> MiddlewareDefinition {
        let previous = held.map(|held| held.current);
        next.version = previous.as_ref().map_or(1, |previous| previous.version.saturating_add(1));
        MiddlewareDefinition { current: next, previous }
    }

    /// Makes the definition by which the version before is in force again; `None` if there is none.
    pub fn rolled_back(self) -> Option<MiddlewareDefinition> {
        let previous = self.previous.clone()?;
        Some(MiddlewareDefinition::followed_by(Some(self), previous))
    }

    /// The modules that are needed for both versions.
    pub fn modules(&self) -> impl Iterator<Item = &ModuleId> {
        let versions = std::iter::once(&self.current).chain(&self.previous);
        versions.filter_map(|version| match &version.rule {
            RuleText::Wasm(module) => Some(module),
            RuleText::Cel(_) => None,
        })
    }
}

impl MiddlewareVersion {
    /// Reads what a user writes. Returns the module, too, if it comes along as base64.
    pub fn of_request(body: &Value) -> Result<(MiddlewareVersion, Option<Vec<u8>>), BadField> {
        let mut fields = object(body)?.clone();
        let module = match fields.get("wasm") {
            Some(Value::String(text)) => {
                let module = STANDARD.decode(text.as_bytes()).map_err(|error| {
                    BadField::new("wasm", error.to_string(), "a module as standard base64 with padding")
                })?;
                fields.insert("wasm".into(), told_module(&checked_module(&module)?));
                Some(module)
            }
            _ => None,
        };
        OWN_FIELDS.iter().for_each(|own| drop(fields.remove(*own)));
        Ok((MiddlewareVersion::read(&fields)?, module))
    }

    /// Reads what a user writes beside a module, as fields of texts.
    pub fn of_module(
        module: &[u8],
        texts: impl IntoIterator<Item = (String, String)>,
    ) -> Result<MiddlewareVersion, BadField> {
        let mut fields = Map::from_iter([("wasm".to_owned(), told_module(&checked_module(module)?))]);
        for (name, text) in texts {
            let value = match name.as_str() {
                "order" => text.parse::<i64>().map_or(Value::String(text), Value::from),
                _ => Value::String(text),
            };
            fields.insert(name, value);
        }
        MiddlewareVersion::read(&fields)
    }

    fn read(fields: &Map<String, Value>) -> Result<MiddlewareVersion, BadField> {
        let is_known = |name: &str| FIELDS.contains(&name) || OWN_FIELDS.contains(&name);
        if let Some(unknown) = fields.keys().find(|name| !is_known(name)) {
            return Err(BadField::new(unknown, "there is no such field", FIELDS.join(", ")));
        }
        let rule = match (fields.get("cel"), fields.get("wasm")) {
            (Some(cel), None) => RuleText::Cel(expression("cel", cel)?),
            (None, Some(wasm)) => RuleText::Wasm(read_module(wasm)?),
            _ => return Err(BadField::new("cel, wasm", "both or none", "exactly one of them")),
        };
        let when = fields.get("when").filter(|when| !when.is_null());
        Ok(MiddlewareVersion {
            pattern: read_pattern(fields.get("on"))?,
            order: fields.get("order").map_or(Ok(0), read_order)?,
            rule,
            when: when.map(|when| expression("when", when)).transpose()?,
            on_failure: fields.get("on_failure").map_or(Ok(OnFailure::Refuse), read_on_failure)?,
            version: fields.get("version").and_then(Value::as_u64).unwrap_or(1),
        })
    }

    fn fields(&self) -> Map<String, Value> {
        let MiddlewareVersion { pattern, order, rule, when, on_failure, version } = self;
        let (kind, value) = match rule {
            RuleText::Cel(text) => ("cel", json!(text)),
            RuleText::Wasm(module) => ("wasm", told_module(module)),
        };
        let on_failure = match on_failure {
            OnFailure::Refuse => "refuse",
            OnFailure::Pass => "pass",
        };
        let mut fields = Map::new();
        for (name, value) in [
            ("on", json!(pattern.as_str())),
            ("order", json!(order)),
            ("kind", json!(kind)),
            (kind, value),
            ("on_failure", json!(on_failure)),
            ("version", json!(version)),
        ] {
            fields.insert(name.into(), value);
        }
        if let Some(when) = when {
            fields.insert("when".into(), json!(when));
        }
        fields
    }
}

fn object(value: &Value) -> Result<&Map<String, Value>, BadField> {
    value.as_object().ok_or_else(|| BadField::new("definition", "no object", "an object"))
}

fn checked_module(module: &[u8]) -> Result<ModuleId, BadField> {
    let bytes = module.len();
    match (1..=MODULE_BYTES_MAX).contains(&bytes) {
        true => Ok(ModuleId::of(module)),
        false => {
            Err(BadField::new("wasm", format!("{bytes} bytes"), format!("1 to {MODULE_BYTES_MAX} bytes")))
        }
    }
}

fn told_module(module: &ModuleId) -> Value {
    json!({"hash": module.hash, "bytes": module.bytes})
}

fn read_module(value: &Value) -> Result<ModuleId, BadField> {
    let (hash, bytes) =
        (value.get("hash").and_then(Value::as_str), value.get("bytes").and_then(Value::as_u64));
    let module = hash.zip(bytes).and_then(|(hash, bytes)| ModuleId::told(hash, bytes));
    module.ok_or_else(|| {
        let allowed = "a module as base64, or hash and bytes of the module that is there";
        BadField::new("wasm", "neither a text nor the name of a module", allowed)
    })
}

fn expression(field: &str, value: &Value) -> Result<String, BadField> {
    let allowed = "an expression in CEL";
    let text = value.as_str().ok_or_else(|| BadField::new(field, "no text", allowed))?;
    match Expression::compile(text, Dialect::Middleware) {
        Ok(_) => Ok(text.to_owned()),
        Err(bad) => Err(BadField::new(field, bad.to_string(), allowed)),
    }
}

fn read_pattern(value: Option<&Value>) -> Result<Pattern, BadField> {
    let allowed = "a pattern of sources that are not the system's";
    let text =
        value.and_then(Value::as_str).ok_or_else(|| BadField::new("on", "missing or no text", allowed))?;
    let pattern = Pattern::parse(text).map_err(|error| BadField::new("on", error.to_string(), allowed))?;
    match Source::is_system(text) {
        true => Err(BadField::new("on", text, allowed)),
        false => Ok(pattern),
    }
}

fn read_order(value: &Value) -> Result<i64, BadField> {
    value.as_i64().ok_or_else(|| BadField::new("order", value.to_string(), "a whole number"))
}

fn read_on_failure(value: &Value) -> Result<OnFailure, BadField> {
    match value.as_str() {
        Some("refuse") => Ok(OnFailure::Refuse),
        Some("pass") => Ok(OnFailure::Pass),
        _ => Err(BadField::new("on_failure", value.to_string(), "\"refuse\" or \"pass\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(body: Value) -> MiddlewareVersion {
        MiddlewareVersion::of_request(&body).unwrap_or_else(|bad| panic!("{body}: {bad}")).0
    }

    #[test]
    fn what_is_written_is_read_again() {
        let first = version(json!({"on": "sensors/**", "cel": "data"}));
        let second = version(
            json!({"on": "a/*", "order": -3, "cel": "drop()", "when": "ts > 0", "on_failure": "pass"}),
        );
        let third = version(json!({"on": "**", "wasm": STANDARD.encode(b"\0asm")}));
        let mut held = MiddlewareDefinition::followed_by(None, first);
        for next in [second, third] {
            held = MiddlewareDefinition::followed_by(Some(held), next);
            let text = serde_json::from_str(&held.write()).expect("JSON");
            assert_eq!(MiddlewareDefinition::read(&text), Ok(held.clone()));
            assert_eq!(version(text.clone()), MiddlewareVersion { version: 1, ..held.current.clone() });
        }
        assert_eq!((held.current.version, held.modules().count()), (3, 1));
        let back = held.clone().rolled_back().expect("a version before");
        assert_eq!((back.current.version, back.current.order, back.modules().count()), (4, -3, 1));
        assert_eq!(back.rolled_back().map(|again| again.current.rule), Some(held.current.rule));
    }

    #[test]
    fn bad_fields_are_named() {
        for (field, body) in [
            ("definition", json!([])),
            ("on", json!({"cel": "data"})),
            ("on", json!({"on": "a//b", "cel": "data"})),
            ("on", json!({"on": "$middleware/*", "cel": "data"})),
            ("cel, wasm", json!({"on": "**"})),
            ("cel, wasm", json!({"on": "**", "cel": "data", "wasm": "AAAA"})),
            ("cel", json!({"on": "**", "cel": "data +"})),
            ("cel", json!({"on": "**", "cel": 5})),
            ("wasm", json!({"on": "**", "wasm": "!"})),
            ("wasm", json!({"on": "**", "wasm": ""})),
            ("wasm", json!({"on": "**", "wasm": {"hash": "x", "bytes": 1}})),
            ("order", json!({"on": "**", "cel": "data", "order": 1.5})),
            ("on_failure", json!({"on": "**", "cel": "data", "on_failure": "no"})),
            ("when", json!({"on": "**", "cel": "data", "when": "nothing"})),
            ("colour", json!({"on": "**", "cel": "data", "colour": 1})),
        ] {
            let bad = MiddlewareVersion::of_request(&body).expect_err(field);
            assert_eq!(bad.field, field, "{bad}");
        }
    }
}
