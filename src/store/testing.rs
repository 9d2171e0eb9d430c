//! Records for the tests of this room.

use std::sync::Arc;

use bytes::Bytes;

use crate::record::{Birth, NodeName, Payload, Record, SharedRecord, Source, Stamp};

/// A value.
pub(super) fn record(source: &str, ts: u64, data: &[u8]) -> Record {
    of(source, Stamp::of_data(ts, data), Payload::Json(Bytes::copy_from_slice(data)))
}

/// A deletion.
pub(super) fn deletion(source: &str, ts: u64) -> Record {
    of(source, Stamp::of_deletion(ts), Payload::Deleted)
}

/// A value whose data is its stamp.
pub(super) fn shared(source: &str, ts: u64) -> SharedRecord {
    Arc::new(record(source, ts, ts.to_string().as_bytes()))
}

fn of(source: &str, stamp: Stamp, payload: Payload) -> Record {
    let birth = Birth { origin: NodeName::parse("n1").expect("name"), boot: 1, seq: stamp.ts };
    Record::new(Source::parse(source).expect("source"), stamp, payload, birth, stamp.ts, 0)
}
