//! Encodes records as the values of Cassandra's rows.
//!
//! Cassandra keeps, of two cells, the one with the greater write timestamp, and of two with the same
//! the one whose value is greater byte by byte. So the record's `ts` is the write timestamp, and a
//! value begins with what decides the rest of the order: `deleted`, the hash of the data, and, for
//! the tie that is broken in silence, the birth. Written twice, late, or from two nodes, the same
//! row comes out. A deletion is a value like any other: a tombstone would beat every value of its
//! `ts`, and be forgotten on Cassandra's own terms.
//!
//! ```text
//! value = deleted (1) · hash (16) · origin, 0 · boot (8) · number (8) · record (protobuf)
//! ```
//! Numbers are big-endian, so that their bytes are in their order; a name has no byte under `-`.

use crate::record::{Record, Stamp, wire};

/// Microseconds of one partition of a source's history: an hour. A longer time gives fewer partitions to look
/// at for a source that seldom changes; a shorter one gives smaller partitions for a source that changes
/// often. At a hundred records of 100 bytes a second a partition has 60 MB, which Cassandra handles well.
pub(super) const BUCKET_US: u64 = 3_600_000_000;
/// Bytes of `deleted` and the hash.
pub(super) const TIE_BYTES: usize = 17;

/// The part of a stamp that decides between two stamps of one `ts`.
pub(super) fn tie(stamp: Stamp) -> [u8; TIE_BYTES] {
    let mut bytes = [0; TIE_BYTES];
    bytes[0] = u8::from(stamp.deleted);
    bytes[1..].copy_from_slice(&stamp.hash.to_be_bytes());
    bytes
}

/// Encodes a record as the value of a row.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let record_bytes = wire::encode(record);
    let birth = &record.birth;
    let mut value = Vec::with_capacity(TIE_BYTES + birth.origin.as_bytes().len() + 17 + record_bytes.len());
    value.extend_from_slice(&tie(record.stamp));
    value.extend_from_slice(birth.origin.as_bytes());
    value.push(0);
    value.extend_from_slice(&birth.boot.to_be_bytes());
    value.extend_from_slice(&birth.seq.to_be_bytes());
    value.extend_from_slice(&record_bytes);
    value
}

/// Decodes the value of a row and verifies the record's checksum. `None`: the bytes are damaged.
pub(super) fn decode(value: Vec<u8>) -> Option<Record> {
    let name = value.get(TIE_BYTES..)?.iter().position(|&byte| byte == 0)?;
    let from = TIE_BYTES + name + 1 + 16;
    let record = wire::decode(value.get(from..).unwrap_or_default()).ok()?;
    (value.get(..TIE_BYTES)? == tie(record.stamp)).then_some(record)
}

/// Number of the partition of its source's history that a record of this `ts` belongs to.
pub(super) fn bucket(ts: u64) -> i64 {
    i64::try_from(ts / BUCKET_US).unwrap_or(i64::MAX)
}

/// A `ts` as CQL's bigint. Both have room for 2^53, the greatest `ts`.
pub(super) fn bigint(ts: u64) -> i64 {
    i64::try_from(ts).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::merge::order;
    use crate::record::{Birth, NodeName, Payload, Source};

    pub(in crate::store::cassandra) fn any_record() -> impl Strategy<Value = Record> {
        let payload = prop_oneof![
            3 => (0u8..6).prop_map(|n| Payload::Json(vec![b'0' + n].into())),
            1 => (0u8..6).prop_map(|n| Payload::Binary(vec![b'0' + n].into())),
            1 => Just(Payload::Deleted),
        ];
        let birth = ("[a-c]{1,2}", 0u64..3, 1u64..300);
        (payload, 1_000u64..1_003, birth).prop_map(|(payload, ts, (origin, boot, seq))| {
            let stamp = match &payload {
                Payload::Deleted => Stamp::of_deletion(ts),
                data => Stamp::of_data(ts, data.bytes()),
            };
            let birth = Birth { origin: NodeName::parse(&origin).expect("name"), boot, seq };
            Record::new(Source::parse("s").expect("source"), stamp, payload, birth, ts, 0)
        })
    }

    proptest! {
        #[test]
        fn a_value_comes_back(record in any_record()) {
            prop_assert_eq!(decode(encode(&record)), Some(record));
        }

        /// The order of values is the order of records, births included.
        #[test]
        fn values_are_in_the_records_order(a in any_record(), b in any_record()) {
            let expected = order(&a, &b);
            let bytes = (a.stamp.ts, encode(&a)).cmp(&(b.stamp.ts, encode(&b)));
            if (a.stamp, &a.birth) != (b.stamp, &b.birth) {
                prop_assert_eq!(bytes, expected);
            }
        }

        #[test]
        fn garbage_is_no_record(value in proptest::collection::vec(any::<u8>(), 0..120)) {
            prop_assert_eq!(decode(value), None);
        }
    }
}
