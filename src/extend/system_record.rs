//! Reading and publishing the records of the system's names that extensions keep.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use super::host::ExtendHost;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::refusal::Refusal;
use crate::record::{Payload, Record};

/// Publishes a record of the system's names.
pub fn tell_system(host: &dyn ExtendHost, source: &str, payload: DraftPayload<'_>) -> Result<(), Refusal> {
    host.tell(&Draft { source: Cow::Borrowed(source), ts: None, payload, ttl_ms: 0, ack: None }).map(drop)
}

/// Reads what a record keeps as JSON. `None` if it keeps something else, or is a deletion.
pub fn read_kept<T: DeserializeOwned>(record: &Record) -> Option<T> {
    match &record.payload {
        Payload::Json(text) => serde_json::from_slice(text).ok(),
        Payload::Binary(_) | Payload::Deleted => None,
    }
}
