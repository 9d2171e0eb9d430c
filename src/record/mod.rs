//! What is passed round: sources, patterns, stamps, records, and their form between nodes and on disk.
//!
//! Nothing here knows of a socket, a thread or a clock. A [`Record`] is made once, at the node that
//! accepts it, and never changes; everyone who holds it shares it.

pub mod fields;
pub mod hash;
mod node_name;
mod pattern;
mod source;
mod stamp;
mod time;
pub mod wire;
pub mod words;

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::{NODE_NAME_BYTES_MAX, SOURCE_BYTES_MAX};

pub use node_name::{NodeName, NodeNameError};
pub use pattern::{Pattern, PatternError, Segment};
pub use source::{Source, SourceError};
pub use stamp::{HybridClock, Stamp};
pub use time::Now;

/// Bytes of eight numbers and the data's hash, the beginning of what a record's checksum is over.
const CHECKED_NUMBERS_BYTES: usize = 8 * 8 + 16;
/// Bytes of both names that most records stay within.
const CHECKED_SHORT_BYTES: usize = 64;
/// Most bytes that it is over: these, and two names.
const CHECKED_BYTES_MAX: usize = CHECKED_NUMBERS_BYTES + SOURCE_BYTES_MAX + NODE_NAME_BYTES_MAX;

/// What a record carries. The bytes are kept as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The text of one JSON value, verbatim.
    Json(Bytes),
    /// Bytes that clients see as standard base64.
    Binary(Bytes),
    /// Nothing: the source was deleted.
    Deleted,
}

impl Payload {
    /// The data's bytes; none for a deletion.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::Json(bytes) | Payload::Binary(bytes) => bytes,
            Payload::Deleted => &[],
        }
    }
}

/// Who accepted a record from a client, in which of its lives, and as its how-manieth.
///
/// Its order breaks, in silence, the tie of two equal stamps, so that copies agree in every field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Birth {
    /// The accepting node.
    pub origin: NodeName,
    /// Its boot number: greater at every start.
    pub boot: u64,
    /// Counts the records accepted in that life, from 1, without holes.
    pub seq: u64,
}

/// One value of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose value it is.
    pub source: Source,
    /// Its place in the order.
    pub stamp: Stamp,
    /// The value.
    pub payload: Payload,
    /// Where it entered the cluster.
    pub birth: Birth,
    /// The origin's wall clock when it accepted the record, in microseconds since the Unix epoch.
    pub accepted_us: u64,
    /// Readers see it until `ts` + this; 0: for ever.
    pub ttl_ms: u64,
    /// [`Record::checksum_of`] of the fields above, made at acceptance and verified at every hop
    /// and load. Also what the map's fingerprints are made of.
    pub checksum: u64,
}

impl Record {
    /// Makes the record and its checksum.
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

    /// XXH3-64 over every field but the checksum. Lengths are mixed in, so that fields cannot run
    /// into each other; the data is covered by its hash, which whoever decodes a record computes
    /// from the bytes that came.
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
        // In one piece: the streaming hash costs five times as much for so few bytes. And in no longer one
        // than is needed, since it begins with zeros.
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

    /// When readers stop seeing it, in microseconds since the Unix epoch.
    pub fn expires_us(&self) -> Option<u64> {
        (self.ttl_ms > 0).then(|| self.stamp.ts.saturating_add(self.ttl_ms.saturating_mul(1000)))
    }

    /// Whether readers see a value at `wall_us`: neither deleted nor expired.
    pub fn is_visible(&self, wall_us: u64) -> bool {
        !self.stamp.deleted && self.expires_us().is_none_or(|at| wall_us < at)
    }

    /// When it may be collected, given how long tombstones are kept: computed from the record
    /// alone, so it is the same on every node. `None` for a value that never goes.
    pub fn collect_us(&self, tombstones_us: u64) -> Option<u64> {
        let from = match self.expires_us() {
            Some(expires) => expires.max(self.accepted_us),
            None if self.stamp.deleted => self.accepted_us,
            None => return None,
        };
        Some(from.saturating_add(tombstones_us))
    }

    /// Memory it holds, in bytes, for the bounds of queues and of the map. The source's name is
    /// counted with it; allocators' overheads are estimated.
    pub fn cost_bytes(&self) -> usize {
        const OVERHEAD: usize = size_of::<Record>() + 2 * size_of::<usize>() + 64;
        OVERHEAD + self.source.as_str().len() + self.payload.bytes().len()
    }
}

/// The checksum over these. `bytes` is long enough for all of them.
fn checksum_in<const N: usize>(mut bytes: [u8; N], numbers: &[u64; 8], data: u128, names: [&[u8]; 2]) -> u64 {
    let (fixed, rest) = bytes.split_at_mut(CHECKED_NUMBERS_BYTES);
    let (places, hash) = fixed.as_chunks_mut::<8>().0.split_at_mut(numbers.len());
    for (place, number) in places.iter_mut().zip(numbers) {
        *place = number.to_le_bytes();
    }
    hash.as_flattened_mut().copy_from_slice(&data.to_le_bytes());
    let mut len = 0;
    for name in names {
        if let Some(place) = rest.get_mut(len..len + name.len()) {
            place.copy_from_slice(name);
            len += name.len();
        }
    }
    xxh3_64(bytes.get(..CHECKED_NUMBERS_BYTES + len).unwrap_or_default())
}

/// How [`Record`]s are passed round.
pub type SharedRecord = Arc<Record>;

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::Xxh3;

    use super::*;

    /// Nodes and stores of every version must agree on it.
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
