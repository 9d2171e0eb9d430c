//! Batches: what the origin packs once and every relay passes on to the byte.

use std::ops::RangeInclusive;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::limits::FRAGMENTED_BYTES_MAX;
use crate::record::NodeName;

/// Names a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchId {
    /// The line (one life of one origin) by its hash.
    pub line: u64,
    /// First sequence number that the batch covers.
    pub first_seq: u64,
}

/// Hash of an origin's life, which stands for it on the wire.
pub(super) fn line_hash(origin: &NodeName, boot: u64) -> u64 {
    xxh3_64_with_seed(origin.as_bytes(), boot)
}

/// Records of one line, encoded. The records themselves are not kept.
#[derive(Debug)]
pub(super) struct Batch {
    /// Which.
    pub id: BatchId,
    /// Who accepted the records.
    pub origin: NodeName,
    /// In which life.
    pub boot: u64,
    /// The origin's place on the ring.
    pub origin_place: u64,
    /// The last sequence number covered.
    pub last_seq: u64,
    /// Period at the origin: which delegates are chosen changes with it.
    pub epoch: u64,
    /// A `Batch` as the origin wrote it.
    pub encoded: Bytes,
    /// XXH3-64 of `encoded`, of a batch that does not go in datagrams; else 0.
    pub checksum: u64,
}

impl Batch {
    /// Memory it holds, in bytes.
    pub fn cost_bytes(&self) -> usize {
        const OVERHEAD: usize = size_of::<Batch>() + 192;
        OVERHEAD + self.encoded.len()
    }

    /// The batch that covers these numbers, from its bytes.
    pub fn new(origin: NodeName, boot: u64, seqs: RangeInclusive<u64>, epoch: u64, encoded: Bytes) -> Batch {
        Batch {
            id: BatchId { line: line_hash(&origin, boot), first_seq: *seqs.start() },
            origin_place: xxh3_64(origin.as_bytes()),
            origin,
            boot,
            last_seq: *seqs.end(),
            epoch,
            checksum: if encoded.len() > FRAGMENTED_BYTES_MAX { xxh3_64(&encoded) } else { 0 },
            encoded,
        }
    }
}

/// What a part says of a batch that does not come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// Which batch.
    pub batch: BatchId,
    /// Its length as it was packed, in bytes.
    pub bytes: usize,
    /// XXH3-64 of it.
    pub checksum: u64,
}

impl Announced {
    /// What is said of this batch; `None`: it goes in datagrams.
    pub fn of(batch: &Batch) -> Option<Announced> {
        let bytes = batch.encoded.len();
        let is_large = bytes > FRAGMENTED_BYTES_MAX;
        is_large.then_some(Announced { batch: batch.id, bytes, checksum: batch.checksum })
    }
}
