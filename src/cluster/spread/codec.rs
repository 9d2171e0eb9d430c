//! Encodes batches, which only the origin does, and decodes and verifies them, which every node does.
//!
//! The header of a batch tells which numbers of which line it covers, and is verified by itself: whoever only
//! needs to know that, and to pass the batch on, reads the header alone ([`open`]). The records are read and
//! verified by [`read_records`].

use bytes::Bytes;
use prost::encoding::encoded_len_varint;
use xxhash_rust::xxh3::xxh3_64;

use super::batch::{Batch, RecordsPlace};
use crate::limits::{DATAGRAM_BYTES_MAX, NODE_NAME_BYTES_MAX};
use crate::record::compact::{COMPACT_BYTES_MIN, CompactReader, CompactWriter};
use crate::record::fields::{Fields, Malformed, write_bytes, write_fixed64, write_number, write_varint};
use crate::record::{NodeName, SharedRecord};

/// Length of an epoch, a period in which the same delegates are chosen, in microseconds.
const EPOCH_US: u64 = 100_000;
/// Most bytes of a batch of several records that fits into every datagram, together with its part's header. Where
/// datagrams may be larger, so may batches. A larger record is a batch of its own, and travels in fragments or is
/// pulled.
pub(super) const BATCH_BYTES_MAX: usize = 1_024;
/// Most records that are taken from a batch of another node: none that was packed here has more.
const RECORDS_MAX: u64 = 1_024;
/// Most sequence numbers that one batch may cover. It covers records that were superseded while they waited,
/// and there are no more of those than an origin accepts in the meantime.
pub(super) const COVERED_MAX: u64 = 1 << 32;

/// The fields of a batch, as they are on the wire.
#[derive(Clone, Copy, Default)]
struct BatchFields<'a> {
    origin: &'a str,
    boot: u64,
    epoch: u64,
    first_seq: u64,
    more: u64,
    checksum: u32,
    skipped: u64,
    sum: u64,
    /// The records, in their compact form.
    records: &'a [u8],
}

impl<'a> BatchFields<'a> {
    /// Checksum over the fields that stand before the records. They include the sum of the checksums of the
    /// records.
    fn checksum_of(&self) -> u32 {
        /// Bytes of the numbers among the fields that the checksum covers.
        const NUMBERS_BYTES: usize = 6 * 8;
        let mut bytes = [0; NUMBERS_BYTES + NODE_NAME_BYTES_MAX];
        let numbers = [self.boot, self.epoch, self.first_seq, self.more, self.skipped, self.sum];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        // An origin that is longer is not a valid name of a node, and is refused elsewhere.
        let len = (NUMBERS_BYTES + self.origin.len()).min(bytes.len());
        let place = bytes.get_mut(NUMBERS_BYTES..len).unwrap_or_default();
        place.copy_from_slice(self.origin.as_bytes().get(..place.len()).unwrap_or_default());
        xxh3_64(bytes.get(..len).unwrap_or_default()) as u32
    }

    /// Reads the fields of an encoded batch.
    fn read(encoded: &'a [u8]) -> Result<BatchFields<'a>, Malformed> {
        let mut fields = BatchFields::default();
        for field in Fields::of(encoded) {
            match field? {
                (1, value) => fields.origin = value.text()?,
                (2, value) => fields.boot = value.number()?,
                (3, value) => fields.epoch = value.number()?,
                (4, value) => fields.first_seq = value.number()?,
                (5, value) => fields.more = value.number()?,
                (7, value) => fields.checksum = value.fixed32()?,
                (8, value) => fields.skipped = value.number()?,
                (9, value) => fields.sum = value.fixed64()?,
                (10, value) => fields.records = value.bytes()?,
                _ => {}
            }
        }
        Ok(fields)
    }

    /// The batch of the records that were written, all of which are above `head`. The fields that are the same for
    /// all batches of a line stand in `self`.
    fn batch_of(&self, origin: &NodeName, head: u64, writer: &CompactWriter) -> Batch {
        let (first_seq, last_seq) = (head + 1, writer.last_seq());
        let (more, records, sum) = (last_seq - first_seq, writer.bytes(), writer.sum());
        let skipped = more + 1 - writer.count();
        let mut fields = BatchFields { first_seq, more, skipped, sum, records, ..*self };
        fields.checksum = fields.checksum_of();
        let at = fields.header_len();
        // Not a byte more than needed: the memory of a batch is kept for long, and shared without another
        // allocation only if it is full.
        let mut encoded = Vec::with_capacity(at + records.len());
        fields.write_header(&mut encoded);
        debug_assert_eq!(encoded.len(), at, "the length of the header is known before");
        encoded.extend_from_slice(records);
        let place = RecordsPlace { at, count: writer.count() as u32, sum };
        Batch::new(origin.clone(), self.boot, first_seq..=last_seq, self.epoch, encoded.into(), place)
    }

    /// Number of bytes that [`BatchFields::write_header`] appends.
    fn header_len(&self) -> usize {
        let number = |number: u64| if number == 0 { 0 } else { 1 + encoded_len_varint(number) };
        let numbers = [self.boot, self.epoch, self.first_seq, self.more, self.skipped];
        let fixed = |is_there: bool, bytes: usize| if is_there { 1 + bytes } else { 0 };
        let checks = fixed(self.checksum != 0, 4) + fixed(self.sum != 0, 8);
        let records = 1 + encoded_len_varint(self.records.len() as u64);
        2 + self.origin.len() + numbers.into_iter().map(number).sum::<usize>() + checks + records
    }

    /// Appends the fields before the records, and the tag and the length of the records. Fields are in the
    /// order of the schema.
    fn write_header(&self, out: &mut Vec<u8>) {
        write_bytes(out, 1, self.origin.as_bytes());
        for (field, number) in [(2, self.boot), (3, self.epoch), (4, self.first_seq), (5, self.more)] {
            write_number(out, field, number);
        }
        if self.checksum != 0 {
            out.push(7 << 3 | 5);
            out.extend_from_slice(&self.checksum.to_le_bytes());
        }
        write_number(out, 8, self.skipped);
        write_fixed64(out, 9, self.sum);
        out.push(10 << 3 | 2);
        write_varint(out, self.records.len() as u64);
    }
}

/// Packs as [`pack_for`] does, for datagrams that every path carries.
#[cfg(any(test, fuzzing))]
pub(super) fn pack(
    origin: &NodeName,
    boot: u64,
    head: u64,
    now_us: u64,
    records: &[SharedRecord],
) -> Vec<Batch> {
    pack_for(DATAGRAM_BYTES_MAX, (origin, boot), head, now_us, records)
}

/// Packs the records of an origin's life into batches that cover every sequence number above `head`, and fit into
/// datagrams of `datagram_bytes`. The records must ascend by number, and be above `head`.
pub(super) fn pack_for(
    datagram_bytes: usize,
    (origin, boot): (&NodeName, u64),
    head: u64,
    now_us: u64,
    records: &[SharedRecord],
) -> Vec<Batch> {
    let Some(last) = records.last() else { return Vec::new() };
    let covered = last.birth.seq.saturating_sub(head);
    let line = BatchFields { origin: origin.as_str(), boot, epoch: now_us / EPOCH_US, ..Default::default() };
    let numbers = [boot, line.epoch, last.birth.seq, covered, covered];
    let bytes_max = BATCH_BYTES_MAX + datagram_bytes.saturating_sub(DATAGRAM_BYTES_MAX);
    let records_bytes_max = bytes_max - header_bytes(origin, &numbers);
    let mut writer = CompactWriter::new(head, records_bytes_max);
    let (mut batches, mut head) = (Vec::new(), head);
    for record in records {
        if writer.count() == RECORDS_MAX || !writer.push(record, records_bytes_max) {
            batches.push(line.batch_of(origin, head, &writer));
            head = writer.last_seq();
            writer.begin_next();
            writer.push(record, records_bytes_max);
        }
    }
    batches.push(line.batch_of(origin, head, &writer));
    batches
}

/// Most bytes of a batch's fields around its records, with these numbers or less.
fn header_bytes(origin: &NodeName, numbers: &[u64]) -> usize {
    /// Bytes of the checksum, the sum, and the tag and length of the records.
    const FIXED_BYTES: usize = 5 + 9 + 3;
    let numbers = numbers.iter().map(|number| 1 + encoded_len_varint(*number));
    2 + origin.as_bytes().len() + numbers.sum::<usize>() + FIXED_BYTES
}

/// Reads and verifies the header of a batch; the records are left as they are. `None`: no node has packed
/// this, or it was damaged on the way.
pub(super) fn open(encoded: Bytes) -> Option<Batch> {
    let fields = BatchFields::read(&encoded).ok()?;
    if fields.checksum != fields.checksum_of() || fields.first_seq == 0 || fields.more >= COVERED_MAX {
        return None;
    }
    let origin = NodeName::parse(fields.origin).ok()?;
    let last_seq = fields.first_seq.checked_add(fields.more)?;
    let count = (fields.more + 1).checked_sub(fields.skipped)?;
    // The records are the last field: what follows them would not be covered by any checksum.
    let at = encoded.len() - fields.records.len();
    let is_last = encoded.get(at..).is_some_and(|end| std::ptr::eq(end, fields.records));
    let is_plausible = fields.records.len() / COMPACT_BYTES_MIN >= count as usize;
    if count == 0 || count > RECORDS_MAX || !is_last || !is_plausible {
        return None;
    }
    let place = RecordsPlace { at, count: count as u32, sum: fields.sum };
    let (boot, seqs, epoch) = (fields.boot, fields.first_seq..=last_seq, fields.epoch);
    Some(Batch::new(origin, boot, seqs, epoch, encoded, place))
}

/// Reads the records of a batch and verifies them. `None`: no node has packed them, or they were damaged on the
/// way.
pub(super) fn read_records(batch: &Batch) -> Option<Vec<SharedRecord>> {
    let RecordsPlace { at, count, sum } = batch.records;
    let bytes = batch.encoded.get(at..)?;
    let mut reader = CompactReader::new(bytes, &batch.origin, batch.boot, batch.id.first_seq.checked_sub(1)?);
    let mut records: Vec<SharedRecord> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        records.push(reader.read()?);
    }
    let is_whole = reader.is_at_end() && reader.last_seq() == batch.last_seq && reader.sum() == sum;
    is_whole.then_some(records)
}

/// Decodes a batch and verifies it and its records. `None`: no node has packed this, or it was damaged on the
/// way.
#[cfg(test)]
pub(super) fn unpack(encoded: Bytes) -> Option<(Batch, Vec<SharedRecord>)> {
    let batch = open(encoded)?;
    let records = read_records(&batch)?;
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
    fn a_flipped_bit_in_a_batch_is_not_passed_on() {
        let name = NodeName::parse("origin").expect("name");
        let records: Vec<SharedRecord> = [1, 2, 5].map(|seq| record(&name, 5, seq, 60)).into();
        let batch = pack(&name, 5, 0, 1_000_000, &records).remove(0);
        let header_bits = batch.records.at * 8;
        for bit in 0..batch.encoded.len() * 8 {
            let mut flipped = batch.encoded.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = Bytes::from(flipped);
            assert!(unpack(flipped.clone()).is_none(), "bit {bit}");
            assert!(bit >= header_bits || open(flipped).is_none(), "bit {bit} of the header");
        }
        for len in 0..batch.encoded.len() {
            assert!(unpack(batch.encoded.slice(..len)).is_none(), "{len} bytes");
        }
        let longer = [&batch.encoded[..], b"\x60\x01"].concat();
        assert!(open(longer.into()).is_none(), "a field that no checksum covers follows the records");
    }

    /// The header alone tells what a batch covers, and how many records it has.
    #[test]
    fn a_header_is_read_and_verified_without_the_records() {
        let name = NodeName::parse("origin").expect("name");
        let records: Vec<SharedRecord> = [4, 5, 9].map(|seq| record(&name, 5, seq, 60)).into();
        let batch = pack(&name, 5, 2, 1_000_000, &records).remove(0);
        let mut damaged = batch.encoded.to_vec();
        *damaged.last_mut().expect("bytes") ^= 1;
        for encoded in [batch.encoded.clone(), damaged.into()] {
            let opened = open(encoded).expect("a good header");
            assert_eq!((&opened.origin, opened.boot, opened.id, opened.last_seq), (&name, 5, batch.id, 9));
            assert_eq!((opened.id.first_seq, opened.records), (3, batch.records));
            assert_eq!(opened.records.count, 3);
            assert_eq!(read_records(&opened).is_some(), opened.encoded == batch.encoded);
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_batch(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unpack(bytes.into()).is_none());
        }

        /// A node with a fault, or an attacker, can make a header whose checksum is right.
        #[test]
        fn a_header_that_promises_anything_is_survived(
            numbers in proptest::array::uniform5(prop_oneof![0u64..5, any::<u64>(), Just(u64::MAX)]),
            records in proptest::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..60),
        ) {
            let [boot, first_seq, more, skipped, sum] = numbers;
            let mut fields = BatchFields { origin: "origin", boot, epoch: 7, first_seq, more, checksum: 0, skipped, sum, records: &records };
            fields.checksum = fields.checksum_of();
            let mut encoded = Vec::new();
            fields.write_header(&mut encoded);
            encoded.extend_from_slice(&records);
            if let Some(batch) = open(encoded.into()) {
                let count = batch.records.count as usize;
                prop_assert!(count >= 1 && count * COMPACT_BYTES_MIN <= records.len());
                prop_assert!(u64::from(batch.records.count) + skipped == more + 1 && more < COVERED_MAX);
                prop_assert_eq!(batch.last_seq, first_seq + more);
                prop_assert!(read_records(&batch).is_none(), "the sum is a guess");
            }
        }
    }
}
