//! The protobuf form of a single record, which is kept in the embedded store and sent when nodes reconcile their
//! maps. Records that have just been accepted travel in batches, in the form of [`super::compact`].

use bytes::Bytes;
use prost::encoding::encoded_len_varint;

use super::fields::{Fields, Malformed, write_bytes, write_field, write_fixed64, write_number, write_varint};
use super::{Birth, NodeName, Payload, Record, Source, Stamp};
use crate::limits::{TS_MAX, TTL_MS_MAX};

/// The reason why bytes are not a valid record.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes are not a protobuf message of this schema.
    #[error("undecodable record: {0}")]
    Decode(#[from] Malformed),
    /// A field has a value that no node would have written. Holds the name of the field.
    #[error("record with a bad {0}")]
    Field(&'static str),
    /// The checksum does not match: a bit was flipped during transfer or on the disk. Holds the name of the
    /// source.
    #[error("record of {0:?} fails its checksum")]
    Checksum(String),
}

/// Returns the number of bytes that [`write`] appends for the record.
pub fn encoded_len(record: &Record) -> usize {
    let text = |bytes: usize| if bytes == 0 { 0 } else { 1 + encoded_len_varint(bytes as u64) + bytes };
    let number = |number: u64| if number == 0 { 0 } else { 1 + encoded_len_varint(number) };
    let payload = match &record.payload {
        Payload::Json(bytes) | Payload::Binary(bytes) => {
            1 + encoded_len_varint(bytes.len() as u64) + bytes.len()
        }
        Payload::Deleted => 2,
    };
    let Birth { origin, boot, seq } = &record.birth;
    let birth = text(origin.as_bytes().len()) + number(*boot);
    let numbers = number(record.stamp.ts) + number(*seq) + number(record.accepted_us) + number(record.ttl_ms);
    let checksum = if record.checksum == 0 { 0 } else { 1 + 8 };
    text(record.source.as_str().len()) + payload + birth + numbers + checksum
}

/// Appends the record as a message.
///
/// It is written without generated code, because every record that is stored would first be copied into a
/// generated message. A test compares the result with that of the generated code.
pub fn write(out: &mut Vec<u8>, record: &Record) {
    write_bytes(out, 1, record.source.as_str().as_bytes());
    write_number(out, 2, record.stamp.ts);
    match &record.payload {
        // A payload is written even if it has no bytes, because its field number tells its kind.
        Payload::Json(bytes) => write_field(out, 3, bytes),
        Payload::Binary(bytes) => write_field(out, 4, bytes),
        Payload::Deleted => out.extend_from_slice(&[5 << 3, 1]),
    }
    write_bytes(out, 6, record.birth.origin.as_bytes());
    write_number(out, 7, record.birth.boot);
    write_number(out, 8, record.birth.seq);
    write_number(out, 9, record.accepted_us);
    write_number(out, 10, record.ttl_ms);
    write_fixed64(out, 11, record.checksum);
}

/// Appends the record as a message preceded by its length.
pub fn write_delimited(out: &mut Vec<u8>, record: &Record) {
    let len = encoded_len(record);
    out.reserve(encoded_len_varint(len as u64) + len);
    write_varint(out, len as u64);
    let start = out.len();
    write(out, record);
    debug_assert_eq!(out.len() - start, len, "the length stands before the record");
}

/// The fields of a message as they were read, not yet checked. `numbers` is indexed by field number;
/// `payload` is the field number and the content.
#[derive(Default)]
struct RecordFields<'a> {
    source: &'a str,
    payload: Option<(u32, &'a [u8])>,
    origin: &'a str,
    numbers: [u64; NUMBERS],
    checksum: u64,
}

/// Size of an array indexed by field number: one more than the highest number of a varint field.
const NUMBERS: usize = 11;

impl<'a> RecordFields<'a> {
    fn read(message: &'a [u8]) -> Result<RecordFields<'a>, Malformed> {
        let mut raw = RecordFields::default();
        for field in Fields::of(message) {
            match field? {
                (1, value) => raw.source = value.text()?,
                (field @ (3 | 4), value) => raw.payload = Some((field, value.bytes()?)),
                (5, value) => raw.payload = value.flag()?.then_some((5, &[])),
                (6, value) => raw.origin = value.text()?,
                (field @ (2 | 7..=10), value) => raw.numbers[field as usize] = value.number()?,
                (11, value) => raw.checksum = value.fixed64()?,
                _ => {}
            }
        }
        Ok(raw)
    }
}

/// Returns the record as a message.
pub fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_len(record));
    write(&mut out, record);
    out
}

/// Reads a record and verifies its checksum. Its data is copied, so that a record that stays in the map for years
/// does not keep its other fields a second time.
pub fn decode(message: &[u8]) -> Result<Record, WireError> {
    let raw = RecordFields::read(message)?;
    let [_, _, ts, _, _, _, _, boot, seq, accepted_us, ttl_ms] = raw.numbers;
    // Clients could not read a greater one exactly, and no later one could be issued.
    if ts > TS_MAX {
        return Err(WireError::Field("ts"));
    }
    if ttl_ms > TTL_MS_MAX {
        return Err(WireError::Field("ttl_ms"));
    }
    let source = Source::parse(raw.source).map_err(|_| WireError::Field("source"))?;
    let (payload, stamp) = match raw.payload {
        Some((3, bytes)) => {
            // Subscribers get this text inside WebSocket text frames, so it must be UTF-8 whichever way it
            // came.
            if !bytes.is_ascii() {
                std::str::from_utf8(bytes).map_err(|_| WireError::Field("json"))?;
            }
            (Payload::Json(Bytes::copy_from_slice(bytes)), Stamp::of_data(ts, bytes))
        }
        Some((4, bytes)) => (Payload::Binary(Bytes::copy_from_slice(bytes)), Stamp::of_data(ts, bytes)),
        Some(_) => (Payload::Deleted, Stamp::of_deletion(ts)),
        None => return Err(WireError::Field("payload")),
    };
    let origin = NodeName::parse(raw.origin).map_err(|_| WireError::Field("origin"))?;
    let birth = Birth { origin, boot, seq };
    let record = Record { source, stamp, payload, birth, accepted_us, ttl_ms, checksum: raw.checksum };
    if record.checksum != record.checksum_of() {
        return Err(WireError::Checksum(record.source.as_str().into()));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::proto::gossip as proto;

    fn to_proto(record: &Record) -> proto::Record {
        proto::Record {
            source: record.source.as_str().into(),
            ts: record.stamp.ts,
            payload: Some(match &record.payload {
                Payload::Json(bytes) => proto::record::Payload::Json(bytes.clone()),
                Payload::Binary(bytes) => proto::record::Payload::Binary(bytes.clone()),
                Payload::Deleted => proto::record::Payload::Deleted(true),
            }),
            origin: record.birth.origin.as_str().into(),
            boot: record.birth.boot,
            seq: record.birth.seq,
            accepted_us: record.accepted_us,
            ttl_ms: record.ttl_ms,
            checksum: record.checksum,
        }
    }

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
            prop_assert_eq!(decode(&encode(&before)).expect("decodes"), before);
        }

        #[test]
        fn is_written_as_the_generated_message_is(
            source in "[a-z]{1,9}(/[a-z]{1,90}){0,2}",
            payload in prop_oneof![
                Just(Payload::Deleted),
                proptest::collection::vec(any::<u8>(), 0..300).prop_map(|data| Payload::Binary(data.into())),
                "[a-z]{0,200}".prop_map(|text| Payload::Json(text.into())),
            ],
            numbers in proptest::array::uniform6(prop_oneof![Just(0u64), 0u64..300, any::<u64>()]),
        ) {
            let [ts, boot, seq, accepted_us, ttl_ms, checksum] = numbers;
            let birth = Birth { origin: NodeName::parse("n-1").expect("name"), boot, seq };
            let (source, stamp) = (Source::parse(&source).expect("source"), Stamp::of_deletion(ts));
            let record = Record { source, stamp, payload, birth, accepted_us, ttl_ms, checksum };
            let mut written = Vec::new();
            write(&mut written, &record);
            prop_assert_eq!(written.len(), encoded_len(&record));
            prop_assert_eq!(written, to_proto(&record).encode_to_vec());
        }

        #[test]
        fn garbage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }

    #[test]
    fn a_stamp_over_the_greatest_is_refused() {
        let beyond = record(Payload::Binary(vec![7; 4].into()), TS_MAX + 1, 0);
        assert!(matches!(decode(&encode(&beyond)), Err(WireError::Field("ts"))));
        assert!(decode(&encode(&record(Payload::Deleted, TS_MAX, 0))).is_ok());
    }

    /// Amazon S3, 2008-07-20: one flipped bit in messages without a checksum spread through the whole
    /// cluster.
    #[test]
    fn a_flipped_bit_is_seen() {
        let bytes = encode(&record(Payload::Binary(vec![7; 40].into()), 99, 0));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
    }
}
