//! The protobuf form of a record: between nodes, and in the embedded store.

use bytes::Bytes;
use prost::Message;

use super::{Birth, NodeName, Payload, Record, Source, Stamp};
use crate::limits::{TS_MAX, TTL_MS_MAX};
use crate::proto::gossip as proto;

/// Why bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No protobuf of this schema.
    #[error("undecodable record: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A field that no node would have written.
    #[error("record with a bad {0}")]
    Field(&'static str),
    /// A bit flipped on the way, or on the disk.
    #[error("record of {0:?} fails its checksum")]
    Checksum(String),
}

/// The record as a message. `in_batch`: origin and boot stand in the batch's header.
pub fn to_proto(record: &Record, in_batch: bool) -> proto::Record {
    proto::Record {
        source: record.source.as_str().into(),
        ts: record.stamp.ts,
        payload: Some(match &record.payload {
            Payload::Json(bytes) => proto::record::Payload::Json(bytes.clone()),
            Payload::Binary(bytes) => proto::record::Payload::Binary(bytes.clone()),
            Payload::Deleted => proto::record::Payload::Deleted(true),
        }),
        origin: if in_batch { String::new() } else { record.birth.origin.as_str().into() },
        boot: if in_batch { 0 } else { record.birth.boot },
        seq: record.birth.seq,
        accepted_us: record.accepted_us,
        ttl_ms: record.ttl_ms,
        checksum: record.checksum,
    }
}

/// The message as a record, its checksum verified. `batch`: origin and boot of the batch it came in.
pub fn from_proto(message: proto::Record, batch: Option<(&NodeName, u64)>) -> Result<Record, WireError> {
    // A stamp over the greatest would overflow the clock that issues greater ones.
    if message.ts > TS_MAX {
        return Err(WireError::Field("ts"));
    }
    if message.ttl_ms > TTL_MS_MAX {
        return Err(WireError::Field("ttl_ms"));
    }
    let source = Source::parse(&message.source).map_err(|_| WireError::Field("source"))?;
    let (payload, stamp) = match message.payload {
        Some(proto::record::Payload::Json(bytes)) => {
            // Clients are sent this text inside text frames: it must be UTF-8 wherever it came from.
            std::str::from_utf8(&bytes).map_err(|_| WireError::Field("json"))?;
            let stamp = Stamp::of_data(message.ts, &bytes);
            (Payload::Json(bytes), stamp)
        }
        Some(proto::record::Payload::Binary(bytes)) => {
            let stamp = Stamp::of_data(message.ts, &bytes);
            (Payload::Binary(bytes), stamp)
        }
        Some(proto::record::Payload::Deleted(true)) => (Payload::Deleted, Stamp::of_deletion(message.ts)),
        _ => return Err(WireError::Field("payload")),
    };
    let (origin, boot) = match batch {
        Some((origin, boot)) => (origin.clone(), boot),
        None => (NodeName::parse(&message.origin).map_err(|_| WireError::Field("origin"))?, message.boot),
    };
    let birth = Birth { origin, boot, seq: message.seq };
    let (accepted_us, ttl_ms) = (message.accepted_us, message.ttl_ms);
    let record = Record { source, stamp, payload, birth, accepted_us, ttl_ms, checksum: message.checksum };
    if record.checksum != record.checksum_of() {
        return Err(WireError::Checksum(record.source.as_str().into()));
    }
    Ok(record)
}

/// The record as bytes that stand alone.
pub fn encode(record: &Record) -> Vec<u8> {
    to_proto(record, false).encode_to_vec()
}

/// The record of such bytes, its checksum verified.
pub fn decode(bytes: Bytes) -> Result<Record, WireError> {
    from_proto(proto::Record::decode(bytes)?, None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(payload: Payload, ts: u64, ttl_ms: u64) -> Record {
        let stamp = match &payload {
            Payload::Deleted => Stamp::of_deletion(ts),
            other => Stamp::of_data(ts, other.bytes()),
        };
        let birth = Birth { origin: NodeName::parse("n-1").expect("name"), boot: 7, seq: 42 };
        Record::new(Source::parse("a/b").expect("source"), stamp, payload, birth, ts + 5, ttl_ms)
    }

    proptest! {
        #[test]
        fn comes_back_as_it_went(data in proptest::collection::vec(any::<u8>(), 0..300), ts in 0u64..1 << 53, ttl in 0u64..99, kind in 0..3) {
            let payload = match kind {
                0 => Payload::Binary(data.into()),
                1 => Payload::Json(Bytes::from_static(b"{ }")),
                _ => Payload::Deleted,
            };
            let before = record(payload, ts, ttl);
            prop_assert_eq!(decode(encode(&before).into()).expect("decodes"), before);
        }

        #[test]
        fn garbage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(bytes.into()).is_err());
        }
    }

    #[test]
    fn a_stamp_over_the_greatest_is_refused() {
        let beyond = record(Payload::Binary(vec![7; 4].into()), TS_MAX + 1, 0);
        assert!(matches!(decode(encode(&beyond).into()), Err(WireError::Field("ts"))));
        assert!(decode(encode(&record(Payload::Deleted, TS_MAX, 0)).into()).is_ok());
    }

    /// S3, 2008-07-20: one flipped bit, unchecked, spread through the whole cluster.
    #[test]
    fn a_flipped_bit_is_seen() {
        let bytes = encode(&record(Payload::Binary(vec![7; 40].into()), 99, 0));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(flipped.into()).is_err(), "bit {bit}");
        }
    }
}
