//! Records for the tests of the store.

use bytes::Bytes;

use crate::record::{Birth, NodeName, Payload, Record, Source, Stamp};

/// A record with JSON data.
pub(super) fn record(source: &str, ts: u64, data: &[u8]) -> Record {
    of(source, Stamp::of_data(ts, data), Payload::Json(Bytes::copy_from_slice(data)))
}

/// A record that says that the source was deleted.
pub(super) fn deletion(source: &str, ts: u64) -> Record {
    of(source, Stamp::of_deletion(ts), Payload::Deleted)
}

/// A shared record whose data is its `ts`.
#[cfg(test)]
pub(super) fn shared(source: &str, ts: u64) -> crate::record::SharedRecord {
    std::sync::Arc::new(record(source, ts, ts.to_string().as_bytes()))
}

/// A record that was accepted by n1, in its life 1 and as its `ts`-th, at the time `ts`.
fn of(source: &str, stamp: Stamp, payload: Payload) -> Record {
    let birth = Birth { origin: NodeName::parse("n1").expect("name"), boot: 1, seq: stamp.ts };
    Record::new(Source::parse(source).expect("source"), stamp, payload, birth, stamp.ts, 0)
}
