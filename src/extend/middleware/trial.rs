//! Trials: what a middleware would make of records, of which nothing is published.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::super::host::ExtendHost;
use super::chain::made_of;
use super::definition::MiddlewareVersion;
use super::rule::{GivenDraft, MiddlewareRule, RecordReader, Ruling};
use crate::protocol::draft::{Draft, DraftPayload, Item};
use crate::protocol::json::publish_frame;
use crate::protocol::refusal::{Code, Refusal};

/// Most records of one trial.
const TRIED_MAX: usize = 10_000;
/// Time after which a trial is ended, in microseconds.
const TRIAL_US_MAX: u64 = 5_000_000;

/// A middleware that is tried with records of which nothing is published.
pub struct MiddlewareTrial<'a> {
    /// The node whose records the rule may look up.
    pub host: &'a dyn ExtendHost,
    /// The records that the rule may look up.
    pub reader: Arc<dyn RecordReader>,
    /// The version that is tried.
    pub version: &'a MiddlewareVersion,
    /// The compiled rule of that version.
    pub rule: Arc<dyn MiddlewareRule>,
}

impl MiddlewareTrial<'_> {
    /// Tries publish objects: one a line, or an array of them. Returns a JSON array with an object for each.
    pub fn run(&self, text: &[u8]) -> Result<Vec<u8>, Refusal> {
        let text =
            std::str::from_utf8(text).map_err(|error| Refusal::new(Code::BadJson, error.to_string()))?;
        let begun_us = self.host.now().mono_us;
        let mut told = Vec::new();
        // Several lines are no JSON as a whole.
        let frames: Vec<&str> = match publish_frame(text) {
            Ok(_) => vec![text],
            Err(_) => text.lines().filter(|line| !line.trim().is_empty()).collect(),
        };
        for frame in frames {
            let frame = publish_frame(frame).map_err(|error| {
                Refusal::new(Code::BadJson, format!("record {}: {error}", told.len() + 1))
            })?;
            for Item { draft, .. } in frame.items.iter() {
                if told.len() >= TRIED_MAX || self.host.now().mono_us - begun_us > TRIAL_US_MAX {
                    let seconds = TRIAL_US_MAX / 1_000_000;
                    let message = format!("a trial may have {TRIED_MAX} records and take {seconds} s");
                    return Err(Refusal::new(Code::BadRequest, message));
                }
                told.push(match draft {
                    Ok(draft) => self.try_one(draft),
                    Err(refusal) => refused("refused", refusal.code, &refusal.message),
                });
            }
        }
        Ok(Value::Array(told).to_string().into_bytes())
    }

    fn try_one(&self, draft: &Draft<'_>) -> Value {
        let is_deletion = draft.payload == DraftPayload::Deleted;
        if is_deletion || !self.version.pattern.matches(&draft.source) {
            return json!({"outcome": "passed", "records": [told(draft)]});
        }
        let given = GivenDraft { draft, now_us: self.host.now().wall_us, token: "" };
        match self.rule.decide(&given, &self.reader) {
            Err(failure) => refused("failed", Code::MiddlewareFailed, &failure.0),
            Ok(Ruling::Reject(reason)) => refused("rejected", Code::Rejected, &reason),
            Ok(verdict) => match made_of(verdict, draft) {
                None => json!({"outcome": "passed", "records": [told(draft)]}),
                Some(made) if made.is_empty() => json!({"outcome": "dropped", "records": []}),
                Some(made) => {
                    let records: Vec<Value> = made.iter().map(|one| told(&one.as_draft())).collect();
                    json!({"outcome": "changed", "records": records})
                }
            },
        }
    }
}

/// What became of a record that does not come out.
fn refused(outcome: &str, code: Code, message: &str) -> Value {
    json!({"outcome": outcome, "records": [], "error": {"code": code.as_str(), "message": message}})
}

/// A draft as a publish object.
fn told(draft: &Draft<'_>) -> Value {
    let mut object = Map::new();
    object.insert("source".into(), draft.source.as_ref().into());
    if let Some(ts) = draft.ts {
        object.insert("ts".into(), ts.into());
    }
    let (name, value) = match &draft.payload {
        DraftPayload::Json(text) => ("data", serde_json::from_slice(text).unwrap_or_default()),
        DraftPayload::Binary(bytes) => ("data_b64", STANDARD.encode(bytes).into()),
        DraftPayload::Deleted => ("deleted", true.into()),
    };
    object.insert(name.into(), value);
    if draft.ttl_ms > 0 {
        object.insert("ttl_ms".into(), draft.ttl_ms.into());
    }
    Value::Object(object)
}
