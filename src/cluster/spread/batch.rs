//! Batches of encoded records: the origin packs them, and every relay passes on the same bytes.

use std::ops::RangeInclusive;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::limits::FRAGMENTED_BYTES_MAX;
use crate::record::NodeName;

/// Identifies a batch; it is the same on all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchId {
    /// Hash of the line, that is of the life of the origin.
    pub line: u64,
    /// First sequence number that the batch covers.
    pub first_seq: u64,
}

/// Hash of one life of an origin, which stands for that life on the wire.
pub(in crate::cluster) fn line_hash(origin: &NodeName, boot: u64) -> u64 {
    xxh3_64_with_seed(origin.as_bytes(), boot)
}

/// Where the records are in an encoded batch, and what its header says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordsPlace {
    /// Index of their first byte. They reach to the end of the batch.
    pub at: usize,
    /// Number of records, at least one.
    pub count: u32,
    /// Sum of their checksums.
    pub sum: u64,
}

/// Encoded records of one line. The records are not kept in decoded form.
#[derive(Debug)]
pub(super) struct Batch {
    /// The name of the batch.
    pub id: BatchId,
    /// The node that accepted the records.
    pub origin: NodeName,
    /// The origin's boot number.
    pub boot: u64,
    /// The origin's place on the ring.
    pub origin_place: u64,
    /// Last sequence number that the batch covers.
    pub last_seq: u64,
    /// Number of the period in which the origin packed the batch: each period has other delegates.
    pub epoch: u64,
    /// A `Batch` message, as the origin wrote it.
    pub encoded: Bytes,
    /// Where the records are in `encoded`.
    pub records: RecordsPlace,
    /// XXH3-64 of `encoded` if the batch is too large for datagrams; else 0.
    pub checksum: u64,
}

impl Batch {
    /// Memory that the batch takes, in bytes.
    pub fn cost_bytes(&self) -> usize {
        /// Memory that a batch takes besides its encoded records, in bytes, with what refers to it.
        const OVERHEAD: usize = size_of::<Batch>() + 192;
        OVERHEAD + self.encoded.len()
    }

    /// Makes the batch that covers the sequence numbers `seqs`; `encoded` is its encoded form, in which the
    /// records are at `records`.
    pub fn new(
        origin: NodeName,
        boot: u64,
        seqs: RangeInclusive<u64>,
        epoch: u64,
        encoded: Bytes,
        records: RecordsPlace,
    ) -> Batch {
        Batch {
            id: BatchId { line: line_hash(&origin, boot), first_seq: *seqs.start() },
            origin_place: xxh3_64(origin.as_bytes()),
            origin,
            boot,
            last_seq: *seqs.end(),
            epoch,
            checksum: if encoded.len() > FRAGMENTED_BYTES_MAX { xxh3_64(&encoded) } else { 0 },
            encoded,
            records,
        }
    }
}

/// The announcement of a batch that is too large for datagrams and is to be pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// The name of the batch.
    pub batch: BatchId,
    /// Length of the encoded batch, in bytes.
    pub bytes: usize,
    /// XXH3-64 of the encoded batch.
    pub checksum: u64,
}

impl Announced {
    /// The announcement of a batch. `None`: it is small enough for datagrams.
    pub fn of(batch: &Batch) -> Option<Announced> {
        let bytes = batch.encoded.len();
        let is_large = bytes > FRAGMENTED_BYTES_MAX;
        is_large.then_some(Announced { batch: batch.id, bytes, checksum: batch.checksum })
    }
}
