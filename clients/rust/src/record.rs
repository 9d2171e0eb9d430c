//! What is published and read.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::AnodeError;

/// The data of a record.
#[derive(Clone, Debug)]
pub enum Data {
    /// A JSON value, spelled as it was published.
    Json(Box<RawValue>),
    /// Bytes, which travel as base64.
    Bytes(Vec<u8>),
    /// None: the record is a deletion.
    Deleted,
}

impl Data {
    /// Returns a value as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Data, AnodeError> {
        let raw = serde_json::value::to_raw_value(value);
        raw.map(Data::Json).map_err(|error| AnodeError::new("bad_json", format!("data is no JSON: {error}")))
    }

    /// Parses the JSON value.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, AnodeError> {
        match self {
            Data::Json(raw) => serde_json::from_str(raw.get())
                .map_err(|error| AnodeError::new("bad_json", format!("the data is something else: {error}"))),
            Data::Bytes(_) => Err(AnodeError::new("bad_json", "the data is bytes and no JSON")),
            Data::Deleted => Err(AnodeError::new("bad_json", "the record is a deletion and has no data")),
        }
    }

    /// Returns the bytes, if it is bytes.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Data::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the field of a frame that carries the data.
    pub(crate) fn field(&self) -> String {
        match self {
            Data::Json(raw) => format!("\"data\":{}", raw.get()),
            Data::Bytes(bytes) => format!("\"data_b64\":\"{}\"", STANDARD.encode(bytes)),
            Data::Deleted => "\"deleted\":true".to_owned(),
        }
    }
}

/// Data are equal if they are the same bytes, or JSON with the same spelling.
impl PartialEq for Data {
    fn eq(&self, other: &Data) -> bool {
        match (self, other) {
            (Data::Json(a), Data::Json(b)) => a.get() == b.get(),
            (Data::Bytes(a), Data::Bytes(b)) => a == b,
            (Data::Deleted, Data::Deleted) => true,
            _ => false,
        }
    }
}

/// Values whose JSON always exists. Numbers that JSON does not know (infinite, not a number) become `null`.
macro_rules! into_data {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Data {
            fn from(value: $kind) -> Data {
                let raw = serde_json::value::to_raw_value(&value);
                raw.map_or_else(|_| Data::Json(RawValue::NULL.to_owned()), Data::Json)
            }
        }
    )*};
}

into_data!(bool, i32, i64, u32, u64, f32, f64, &str, String, serde_json::Value);

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Data {
        Data::Bytes(bytes)
    }
}

impl From<&[u8]> for Data {
    fn from(bytes: &[u8]) -> Data {
        Data::Bytes(bytes.to_vec())
    }
}

/// One value of one source.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// The name of the source.
    pub source: String,
    /// Microseconds since the Unix epoch.
    pub ts: u64,
    /// The name of the node that accepted the record.
    pub origin: String,
    /// The value of the source at that time.
    pub data: Data,
    /// Whether the record is a deletion.
    pub deleted: bool,
    /// Whether the filter of the subscription is not true any longer of the source, of which a record was delivered
    /// before. Then there is no data, and no origin.
    pub gone: bool,
    /// Whether the record belongs to the state at the beginning of the subscription, and is no news.
    pub snapshot: bool,
}

/// A record as a node sends it.
#[derive(Debug, Deserialize)]
pub(crate) struct RecordBody<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    ts: u64,
    #[serde(borrow, default)]
    origin: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_b64: Option<Cow<'a, str>>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    gone: bool,
}

impl RecordBody<'_> {
    /// Returns the record.
    pub(crate) fn record(self, snapshot: bool) -> Result<Record, AnodeError> {
        let data = match (self.data, self.data_b64) {
            (_, _) if self.deleted || self.gone => Data::Deleted,
            (_, Some(text)) => Data::Bytes(STANDARD.decode(text.as_bytes()).map_err(|error| {
                AnodeError::new("protocol", format!("the node sent bytes that cannot be read: {error}"))
            })?),
            (Some(raw), None) => Data::Json(raw.to_owned()),
            // A value `null` is read as none.
            (None, None) => Data::Json(RawValue::NULL.to_owned()),
        };
        Ok(Record {
            source: self.source.into_owned(),
            ts: self.ts,
            origin: self.origin.into_owned(),
            data,
            deleted: self.deleted,
            gone: self.gone,
            snapshot,
        })
    }
}

/// The answer to a publish.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Ack {
    /// The timestamp of the record.
    pub ts: u64,
    /// What became of the record: `applied`, `duplicate` or `stale`.
    pub outcome: String,
    /// The acknowledgement level that was reached.
    pub level: String,
    /// For `stale`: the timestamp of the newer record.
    pub current_ts: Option<u64>,
    /// For the level `replicated`: how many members hold the record.
    pub nodes: Option<u64>,
}

/// The level at which a publish is answered: how safe the record is by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The node has applied the record.
    Accepted,
    /// The record survives a power cut.
    Stored,
    /// Every live member holds the record.
    Replicated,
}

impl Level {
    /// The name in frames.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Accepted => "accepted",
            Level::Stored => "stored",
            Level::Replicated => "replicated",
        }
    }
}

/// The mode of a subscription: whether a reader that is slow gets every record or the newest of each source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A reader that cannot keep up gets the newest of each source.
    #[default]
    Latest,
    /// Every record that the node applies.
    All,
}

impl Mode {
    /// The name in frames.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Latest => "latest",
            Mode::All => "all",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Data {
        let body: RecordBody<'_> = serde_json::from_str(text).expect("record");
        body.record(false).expect("data").data
    }

    #[test]
    fn data_comes_out_as_it_went_in() {
        assert_eq!(read(r#"{"source":"a","ts":1,"origin":"n","data":2.50}"#).field(), "\"data\":2.50");
        assert_eq!(read(r#"{"source":"a","ts":1,"origin":"n","data":null}"#).field(), "\"data\":null");
        assert_eq!(
            read(r#"{"source":"a","ts":1,"origin":"n","data_b64":"AP8="}"#),
            Data::from(vec![0u8, 255])
        );
        assert_eq!(read(r#"{"source":"a","ts":1,"origin":"n","deleted":true}"#), Data::Deleted);
        assert_eq!(Data::from("ü\"").field(), "\"data\":\"ü\\\"\"");
        assert_eq!(Data::from(21.5).parse::<f64>(), Ok(21.5));
        assert!(Data::from(vec![1u8]).parse::<f64>().is_err());
        assert_eq!(Data::from(f64::NAN).field(), "\"data\":null");
    }
}
