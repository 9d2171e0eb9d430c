//! Keys and values of the tables, byte by byte. Numbers in keys are big-endian, so that the order of
//! the bytes is the order of the records; numbers in values are little-endian.

use std::borrow::Cow;

use crate::record::Stamp;

/// Bytes of a stamp: `ts` (8), `deleted` (1), `hash` (16).
pub(super) const STAMP_BYTES: usize = 25;
/// Bytes before the record in a row of the latest table: its stamp and the length of the ring (4).
const HEAD_BYTES: usize = STAMP_BYTES + 4;
/// Byte that ends a source's name in a history key. Names have no control characters, so no name's keys
/// lie among those of another.
const END_OF_NAME: u8 = 0;

/// A value of the latest table: the encoded record, behind the fields of it that a write needs.
pub(super) struct LatestRow<'a> {
    /// Stamp of the record.
    pub(super) stamp: Stamp,
    /// Number of records of the source in the history table.
    pub(super) older: u32,
    /// Record as it is encoded between nodes.
    pub(super) wire: Cow<'a, [u8]>,
}

impl LatestRow<'_> {
    /// Reads a row. Returns `None` if the bytes are too few to be one.
    pub(super) fn parse(bytes: &[u8]) -> Option<LatestRow<'_>> {
        let (stamp, rest) = bytes.split_at_checked(STAMP_BYTES)?;
        let (older, wire) = rest.split_at_checked(HEAD_BYTES - STAMP_BYTES)?;
        let older = u32::from_le_bytes(older.try_into().ok()?);
        Some(LatestRow { stamp: read_stamp(stamp)?, older, wire: Cow::Borrowed(wire) })
    }

    /// Encodes the row as the table holds it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.wire.len());
        write_stamp(&mut bytes, self.stamp);
        bytes.extend_from_slice(&self.older.to_le_bytes());
        bytes.extend_from_slice(&self.wire);
        bytes
    }

    /// Copies the row out of the table that it was borrowed from.
    pub(super) fn into_owned(self) -> LatestRow<'static> {
        LatestRow { stamp: self.stamp, older: self.older, wire: Cow::Owned(self.wire.into_owned()) }
    }
}

/// The key of a record in the history table.
pub(super) fn history_key(source: &str, stamp: Stamp) -> Vec<u8> {
    let mut key = Vec::with_capacity(source.len() + 1 + STAMP_BYTES);
    key.extend_from_slice(source.as_bytes());
    key.push(END_OF_NAME);
    write_stamp(&mut key, stamp);
    key
}

/// The half-open range of the keys of a source in the history table.
pub(super) fn history_bounds(source: &str) -> (Vec<u8>, Vec<u8>) {
    let bound = |end| [source.as_bytes(), &[end]].concat();
    (bound(END_OF_NAME), bound(END_OF_NAME + 1))
}

/// The stamp in a key of the history table; `None` if the key is too short to have one.
pub(super) fn stamp_of_history_key(key: &[u8]) -> Option<Stamp> {
    read_stamp(key.get(key.len().checked_sub(STAMP_BYTES)?..)?)
}

/// Appends a stamp to `bytes`, in an order of bytes that is the order of stamps.
pub(super) fn write_stamp(bytes: &mut Vec<u8>, stamp: Stamp) {
    bytes.extend_from_slice(&stamp.ts.to_be_bytes());
    bytes.push(u8::from(stamp.deleted));
    bytes.extend_from_slice(&stamp.hash.to_be_bytes());
}

/// Reads a stamp. Returns `None` unless there are exactly [`STAMP_BYTES`] bytes.
pub(super) fn read_stamp(bytes: &[u8]) -> Option<Stamp> {
    let (ts, rest) = bytes.split_first_chunk()?;
    let (deleted, hash) = rest.split_first()?;
    Some(Stamp {
        ts: u64::from_be_bytes(*ts),
        deleted: *deleted != 0,
        hash: u128::from_be_bytes(hash.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_stand_in_the_order_of_their_records(a in any::<(u64, bool, u128)>(), b in any::<(u64, bool, u128)>()) {
            let stamp = |(ts, deleted, hash)| Stamp { ts, deleted, hash };
            let (a, b) = (stamp(a), stamp(b));
            prop_assert_eq!(history_key("s/1", a).cmp(&history_key("s/1", b)), a.cmp(&b));
            prop_assert_eq!(stamp_of_history_key(&history_key("s/1", a)), Some(a));
            let (from, to) = history_bounds("s/1");
            prop_assert!(from <= history_key("s/1", a) && history_key("s/1", a) < to);
            for other in ["s", "s/", "s/1 ", "s/1/x", "s/11"] {
                let key = history_key(other, b);
                prop_assert!(key < from || key >= to, "{}", other);
            }
        }

        #[test]
        fn rows_come_back(ts in any::<u64>(), older in any::<u32>(), wire in proptest::collection::vec(any::<u8>(), 0..40)) {
            let row = LatestRow { stamp: Stamp::of_data(ts, &wire), older, wire: Cow::Borrowed(&wire) };
            let bytes = row.encode();
            let back = LatestRow::parse(&bytes).expect("parses");
            prop_assert_eq!((back.stamp, back.older, &*back.wire), (row.stamp, older, wire.as_slice()));
            prop_assert!(LatestRow::parse(&bytes[..HEAD_BYTES - 1]).is_none());
        }
    }
}
