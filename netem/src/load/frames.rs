//! Frames of the protocol as JSON: those that nodes send, read; and those that publishers send, written.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::checker::{Answer, Level, Offer, Outcome, Version};

/// A frame of a node. Which fields it has says what it is.
#[derive(Debug, Deserialize)]
pub struct Frame<'a> {
    pub id: Option<u64>,
    #[serde(borrow)]
    pub result: Option<ResultOf<'a>>,
    #[serde(borrow)]
    pub error: Option<ErrorOf<'a>>,
    #[serde(borrow)]
    pub eos: Option<Eos<'a>>,
    #[serde(borrow)]
    pub resume: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub source: Option<Cow<'a, str>>,
    pub ts: Option<u64>,
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
    #[serde(default)]
    pub deleted: bool,
    #[serde(borrow)]
    pub connected: Option<&'a RawValue>,
}

/// The result of a publish or of a subscription.
#[derive(Debug, Deserialize)]
pub struct ResultOf<'a> {
    pub ts: Option<u64>,
    #[serde(borrow)]
    pub outcome: Option<Cow<'a, str>>,
    pub current_ts: Option<u64>,
    pub nodes: Option<u32>,
    pub subscription: Option<u64>,
    pub recovered: Option<bool>,
}

/// The error that an answer brings.
#[derive(Debug, Deserialize)]
pub struct ErrorOf<'a> {
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    #[serde(default)]
    pub applied: bool,
    pub ts: Option<u64>,
}

/// The end of a snapshot.
#[derive(Debug, Deserialize)]
pub struct Eos<'a> {
    #[serde(borrow)]
    pub resume: Option<Cow<'a, str>>,
}

impl Frame<'_> {
    /// Returns the version, if the frame is a record.
    pub fn version(&self) -> Option<Version> {
        let ts = self.ts?;
        match (self.deleted, self.data) {
            (true, None) => Some(Version::of_deletion(ts)),
            (false, Some(data)) => Some(Version::of_data(ts, data.get().as_bytes())),
            _ => None,
        }
    }

    /// Returns the answer to a publish, if the frame is one and is whole.
    pub fn answer(&self) -> Option<Answer> {
        if let Some(error) = &self.error {
            let applied = if error.applied { Some(error.ts?) } else { None };
            return Some(Answer::Failed { code: error.code.as_ref().into(), applied });
        }
        let result = self.result.as_ref()?;
        let outcome = match result.outcome.as_deref()? {
            "applied" => Outcome::Applied,
            "duplicate" => Outcome::Duplicate,
            "stale" => Outcome::Stale { current_ts: result.current_ts? },
            _ => return None,
        };
        Some(Answer::Done { ts: result.ts?, outcome, nodes: result.nodes })
    }
}

/// Writes the frame of a publish.
pub fn publish(id: u64, offer: &Offer, data: &str) -> String {
    let ack = match offer.level {
        Level::Accepted => "accepted",
        Level::Stored => "stored",
        Level::Replicated => "replicated",
    };
    let mut text = String::with_capacity(data.len() + 128);
    // Writing into a string does not fail.
    let _ = write!(text, r#"{{"id":{id},"source":"{}","ack":"{ack}""#, offer.source);
    if let Some(ts) = offer.ts {
        let _ = write!(text, r#","ts":{ts}"#);
    }
    if offer.ttl_ms > 0 {
        let _ = write!(text, r#","ttl_ms":{}"#, offer.ttl_ms);
    }
    match offer.data_hash {
        Some(_) => text.push_str(r#","data":"#),
        None => text.push_str(r#","deleted":true"#),
    }
    text.push_str(if offer.data_hash.is_some() { data } else { "" });
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Frame<'_> {
        serde_json::from_str(text).expect(text)
    }

    #[test]
    fn answers_are_read() {
        let done = frame(r#"{"id":7,"result":{"ts":5,"outcome":"stale","current_ts":9,"level":"stored"}}"#);
        let stale = Outcome::Stale { current_ts: 9 };
        assert_eq!(done.answer(), Some(Answer::Done { ts: 5, outcome: stale, nodes: None }));
        let late = frame(
            r#"{"id":7,"error":{"code":"timeout","message":"x","temporary":true,"applied":true,"ts":3}}"#,
        );
        assert_eq!(late.answer(), Some(Answer::Failed { code: "timeout".into(), applied: Some(3) }));
        let strange = frame(r#"{"id":7,"result":{"ts":5,"outcome":"lost"}}"#);
        assert_eq!(strange.answer(), None);
    }

    #[test]
    fn records_are_read_and_their_data_stays_verbatim() {
        let record = frame(r#"{"source":"a/b","ts":5,"origin":"n1","data":{"n": 1.50}}"#);
        assert_eq!(record.version(), Some(Version::of_data(5, br#"{"n": 1.50}"#)));
        let deletion = frame(r#"{"source":"a/b","ts":6,"origin":"n1","deleted":true}"#);
        assert_eq!(deletion.version(), Some(Version::of_deletion(6)));
        assert_eq!(frame(r#"{"resume":"x"}"#).version(), None);
    }

    #[test]
    fn publishes_are_written() {
        let offer = Offer {
            source: "a/b".into(),
            ts: Some(4),
            data_hash: Some(1),
            data_bytes: 2,
            ttl_ms: 9,
            node: "n1".into(),
            level: Level::Stored,
        };
        assert_eq!(
            publish(3, &offer, "[]"),
            r#"{"id":3,"source":"a/b","ack":"stored","ts":4,"ttl_ms":9,"data":[]}"#
        );
        let deletion = Offer { data_hash: None, ts: None, ttl_ms: 0, ..offer };
        assert_eq!(publish(3, &deletion, ""), r#"{"id":3,"source":"a/b","ack":"stored","deleted":true}"#);
    }
}
