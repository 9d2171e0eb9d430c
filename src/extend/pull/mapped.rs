//! The records that documents from outside were turned into.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::json::publish_frame;
use crate::record::Source;

/// Most records that are made of one document. A document of 8 MiB could ask for millions.
pub(super) const RECORDS_PER_DOCUMENT_MAX: usize = 100_000;
/// Most bytes of data and names that are made of one document, because many rules may name the same large part.
pub(super) const MAPPED_BYTES_MAX: usize = 64 << 20;
/// A record to publish, which is not yet checked by the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PullDraft {
    /// A valid name of a source.
    pub source: String,
    /// Timestamp in microseconds; `None` lets the node stamp it.
    pub ts: Option<u64>,
    /// The data of the record.
    pub data: PullData,
    /// Time to live in milliseconds; 0 is for ever.
    pub ttl_ms: u64,
}

/// Data of a record to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PullData {
    /// The text of one JSON value, verbatim.
    Json(String),
    /// Bytes that are no JSON.
    Binary(Vec<u8>),
    /// The source is to be deleted.
    Deleted,
}

/// What one or several documents were turned into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    /// The records, in the order of the document.
    pub drafts: Vec<PullDraft>,
    /// Number of records that could not be made.
    pub failed: u64,
    /// The reason of the first failure.
    pub failure: Option<String>,
    bytes: usize,
}

impl PullDraft {
    /// The same in the form that the node takes from clients.
    pub fn as_draft(&self) -> Draft<'_> {
        let payload = match &self.data {
            PullData::Json(text) => DraftPayload::Json(text.as_bytes()),
            PullData::Binary(bytes) => DraftPayload::Binary(bytes.as_slice().into()),
            PullData::Deleted => DraftPayload::Deleted,
        };
        Draft { source: self.source.as_str().into(), ts: self.ts, payload, ttl_ms: self.ttl_ms, ack: None }
    }

    /// The publish object by which a client would publish the record, on one line.
    pub fn publish_object(&self) -> String {
        let mut text = format!("{{\"source\":{}", serde_json::Value::from(self.source.as_str()));
        if let Some(ts) = self.ts {
            text.push_str(&format!(",\"ts\":{ts}"));
        }
        match &self.data {
            // Data may have line breaks, which would end the line of this object.
            PullData::Json(data) => text.push_str(&format!(",\"data\":{}", data.replace(['\n', '\r'], " "))),
            PullData::Binary(bytes) => {
                text.push_str(&format!(",\"data_b64\":\"{}\"", STANDARD.encode(bytes)))
            }
            PullData::Deleted => text.push_str(",\"deleted\":true"),
        }
        if self.ttl_ms > 0 {
            text.push_str(&format!(",\"ttl_ms\":{}", self.ttl_ms));
        }
        text.push('}');
        text
    }

    /// Bytes of the data.
    pub fn data_bytes(&self) -> usize {
        match &self.data {
            PullData::Json(text) => text.len(),
            PullData::Binary(bytes) => bytes.len(),
            PullData::Deleted => 0,
        }
    }

    fn of(draft: &Draft<'_>) -> PullDraft {
        let data = match &draft.payload {
            // The text is a part of a text.
            DraftPayload::Json(text) => PullData::Json(String::from_utf8_lossy(text).into_owned()),
            DraftPayload::Binary(bytes) => PullData::Binary(bytes.to_vec()),
            DraftPayload::Deleted => PullData::Deleted,
        };
        PullDraft { source: draft.source.as_ref().to_owned(), ts: draft.ts, data, ttl_ms: draft.ttl_ms }
    }
}

impl Mapped {
    /// Notes that a record could not be made.
    pub fn fail(&mut self, why: String) {
        self.failed += 1;
        self.failure.get_or_insert(why);
    }

    /// Adds a record, if there is room for it and its name is one.
    pub fn add(&mut self, draft: PullDraft) {
        self.bytes += draft.source.len() + draft.data_bytes();
        if self.drafts.len() >= RECORDS_PER_DOCUMENT_MAX || self.bytes > MAPPED_BYTES_MAX {
            let (records, mib) = (RECORDS_PER_DOCUMENT_MAX, MAPPED_BYTES_MAX >> 20);
            return self.fail(format!("more than {records} records or {mib} MiB of one document"));
        }
        if let Err(error) = Source::check(&draft.source) {
            return self.fail(error.to_string());
        }
        self.drafts.push(draft);
    }

    /// Adds the publish objects of a document.
    pub fn take_publishes(&mut self, document: &str) {
        let frame = match publish_frame(document) {
            Ok(frame) => frame,
            Err(error) => return self.fail(error.to_string()),
        };
        for item in frame.items.iter() {
            match &item.draft {
                Ok(draft) => self.add(PullDraft::of(draft)),
                Err(refusal) => self.fail(refusal.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_as_publish_objects() {
        let draft = |data, ts, ttl_ms| PullDraft { source: "a \"b\"".into(), ts, data, ttl_ms };
        let json = draft(PullData::Json("{\n \"x\": 1.0}".into()), Some(5), 7).publish_object();
        assert_eq!(json, r#"{"source":"a \"b\"","ts":5,"data":{  "x": 1.0},"ttl_ms":7}"#);
        let binary = draft(PullData::Binary(vec![0]), None, 0).publish_object();
        assert_eq!(binary, r#"{"source":"a \"b\"","data_b64":"AA=="}"#);
        assert_eq!(
            draft(PullData::Deleted, None, 0).publish_object(),
            r#"{"source":"a \"b\"","deleted":true}"#
        );
    }
}
