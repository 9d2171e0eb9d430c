//! Encodes batches, which only the origin does, and decodes and verifies them, which every node does.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::batch::Batch;
use crate::limits::NODE_NAME_BYTES_MAX;
use crate::record::fields::{Fields, Malformed, write_bytes, write_number};
use crate::record::wire::{read, write_delimited};
use crate::record::{NodeName, SharedRecord, wire};

/// Length of an epoch, a period in which the same delegates are chosen, in microseconds.
const EPOCH_US: u64 = 100_000;
/// Most bytes of records that are packed into one batch: it fits into a datagram together with its part's
/// header. A larger record is a batch of its own, and travels in fragments or is pulled.
const BATCH_BYTES_MAX: usize = 900;
/// Most records that are taken from a batch of another node: none that was packed here has more.
const RECORDS_MAX: usize = 1_024;
/// Most sequence numbers that one batch may cover. It covers records that were superseded while they waited,
/// and there are no more of those than an origin accepts in the meantime.
const COVERED_MAX: u64 = 1 << 32;

/// Most bytes of an encoded batch besides its records: origin, four numbers, checksum.
const ENVELOPE_BYTES_MAX: usize = (2 + NODE_NAME_BYTES_MAX) + 4 * 11 + 5;

/// The fields of a batch that stand before and after its records.
#[derive(Clone, Copy, Default)]
struct BatchFields<'a> {
    origin: &'a str,
    boot: u64,
    epoch: u64,
    first_seq: u64,
    more: u64,
    checksum: u32,
}

impl<'a> BatchFields<'a> {
    /// Checksum over the fields, which say which numbers are covered. The records have checksums of their
    /// own.
    fn checksum_of(&self) -> u32 {
        /// Bytes of the numbers among the fields that the checksum covers.
        const NUMBERS_BYTES: usize = 4 * 8;
        let mut bytes = [0; NUMBERS_BYTES + NODE_NAME_BYTES_MAX];
        let numbers = [self.boot, self.epoch, self.first_seq, self.more];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        // An origin that is longer is not a valid name of a node, and is refused elsewhere.
        let len = (NUMBERS_BYTES + self.origin.len()).min(bytes.len());
        let place = bytes.get_mut(NUMBERS_BYTES..len).unwrap_or_default();
        place.copy_from_slice(self.origin.as_bytes().get(..place.len()).unwrap_or_default());
        xxh3_64(bytes.get(..len).unwrap_or_default()) as u32
    }

    /// Reads the fields of an encoded batch, and shows every encoded record to `on_record`.
    fn read(
        encoded: &'a [u8],
        mut on_record: impl FnMut(&'a [u8]) -> Result<(), Malformed>,
    ) -> Result<BatchFields<'a>, Malformed> {
        let mut fields = BatchFields::default();
        for field in Fields::of(encoded) {
            match field? {
                (1, value) => fields.origin = value.text()?,
                (2, value) => fields.boot = value.number()?,
                (3, value) => fields.epoch = value.number()?,
                (4, value) => fields.first_seq = value.number()?,
                (5, value) => fields.more = value.number()?,
                (6, value) => on_record(value.bytes()?)?,
                (7, value) => fields.checksum = value.fixed32()?,
                _ => {}
            }
        }
        Ok(fields)
    }

    /// The encoded batch with these encoded records: fields are in the order of the schema.
    fn write(&self, records: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENVELOPE_BYTES_MAX + records.len());
        write_bytes(&mut out, 1, self.origin.as_bytes());
        for (field, number) in [(2, self.boot), (3, self.epoch), (4, self.first_seq), (5, self.more)] {
            write_number(&mut out, field, number);
        }
        out.extend_from_slice(records);
        if self.checksum != 0 {
            out.push(7 << 3 | 5);
            out.extend_from_slice(&self.checksum.to_le_bytes());
        }
        out
    }
}

/// Packs an origin's records into batches that cover every sequence number above `head`. The records must
/// ascend by number, and be above `head`.
pub(super) fn pack(
    origin: &NodeName,
    boot: u64,
    mut head: u64,
    now_us: u64,
    records: &[SharedRecord],
) -> Vec<Batch> {
    let (mut batches, mut body) = (Vec::new(), Vec::with_capacity(BATCH_BYTES_MAX));
    let mut close = |body: &mut Vec<u8>, last: u64| {
        let (first_seq, more) = (head + 1, last - head - 1);
        let epoch = now_us / EPOCH_US;
        let mut fields = BatchFields { origin: origin.as_str(), boot, epoch, first_seq, more, checksum: 0 };
        fields.checksum = fields.checksum_of();
        head = last;
        batches.push(Batch::new(origin.clone(), boot, first_seq..=last, epoch, fields.write(body).into()));
        body.clear();
    };
    let mut last = None;
    for record in records {
        let len = wire::encoded_len(record, true);
        if let Some(last) = last
            && body.len() + len + 3 > BATCH_BYTES_MAX
        {
            close(&mut body, last);
        }
        body.push(6 << 3 | 2);
        write_delimited(&mut body, record, true);
        last = Some(record.birth.seq);
    }
    if let Some(last) = last {
        close(&mut body, last);
    }
    batches
}

/// Reads and verifies what an encoded batch says of itself: its origin and the numbers that it covers. Its
/// records are neither decoded nor verified. Returns the number of records as well. `None`: no node has packed
/// this, or it was damaged on the way.
pub(super) fn read_header(encoded: Bytes) -> Option<(Batch, usize)> {
    let mut count = 0;
    let fields = BatchFields::read(&encoded, |_| {
        count += 1;
        Ok(())
    });
    let fields = fields.ok()?;
    let origin = NodeName::parse(fields.origin).ok()?;
    let last_seq = fields.first_seq.checked_add(fields.more)?;
    let BatchFields { boot, epoch, first_seq, .. } = fields;
    if first_seq == 0 || fields.more >= COVERED_MAX || count == 0 || count > RECORDS_MAX {
        return None;
    }
    if fields.checksum != fields.checksum_of() {
        return None;
    }
    Some((Batch::new(origin, boot, first_seq..=last_seq, epoch, encoded), count))
}

/// Decodes the `count` records of a batch and verifies their checksums. `None`: no node has packed them, or
/// they were damaged on the way.
pub(super) fn read_records(batch: &Batch, count: usize) -> Option<Vec<SharedRecord>> {
    let mut records: Vec<SharedRecord> = Vec::with_capacity(count);
    let mut next = batch.id.first_seq;
    let all = BatchFields::read(&batch.encoded, |message| {
        // Its bytes are copied: a record that stays in the map for years must not keep its whole batch in
        // memory.
        let record = read(message, Some((&batch.origin, batch.boot)), Bytes::copy_from_slice);
        let record = record.map_err(|_| Malformed)?;
        if record.birth.seq < next || record.birth.seq > batch.last_seq {
            return Err(Malformed);
        }
        next = record.birth.seq.saturating_add(1);
        records.push(record.into());
        Ok(())
    });
    if all.is_err() || records.last()?.birth.seq != batch.last_seq {
        return None;
    }
    Some(records)
}

/// Decodes a batch and verifies its checksum and those of its records.
#[cfg(test)]
pub(super) fn unpack(encoded: Bytes) -> Option<(Batch, Vec<SharedRecord>)> {
    let (batch, count) = read_header(encoded)?;
    let records = read_records(&batch, count)?;
    Some((batch, records))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::super::harness::record;
    use super::*;
    use crate::proto::gossip as proto;

    #[test]
    fn every_number_is_covered_and_comes_back() {
        let name = NodeName::parse("a").expect("name");
        let records: Vec<SharedRecord> =
            [3, 4, 9, 11].into_iter().map(|seq| record(&name, 5, seq, 400)).collect();
        let batches = pack(&name, 5, 1, 0, &records);
        let covered: Vec<(u64, u64)> =
            batches.iter().map(|batch| (batch.id.first_seq, batch.last_seq)).collect();
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
