//! Batches as bytes: packed once by the origin, read and verified by everybody.

use bytes::Bytes;
use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use super::batch::Batch;
use crate::limits::NODE_NAME_BYTES_MAX;
use crate::proto::gossip as proto;
use crate::record::wire::{encoded_len, from_proto, write, write_bytes, write_number, write_varint};
use crate::record::{NodeName, SharedRecord};

/// How long one choice of delegates stands, in microseconds.
const EPOCH_US: u64 = 100_000;
/// Bytes of records packed into one batch: fits a datagram with its part's header. A larger record
/// is a batch of its own and travels in fragments.
const BATCH_BYTES_MAX: usize = 900;
/// Most records of a batch from outside: more cannot stand in one that was packed here.
const RECORDS_MAX: usize = 1_024;
/// Most sequence numbers one batch may cover: what can be superseded while waiting is bounded by
/// what an origin accepts in the meantime.
const COVERED_MAX: u64 = 1 << 32;

/// Most bytes of a batch beside its records: origin, four numbers, checksum.
const HEADER_BYTES_MAX: usize = (2 + NODE_NAME_BYTES_MAX) + 4 * 11 + 5;

/// Records carry their own checksums; this one is over what says which numbers are covered.
fn header_checksum(message: &proto::Batch) -> u32 {
    let mut hash = Xxh3::new();
    for number in [message.boot, message.epoch, message.first_seq, message.more] {
        hash.update(&number.to_le_bytes());
    }
    hash.update(message.origin.as_bytes());
    hash.digest() as u32
}

fn batch_of(message: &proto::Batch, origin: NodeName, encoded: Bytes) -> Batch {
    let last_seq = message.first_seq + message.more;
    Batch::new(origin, message.boot, message.first_seq..=last_seq, message.epoch, encoded)
}

/// Packs an origin's records, ascending by seq and all over `head`, into batches that cover every
/// number from `head` on.
pub(super) fn pack(
    origin: &NodeName,
    boot: u64,
    mut head: u64,
    now_us: u64,
    records: &[SharedRecord],
) -> Vec<Batch> {
    let (mut batches, mut body) = (Vec::new(), Vec::with_capacity(BATCH_BYTES_MAX));
    let mut close = |body: &mut Vec<u8>, last: u64| {
        let mut message = proto::Batch {
            origin: origin.as_str().into(),
            boot,
            epoch: now_us / EPOCH_US,
            first_seq: head + 1,
            more: last - head - 1,
            records: Vec::new(),
            checksum: 0,
        };
        message.checksum = header_checksum(&message);
        head = last;
        batches.push(batch_of(&message, origin.clone(), encode(&message, body).into()));
        body.clear();
    };
    let mut last = None;
    for record in records {
        let len = encoded_len(record, true);
        if let Some(last) = last
            && body.len() + len + 3 > BATCH_BYTES_MAX
        {
            close(&mut body, last);
        }
        body.push(6 << 3 | 2);
        write_varint(&mut body, len as u64);
        write(&mut body, record, true);
        last = Some(record.birth.seq);
    }
    if let Some(last) = last {
        close(&mut body, last);
    }
    batches
}

/// A batch as bytes: the header's numbers, the records, the checksum, as the schema orders them.
fn encode(header: &proto::Batch, records: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES_MAX + records.len());
    write_bytes(&mut out, 1, header.origin.as_bytes());
    for (field, number) in [(2, header.boot), (3, header.epoch), (4, header.first_seq), (5, header.more)] {
        write_number(&mut out, field, number);
    }
    out.extend_from_slice(records);
    if header.checksum != 0 {
        out.push(7 << 3 | 5);
        out.extend_from_slice(&header.checksum.to_le_bytes());
    }
    out
}

/// Reads a batch and verifies the checksum of each of its records. `None`: no node has packed this,
/// or a bit flipped on the way.
pub(super) fn unpack(encoded: Bytes) -> Option<(Batch, Vec<SharedRecord>)> {
    // Decoded from a slice, so that fields are copied: a record that stays in the map for years
    // must not keep its whole batch in memory.
    let mut message = proto::Batch::decode(&encoded[..]).ok()?;
    let origin = NodeName::parse(&message.origin).ok()?;
    let last_seq = message.first_seq.checked_add(message.more)?;
    if message.first_seq == 0 || message.more >= COVERED_MAX || message.records.len() > RECORDS_MAX {
        return None;
    }
    if message.checksum != header_checksum(&message) || message.records.last()?.seq != last_seq {
        return None;
    }
    let mut records = Vec::with_capacity(message.records.len());
    let mut next = message.first_seq;
    for record in std::mem::take(&mut message.records) {
        if record.seq < next || record.seq > last_seq {
            return None;
        }
        next = record.seq.saturating_add(1);
        records.push(SharedRecord::new(from_proto(record, Some((&origin, message.boot))).ok()?));
    }
    Some((batch_of(&message, origin, encoded), records))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::harness::record;
    use super::*;

    #[test]
    fn every_number_is_covered_and_comes_back() {
        let name = NodeName::parse("a").expect("name");
        let records: Vec<SharedRecord> =
            [3, 4, 9, 11].into_iter().map(|seq| record(&name, 5, seq, 400)).collect();
        let batches = pack(&name, 5, 1, 0, &records);
        let covered: Vec<(u64, u64)> = batches.iter().map(|batch| (batch.id.1, batch.last_seq)).collect();
        assert_eq!(covered, [(2, 4), (5, 11)]);
        let mut back = Vec::new();
        for batch in batches {
            let message = proto::Batch::decode(&batch.encoded[..]).expect("decodes");
            assert_eq!(message.encode_to_vec(), batch.encoded, "as the generated message is written");
            let (read, records) = unpack(batch.encoded.clone()).expect("reads");
            assert_eq!((read.id, read.last_seq), (batch.id, batch.last_seq));
            back.extend(records);
        }
        assert_eq!(back, records);
    }

    /// S3, 2008-07-20: one flipped bit, unchecked, spread through the whole cluster.
    #[test]
    fn a_flipped_bit_in_a_record_is_not_passed_on() {
        let name = NodeName::parse("origin").expect("name");
        let batch = pack(&name, 5, 0, 0, &[record(&name, 5, 1, 60)]).remove(0);
        for bit in 0..batch.encoded.len() * 8 {
            let mut flipped = batch.encoded.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(flipped.into()).is_none(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_batch(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unpack(bytes.into()).is_none());
        }
    }
}
