//! The definition of a webhook.

use serde_json::Value;

use crate::expression::{Dialect, Expression};
use crate::extend::definition::BadField;
use crate::extend::fields::{DefinitionFields, bad_field};
use crate::extend::secret::SecretName;
use crate::record::Pattern;

/// Most patterns of one webhook.
const HOOK_PATTERNS_MAX: usize = 16;
/// Longest address, in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// Most further header fields of one webhook.
const HOOK_HEADERS_MAX: usize = 16;
/// Most records that a webhook may be told to send at a time.
const BATCH_RECORDS_CEILING: u64 = 10_000;
/// Records that are sent at a time where a definition says nothing. Most receivers answer within a fraction of a second
/// then.
const BATCH_RECORDS: u64 = 100;
/// Most bytes that a webhook may be told to send at a time. A record that has more is sent by itself.
const BATCH_BYTES_CEILING: u64 = 4 * 1024 * 1024;
/// Fewest bytes that a webhook may be told to send at a time.
const BATCH_BYTES_MIN: u64 = 1_024;
/// Bytes that are sent at a time where a definition says nothing: many receivers take a megabyte.
const BATCH_BYTES: u64 = 256 * 1024;
/// Longest time for which records may wait for others to be sent with, in microseconds.
const LINGER_US_MAX: u64 = 60_000_000;
/// Longest and shortest time for an answer, in microseconds.
const TIMEOUT_US: std::ops::RangeInclusive<u64> = 100_000..=120_000_000;
/// Time for an answer where a definition says nothing, in microseconds: what Standard Webhooks recommend.
const TIMEOUT_US_DEFAULT: u64 = 15_000_000;

/// A webhook: which records are sent where, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookDefinition {
    /// Patterns of the sources whose records are sent.
    pub on: Vec<Pattern>,
    /// A condition in CEL that a record must meet to be sent.
    pub filter: Option<String>,
    /// The address that batches are posted to.
    pub url: String,
    /// Secret that batches are signed with; without one, they are not signed.
    pub secret: Option<SecretName>,
    /// Further header fields, whose values may be secrets.
    pub headers: Vec<(String, HeaderValueOf)>,
    /// Most records of a batch.
    pub batch_records: usize,
    /// Most bytes of a batch, unless a single record has more.
    pub batch_bytes: usize,
    /// For how long records wait for others, in microseconds.
    pub linger_us: u64,
    /// Longest time from connecting to the end of the answer, in microseconds.
    pub timeout_us: u64,
    /// Whether the receiver first gets the latest records of all sources.
    pub snapshot: bool,
}

/// The value of a header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValueOf {
    /// The text itself.
    Text(String),
    /// A variable in the environment of the runner.
    Secret(SecretName),
}

impl HookDefinition {
    /// Reads a definition, and names the field that is wrong.
    pub fn read(body: &Value) -> Result<HookDefinition, BadField> {
        let mut fields = DefinitionFields::of(body)?;
        let patterns = "a pattern such as \"sensors/**\", or a list of some";
        let on = fields.patterns("on", HOOK_PATTERNS_MAX)?;
        let on = on.ok_or_else(|| BadField::new("on", "missing", patterns))?;
        let url = fields.required("url", URL_ALLOWED)?;
        check_url(url)?;
        let secret = fields.text("secret", SecretName::ALLOWED)?;
        let secret = secret.map(|text| {
            SecretName::parse(text).ok_or_else(|| BadField::new("secret", "(not shown)", SecretName::ALLOWED))
        });
        let batch_records = fields.number("batch_records", 1..=BATCH_RECORDS_CEILING)?;
        let batch_bytes = fields.number("batch_bytes", BATCH_BYTES_MIN..=BATCH_BYTES_CEILING)?;
        let definition = HookDefinition {
            on,
            filter: filter(fields.text("filter", FILTER_ALLOWED)?)?,
            url: url.to_owned(),
            secret: secret.transpose()?,
            headers: headers(fields.value("headers"))?,
            batch_records: as_count(batch_records.unwrap_or(BATCH_RECORDS)),
            batch_bytes: as_count(batch_bytes.unwrap_or(BATCH_BYTES)),
            linger_us: fields.duration_us("linger", 0..=LINGER_US_MAX)?.unwrap_or(0),
            timeout_us: fields.duration_us("timeout", TIMEOUT_US)?.unwrap_or(TIMEOUT_US_DEFAULT),
            snapshot: fields.flag("snapshot")?.unwrap_or(false),
        };
        fields.finish()?;
        Ok(definition)
    }

    /// The reason why this node cannot run the webhook; `None` if it can.
    pub fn lack(&self) -> Option<String> {
        let headers = self.headers.iter().filter_map(|(_, value)| match value {
            HeaderValueOf::Secret(name) => Some(name),
            HeaderValueOf::Text(_) => None,
        });
        self.secret.iter().chain(headers).find_map(SecretName::lack)
    }
}

const FILTER_ALLOWED: &str = "a CEL expression, such as \"data > 30.0\"";
const URL_ALLOWED: &str =
    "an address that begins with http:// or https://, without a fragment, a user or a password";

fn filter(text: Option<&str>) -> Result<Option<String>, BadField> {
    let Some(text) = text else { return Ok(None) };
    match Expression::compile(text, Dialect::Filter) {
        Ok(_) => Ok(Some(text.to_owned())),
        Err(bad) => Err(BadField::new("filter", bad.to_string(), FILTER_ALLOWED)),
    }
}

fn check_url(text: &str) -> Result<(), BadField> {
    let is_fine = text.len() <= URL_BYTES_MAX
        && reqwest::Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        });
    // A password in a wrong address is not repeated.
    let shown = if text.contains('@') { "(not shown)".into() } else { Value::from(text).to_string() };
    if is_fine { Ok(()) } else { Err(BadField::new("url", shown, URL_ALLOWED)) }
}

fn headers(value: Option<&Value>) -> Result<Vec<(String, HeaderValueOf)>, BadField> {
    const ALLOWED: &str = "up to 16 header fields with texts; not those of HTTP itself, nor webhook-*";
    /// Fields that the client of HTTP sets by itself.
    const OWN: [&str; 6] =
        ["content-type", "content-length", "host", "transfer-encoding", "connection", "user-agent"];
    let Some(value) = value else { return Ok(Vec::new()) };
    let map = value.as_object().filter(|map| map.len() <= HOOK_HEADERS_MAX);
    let map = map.ok_or_else(|| bad_field("headers", value, ALLOWED))?;
    let read = |(name, value): (&String, &Value)| {
        let bad = || BadField::new(format!("headers.{name}"), "(not shown)", ALLOWED);
        let lower = name.to_ascii_lowercase();
        let is_name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if !is_name || OWN.contains(&lower.as_str()) || lower.starts_with("webhook-") {
            return Err(bad());
        }
        let text = value.as_str().ok_or_else(bad)?;
        if text.starts_with("env:") {
            let bad = || BadField::new(format!("headers.{name}"), "(not shown)", SecretName::ALLOWED);
            return SecretName::parse(text).map(|name| (lower, HeaderValueOf::Secret(name))).ok_or_else(bad);
        }
        reqwest::header::HeaderValue::from_str(text).map_err(|_| bad())?;
        Ok((lower, HeaderValueOf::Text(text.to_owned())))
    };
    map.iter().map(read).collect()
}

fn as_count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_has_its_defaults() {
        let body = json!({"on": "a/**", "url": "http://127.0.0.1:1/x?y=1"});
        let hook = HookDefinition::read(&body).expect("a webhook");
        assert_eq!((hook.batch_records, hook.batch_bytes), (100, 256 * 1024));
        assert_eq!((hook.timeout_us, hook.linger_us, hook.snapshot), (15_000_000, 0, false));
        assert_eq!(hook.lack(), None);
        let body = json!({
            "on": ["a", "b/*"], "url": "https://h/", "secret": "env:NO_SUCH_VARIABLE_HERE", "timeout": "2s",
            "batch_records": 7, "batch_bytes": 2048, "linger": "10ms", "snapshot": true, "filter": "true",
            "headers": {"Authorization": "env:TOKEN_OF_X", "x-a": "b"},
        });
        let hook = HookDefinition::read(&body).expect("a webhook");
        assert_eq!((hook.on.len(), hook.batch_records, hook.linger_us), (2, 7, 10_000));
        assert!(hook.lack().is_some_and(|why| why.contains("NO_SUCH_VARIABLE_HERE")));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let with = |field: &str, value: Value| {
            let mut body = json!({"on": "a", "url": "http://h/"});
            body[field] = value;
            HookDefinition::read(&body).map_err(|bad| bad.field)
        };
        assert!(with("linger", json!("1s")).is_ok());
        for (field, bad) in [
            ("on", json!("a//b")),
            ("on", json!([])),
            ("url", json!("ftp://h/")),
            ("url", json!("http://")),
            ("url", json!("http://u:p@h/")),
            ("url", json!("http://h/#x")),
            ("secret", json!("whsec_abc")),
            ("batch_records", json!(0)),
            ("batch_bytes", json!(1)),
            ("linger", json!("2h")),
            ("timeout", json!("1ms")),
            ("snapshot", json!(1)),
            ("filter", json!("")),
            ("filter", json!("data >")),
            ("headers", json!([])),
            ("colour", json!("red")),
        ] {
            assert_eq!(with(field, bad.clone()).map(|_| ()), Err(field.into()), "{bad}");
        }
        for name in ["Host", "webhook-id", "a b", "Content-Type"] {
            let error = with("headers", json!({name: "x"})).expect_err(name);
            assert_eq!(error, format!("headers.{name}"));
        }
        assert_eq!(
            HookDefinition::read(&json!({"url": "http://h/"})).map_err(|bad| bad.field),
            Err("on".into())
        );
        // Neither a secret nor a password is repeated.
        let error =
            HookDefinition::read(&json!({"on": "a", "url": "http://u:geheim@h/"})).expect_err("a password");
        assert!(!error.to_string().contains("geheim"), "{error}");
    }
}
