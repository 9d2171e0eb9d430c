//! The data types that all parts of the program exchange: sources, patterns, stamps, records, and the form
//! that records have between nodes and on disk.
//!
//! Nothing here knows of a socket, a thread or a clock. A [`Record`] is made once, at the node that accepts
//! it from a client, and never changes; everyone who holds it shares it.

pub mod compact;
pub mod cost;
pub mod fields;
pub mod hash;
mod history;
pub mod merge;
mod node_name;
mod pattern;
mod source;
mod stamp;
mod time;
mod walk;
pub mod wire;
pub mod words;

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::{EXPIRED_PART, NODE_NAME_BYTES_MAX, PEER_FUTURE_US_MAX, SOURCE_BYTES_MAX};

pub use history::{CursorError, HistoryCursor, HistoryPage, HistoryQuery};
pub use node_name::{NodeName, NodeNameError};
pub use pattern::{Pattern, PatternError, Segment};
pub use source::{Source, SourceError};
pub use stamp::{Stamp, next_ts};
pub use time::Now;
pub use walk::RecordWalk;

/// Number of bytes that every record's checksum begins with: eight 64-bit numbers and the 128-bit hash of the
/// data.
const CHECKED_NUMBERS_BYTES: usize = 8 * 8 + 16;
/// Total length in bytes of source and origin that most records do not exceed. They take the cheaper path.
const CHECKED_SHORT_BYTES: usize = 64;
/// Most bytes that a checksum is computed over: the numbers and the two longest names.
const CHECKED_BYTES_MAX: usize = CHECKED_NUMBERS_BYTES + SOURCE_BYTES_MAX + NODE_NAME_BYTES_MAX;

/// The data of a record. Its bytes are kept exactly as the publisher sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The text of one JSON value, verbatim.
    Json(Bytes),
    /// Bytes that clients see as standard base64.
    Binary(Bytes),
    /// No data: the source was deleted.
    Deleted,
}

impl Payload {
    /// Returns the bytes of the data; an empty slice for a deletion.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::Json(bytes) | Payload::Binary(bytes) => bytes,
            Payload::Deleted => &[],
        }
    }
}

/// Identifies the acceptance of a record: the node that accepted it from a client, the run of that node, and
/// the record's number in that run.
///
/// Where two records have equal stamps, the one with the greater birth is kept, so that all copies become
/// equal in every field. Users are not told of such a replacement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Birth {
    /// Name of the node that accepted the record.
    pub origin: NodeName,
    /// Boot number of that node: greater at every start of it.
    pub boot: u64,
    /// Position among the records that the node has accepted since that start: 1, 2, 3 and so on without
    /// gaps.
    pub seq: u64,
}

/// One value of one source, or the deletion of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Name of the source that has this value.
    pub source: Source,
    /// Position of the record in the total order of records.
    pub stamp: Stamp,
    /// The published data, or the mark of a deletion.
    pub payload: Payload,
    /// The node at which the record entered the cluster, and its number there.
    pub birth: Birth,
    /// Wall clock of the origin when it accepted the record, in microseconds since the Unix epoch.
    pub accepted_us: u64,
    /// Time to live in milliseconds: readers do not see the value afterwards. It is counted from the stamp's
    /// `ts`, or from `accepted_us` if that is earlier. 0 means for ever.
    pub ttl_ms: u64,
    /// [`Record::checksum_of`] of the fields above, computed at acceptance and verified after every transfer
    /// and every load from disk. The map computes its fingerprints from it.
    pub checksum: u64,
}

impl Record {
    /// Makes a record and computes its checksum.
    pub fn new(
        source: Source,
        stamp: Stamp,
        payload: Payload,
        birth: Birth,
        accepted_us: u64,
        ttl_ms: u64,
    ) -> Record {
        let mut record = Record { source, stamp, payload, birth, accepted_us, ttl_ms, checksum: 0 };
        record.checksum = record.checksum_of();
        record
    }

    /// Computes XXH3-64 over every field but the checksum itself. The lengths of the names are part of the
    /// input, so that one field cannot run into the next. The data is represented by its hash, which the
    /// receiver of a record computes anew from the bytes that arrived.
    pub fn checksum_of(&self) -> u64 {
        let kind = match self.payload {
            Payload::Json(_) => 0u64,
            Payload::Binary(_) => 1,
            Payload::Deleted => 2,
        };
        let (source, origin) = (self.source.as_str().as_bytes(), self.birth.origin.as_bytes());
        let numbers = [
            kind,
            source.len() as u64,
            origin.len() as u64,
            self.stamp.ts,
            self.birth.boot,
            self.birth.seq,
            self.accepted_us,
            self.ttl_ms,
        ];
        // The input is put together in one array, because the streaming form of the hash costs five times as
        // much for so few bytes. The array is not longer than needed, because it is filled with zeros first.
        match source.len() + origin.len() {
            0..=CHECKED_SHORT_BYTES => checksum_in(
                [0; CHECKED_NUMBERS_BYTES + CHECKED_SHORT_BYTES],
                &numbers,
                self.stamp.hash,
                [source, origin],
            ),
            _ => checksum_in([0; CHECKED_BYTES_MAX], &numbers, self.stamp.hash, [source, origin]),
        }
    }

    /// Returns when the value expires, in microseconds since the Unix epoch; `None` if it never does. A stamp
    /// that is ahead of the clock does not lengthen the life of a value. The result depends on nothing but the
    /// record's own fields, so it is the same on every node.
    #[inline]
    pub fn expires_us(&self) -> Option<u64> {
        (self.ttl_ms > 0).then(|| {
            let from_us = self.stamp.ts.min(self.accepted_us);
            from_us.saturating_add(self.ttl_ms.saturating_mul(1000))
        })
    }

    /// Returns whether readers see a value at the wall clock `wall_us`: it is neither deleted nor expired.
    #[inline]
    pub fn is_visible(&self, wall_us: u64) -> bool {
        !self.stamp.deleted && self.expires_us().is_none_or(|at| wall_us < at)
    }

    /// Returns whether the timestamp is so far ahead of the wall clock `wall_us` that a node does not take the
    /// record from a peer.
    #[inline]
    pub fn is_far_ahead(&self, wall_us: u64) -> bool {
        self.stamp.ts > wall_us.saturating_add(PEER_FUTURE_US_MAX)
    }

    /// Returns from when on the record may be removed from the map, in microseconds since the Unix epoch.
    /// `tombstones_us` is for how long deletions and expired values are kept, in microseconds. The result
    /// depends on nothing but the record's own fields and that setting, so it is the same on every node.
    /// `None` means that the record stays until a newer one replaces it.
    ///
    /// The time is counted from the stamp if that is ahead of the clock: the next record of the source would
    /// otherwise have an older stamp than the one that was removed, and a store that removes by stamp, as
    /// Cassandra does, would drop it.
    #[inline]
    pub fn collect_us(&self, tombstones_us: u64) -> Option<u64> {
        let expires_us = self.expires_us();
        if expires_us.is_none() && !self.stamp.deleted {
            return None;
        }
        let from_us = self.stamp.ts.max(self.accepted_us).max(expires_us.unwrap_or(0));
        Some(from_us.saturating_add(tombstones_us))
    }

    /// Returns until when nodes exchange the record while they compare their maps, in microseconds since the
    /// Unix epoch; `None` means until a newer one replaces it. A deletion is exchanged until it may be removed,
    /// an expired value for a part of that time ([`EXPIRED_PART`]): every node that holds the value lets it
    /// expire by itself. The result depends on nothing but the record's own fields and the setting
    /// `tombstones_us`, so it is the same on every node.
    #[inline]
    pub fn exchanged_until_us(&self, tombstones_us: u64) -> Option<u64> {
        self.collect_us(if self.stamp.deleted { tombstones_us } else { tombstones_us / EXPIRED_PART })
    }
}

/// Computes the checksum over the numbers, the hash of the data and the names. `bytes` must be long enough
/// for all of them and be filled with zeros.
fn checksum_in<const N: usize>(mut bytes: [u8; N], numbers: &[u64; 8], data: u128, names: [&[u8]; 2]) -> u64 {
    let (fixed, rest) = bytes.split_at_mut(CHECKED_NUMBERS_BYTES);
    let (places, hash) = fixed.as_chunks_mut::<8>().0.split_at_mut(numbers.len());
    for (place, number) in places.iter_mut().zip(numbers) {
        *place = number.to_le_bytes();
    }
    hash.as_flattened_mut().copy_from_slice(&data.to_le_bytes());
    debug_assert!(names[0].len() + names[1].len() <= rest.len(), "every byte of the names is covered");
    let mut len = 0;
    for name in names {
        if let Some(place) = rest.get_mut(len..len + name.len()) {
            place.copy_from_slice(name);
            len += name.len();
        }
    }
    xxh3_64(bytes.get(..CHECKED_NUMBERS_BYTES + len).unwrap_or_default())
}

/// A record as it is passed round: shared and never changed.
pub type SharedRecord = Arc<Record>;

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::Xxh3;

    use super::*;

    fn record_with(ts: u64, accepted_us: u64, ttl_ms: u64) -> Record {
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: 1 };
        let (source, stamp) = (Source::parse("s").expect("source"), Stamp::of_data(ts, b"1"));
        Record::new(source, stamp, Payload::Json(Bytes::from_static(b"1")), birth, accepted_us, ttl_ms)
    }

    /// A value with a life of one second and a stamp that was 9.9 s ahead lived for eleven seconds.
    #[test]
    fn a_life_is_counted_from_the_earlier_of_stamp_and_acceptance() {
        assert_eq!(record_with(9_900_000, 5_000_000, 1_000).expires_us(), Some(6_000_000));
        assert_eq!(record_with(4_000_000, 5_000_000, 1_000).expires_us(), Some(5_000_000));
        assert_eq!(record_with(9_900_000, 5_000_000, 0).expires_us(), None);
        let record = record_with(9_900_000, 5_000_000, 1_000);
        assert!(record.is_visible(5_999_999) && !record.is_visible(6_000_000));
    }

    /// A record that is removed while its stamp is ahead of the clock would win over the next record of its
    /// source in a store that removes by stamp.
    #[test]
    fn no_record_is_removed_before_its_own_stamp() {
        assert_eq!(record_with(9_900_000, 5_000_000, 1_000).collect_us(10), Some(9_900_010));
        assert_eq!(record_with(4_000_000, 5_000_000, 7_000).collect_us(10), Some(11_000_010));
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: 1 };
        let (source, stamp) = (Source::parse("s").expect("source"), Stamp::of_deletion(9_900_000));
        let deletion = Record::new(source, stamp, Payload::Deleted, birth, 5_000_000, 0);
        assert_eq!(deletion.collect_us(10), Some(9_900_010));
    }

    /// The checksum is part of the protocol and of the file format: nodes and stores of every version must
    /// compute the same.
    #[test]
    fn a_checksum_is_of_all_fields_in_a_row() {
        for (source, origin) in
            [(1, 1), (63, 1), (2, 63), (255, 63)].map(|(a, b)| ("s".repeat(a), "o".repeat(b)))
        {
            let birth = Birth { origin: NodeName::parse(&origin).expect("name"), boot: 4, seq: 5 };
            let stamp = Stamp::of_data(3, b"12");
            let name = Source::parse(&source).expect("source");
            let record = Record::new(name, stamp, Payload::Binary("12".into()), birth, 6, 7);
            let mut hash = Xxh3::new();
            for number in [1, source.len() as u64, origin.len() as u64, 3, 4, 5, 6, 7] {
                hash.update(&number.to_le_bytes());
            }
            hash.update(&stamp.hash.to_le_bytes());
            hash.update(source.as_bytes());
            hash.update(origin.as_bytes());
            assert_eq!(record.checksum, hash.digest());
        }
    }
}
