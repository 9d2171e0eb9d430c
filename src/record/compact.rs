//! The compact form of the records of one batch, in which they travel between nodes.
//!
//! Records that one node accepted shortly after each other are alike: their numbers are consecutive, their
//! stamps are microseconds apart, their names begin alike, and often their data has the same length. So each
//! record is written as its difference from the one before. The comment on `Batch.records` in `gossip.proto`
//! describes every byte.
//!
//! The checksums of the records are not written one by one: eight bytes are a twentieth of a usual record.
//! The batch has one sum of all of them ([`CompactWriter::sum`]), made of the checksums that were computed
//! when the records were accepted. The receiver computes the checksum of every record anew from what arrived,
//! and accepts none of the records unless the sum is the same.
//!
//! Numbers must take the least bytes, and what equals its default must be left out: everything else is
//! refused.

use bytes::Bytes;
use prost::encoding::encoded_len_varint;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::fields::{take_varint, write_varint};
use super::words::shared_len;
use super::{Birth, NodeName, Payload, Record, SharedRecord, Source, Stamp};
use crate::limits::{SOURCE_BYTES_MAX, TS_MAX, TTL_MS_MAX};

/// The two bits of a record's first byte that tell the kind of its data.
const KIND_BITS: u8 = 0b11;
/// Kind of a record whose data is JSON.
const JSON: u8 = 0;
/// Kind of a record whose data is binary.
const BINARY: u8 = 1;
/// Kind of a record that deletes its source.
const DELETED: u8 = 2;
/// Set in the first byte if sequence numbers are skipped before the record.
const IS_AFTER_GAP: u8 = 1 << 2;
/// Set in the first byte if the time of acceptance differs from the stamp.
const HAS_ACCEPTED: u8 = 1 << 3;
/// Set in the first byte if the record has a time to live.
const HAS_TTL: u8 = 1 << 4;
/// Set in the first byte if the data has as many bytes as the data before it.
const HAS_SAME_LEN: u8 = 1 << 5;
/// All bits of the first byte that have a meaning.
const ALL_BITS: u8 = KIND_BITS | IS_AFTER_GAP | HAS_ACCEPTED | HAS_TTL | HAS_SAME_LEN;

/// Least bytes of a record: its first byte, its stamp, and the two lengths of its name.
pub const COMPACT_BYTES_MIN: usize = 4;
/// Memory that is set aside for the names of a batch while they are read, in bytes: few are longer.
const NAME_BYTES: usize = 64;

const _: () = assert!(SOURCE_BYTES_MAX <= u8::MAX as usize, "the length of a name takes one byte");

/// The numbers of the record before, from which the next one differs.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    /// The record's number among those of its origin.
    seq: u64,
    /// Time of the stamp, in microseconds.
    ts: u64,
    /// Number of bytes of the data that came last. A deletion leaves it as it was.
    data_len: usize,
    /// Sum of the checksums up to this record.
    sum: u64,
}

impl Before {
    /// Adds the checksum of the next record to the sum, which also depends on the order of the records.
    #[inline]
    fn add(&mut self, checksum: u64) {
        self.sum = xxh3_64_with_seed(&checksum.to_le_bytes(), self.sum);
    }
}

/// A signed number as an unsigned one that is small if the number is near 0 (protobuf's zigzag encoding).
#[inline]
fn folded(number: u64) -> u64 {
    number << 1 ^ ((number as i64) >> 63) as u64
}

/// The number that [`folded`] was given.
#[inline]
fn unfolded(number: u64) -> u64 {
    number >> 1 ^ (number & 1).wrapping_neg()
}

/// Writes the records of one batch, which must ascend by sequence number.
#[derive(Debug)]
pub struct CompactWriter<'a> {
    bytes: Vec<u8>,
    /// Number of records.
    count: u64,
    /// Name of the source of the record before.
    name: &'a str,
    before: Before,
}

impl<'a> CompactWriter<'a> {
    /// Begins a batch of records whose numbers are greater than `seq`. Memory is set aside for `bytes` bytes.
    pub fn new(seq: u64, bytes: usize) -> CompactWriter<'a> {
        let before = Before { seq, ..Before::default() };
        CompactWriter { bytes: Vec::with_capacity(bytes), count: 0, name: "", before }
    }

    /// Begins the batch that follows this one, in the same memory.
    pub fn begin_next(&mut self) {
        self.bytes.clear();
        (self.count, self.name) = (0, "");
        self.before = Before { seq: self.before.seq, ..Before::default() };
    }

    /// Appends a record unless there would be more than `bytes_max` bytes then. The first record of a batch is
    /// always appended. Returns whether it was.
    pub fn push(&mut self, record: &'a Record, bytes_max: usize) -> bool {
        let (len, before) = (self.bytes.len(), self.before);
        if len > 0 && len + record.payload.bytes().len() > bytes_max {
            return false;
        }
        self.write(record);
        if len > 0 && self.bytes.len() > bytes_max {
            self.bytes.truncate(len);
            self.before = before;
            return false;
        }
        self.name = record.source.as_str();
        self.count += 1;
        true
    }

    fn write(&mut self, record: &Record) {
        let (out, before) = (&mut self.bytes, &mut self.before);
        let data = match record.payload {
            Payload::Json(ref data) => Some((JSON, data)),
            Payload::Binary(ref data) => Some((BINARY, data)),
            Payload::Deleted => None,
        };
        debug_assert!(record.birth.seq > before.seq, "the numbers ascend");
        let gap = record.birth.seq.wrapping_sub(before.seq).wrapping_sub(1);
        let accepted = record.accepted_us.wrapping_sub(record.stamp.ts);
        let is_same_len = data.is_some_and(|(_, data)| data.len() == before.data_len);
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        out.push(
            data.map_or(DELETED, |(kind, _)| kind)
                | flag(gap > 0, IS_AFTER_GAP)
                | flag(accepted != 0, HAS_ACCEPTED)
                | flag(record.ttl_ms > 0, HAS_TTL)
                | flag(is_same_len, HAS_SAME_LEN),
        );
        if gap > 0 {
            write_varint(out, gap);
        }
        write_varint(out, folded(record.stamp.ts.wrapping_sub(before.ts)));
        if accepted != 0 {
            write_varint(out, folded(accepted));
        }
        if record.ttl_ms > 0 {
            write_varint(out, record.ttl_ms);
        }
        let name = record.source.as_str();
        let mut kept = shared_len(self.name.as_bytes(), name.as_bytes());
        while !name.is_char_boundary(kept) {
            kept -= 1;
        }
        let rest = name.as_bytes().get(kept..).unwrap_or_default();
        // A name has at most 255 bytes.
        out.extend_from_slice(&[kept as u8, rest.len() as u8]);
        out.extend_from_slice(rest);
        if let Some((_, data)) = data {
            if !is_same_len {
                write_varint(out, data.len() as u64);
            }
            out.extend_from_slice(data);
            before.data_len = data.len();
        }
        (before.seq, before.ts) = (record.birth.seq, record.stamp.ts);
        before.add(record.checksum);
    }

    /// The encoded records.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of records.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sequence number of the last record.
    pub fn last_seq(&self) -> u64 {
        self.before.seq
    }

    /// Sum of the checksums of the records.
    pub fn sum(&self) -> u64 {
        self.before.sum
    }
}

/// Reads the records of one batch. None of them may be believed before all were read and
/// [`CompactReader::sum`] was compared with the sum that the batch states.
#[derive(Debug)]
pub struct CompactReader<'a> {
    /// The bytes that were not read yet.
    rest: &'a [u8],
    /// The node that accepted the records.
    origin: &'a NodeName,
    /// Boot number of that node.
    boot: u64,
    /// Name of the source of the record before.
    name: String,
    before: Before,
}

impl<'a> CompactReader<'a> {
    /// Begins with the bytes of a batch of this node and life, whose records have numbers greater than `seq`.
    pub fn new(bytes: &'a [u8], origin: &'a NodeName, boot: u64, seq: u64) -> CompactReader<'a> {
        let before = Before { seq, ..Before::default() };
        CompactReader { rest: bytes, origin, boot, name: String::with_capacity(NAME_BYTES), before }
    }

    /// Returns whether all bytes were read.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Sequence number of the record that was read last.
    pub fn last_seq(&self) -> u64 {
        self.before.seq
    }

    /// Sum of the checksums of the records that were read.
    pub fn sum(&self) -> u64 {
        self.before.sum
    }

    /// Reads the next record; its checksum is that of what was read. `None`: no node would write it. The data
    /// is copied, so that a record that stays in the map for years does not keep its whole batch in memory.
    #[inline]
    pub fn read(&mut self) -> Option<SharedRecord> {
        let flags = self.take_byte()?;
        if flags & !ALL_BITS != 0 {
            return None;
        }
        let gap = if flags & IS_AFTER_GAP != 0 { self.take_positive()? } else { 0 };
        let seq = self.before.seq.checked_add(1)?.checked_add(gap)?;
        let ts = self.before.ts.wrapping_add(unfolded(self.take_number()?));
        // Clients could not read a greater one exactly, and no later one could be issued.
        if ts > TS_MAX {
            return None;
        }
        let accepted = if flags & HAS_ACCEPTED != 0 { unfolded(self.take_positive()?) } else { 0 };
        let ttl_ms = if flags & HAS_TTL != 0 { self.take_positive()? } else { 0 };
        if ttl_ms > TTL_MS_MAX {
            return None;
        }
        (self.before.seq, self.before.ts) = (seq, ts);
        let source = self.read_source()?;
        let (payload, stamp) = match flags & (KIND_BITS | HAS_SAME_LEN) {
            DELETED => (Payload::Deleted, Stamp::of_deletion(ts)),
            kind => self.read_data(kind, ts)?,
        };
        let birth = Birth { origin: self.origin.clone(), boot: self.boot, seq };
        let record = Record::new(source, stamp, payload, birth, ts.wrapping_add(accepted), ttl_ms);
        self.before.add(record.checksum);
        Some(record.into())
    }

    /// Reads a name: the number of bytes that are kept of the name before, and the bytes that follow them.
    #[inline]
    fn read_source(&mut self) -> Option<Source> {
        let (kept, len) = (usize::from(self.take_byte()?), usize::from(self.take_byte()?));
        let rest = self.take(len)?;
        if !self.name.is_char_boundary(kept) {
            return None;
        }
        self.name.truncate(kept);
        self.name.push_str(std::str::from_utf8(rest).ok()?);
        Source::parse(&self.name).ok()
    }

    /// Reads the data of a record that is no deletion.
    #[inline]
    fn read_data(&mut self, kind: u8, ts: u64) -> Option<(Payload, Stamp)> {
        if kind & HAS_SAME_LEN == 0 {
            let len = usize::try_from(self.take_number()?).ok()?;
            if len == self.before.data_len {
                return None;
            }
            self.before.data_len = len;
        }
        let data = self.take(self.before.data_len)?;
        let payload = match kind & KIND_BITS {
            JSON => {
                // Subscribers get this text inside WebSocket text frames, so it must be UTF-8 whichever way it
                // came. Nearly all of it is ASCII, which is found out several bytes at a time.
                if !data.is_ascii() && std::str::from_utf8(data).is_err() {
                    return None;
                }
                Payload::Json(Bytes::copy_from_slice(data))
            }
            BINARY => Payload::Binary(Bytes::copy_from_slice(data)),
            _ => return None,
        };
        Some((payload, Stamp::of_data(ts, data)))
    }

    #[inline]
    fn take_byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// Reads a number that takes as few bytes as it can.
    #[inline]
    fn take_number(&mut self) -> Option<u64> {
        let before = self.rest.len();
        let number = take_varint(&mut self.rest)?;
        (before - self.rest.len() == encoded_len_varint(number)).then_some(number)
    }

    /// Reads a number that is not 0.
    fn take_positive(&mut self) -> Option<u64> {
        self.take_number().filter(|number| *number > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn origin() -> NodeName {
        NodeName::parse("origin").expect("a name")
    }

    /// Numbers of every size.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0u64), 1u64..300, any::<u64>(), Just(u64::MAX)]
    }

    fn payload() -> impl Strategy<Value = Payload> {
        prop_oneof![
            Just(Payload::Deleted),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|data| Payload::Binary(data.into())),
            Just(Payload::Binary(vec![200; 12].into())),
            "[a-zé]{0,20}".prop_map(|text| Payload::Json(text.into())),
            Just(Payload::Json("\"twelve---a\"".into())),
        ]
    }

    prop_compose! {
        fn record()(
            gap in prop_oneof![4 => Just(0u64), 1 => 1u64..300, 1 => any::<u32>().prop_map(u64::from)],
            name in prop_oneof!["sensors/[a-c]{1,3}/[äöü]{1,3}", "[a-z]{1,9}", "[a-c]{250,255}"],
            payload in payload(),
            ts in prop_oneof![0u64..=TS_MAX, 1_000_000u64..1_000_300, Just(TS_MAX)],
            accepted_us in number(),
            is_accepted_at_ts: bool,
            ttl_ms in prop_oneof![3 => Just(0u64), 1 => 1u64..=TTL_MS_MAX],
        ) -> Record {
            let stamp = match &payload {
                Payload::Deleted => Stamp::of_deletion(ts),
                other => Stamp::of_data(ts, other.bytes()),
            };
            let birth = Birth { origin: origin(), boot: 3, seq: gap };
            let accepted_us = if is_accepted_at_ts { ts } else { accepted_us };
            Record::new(Source::parse(&name).expect("a name"), stamp, payload, birth, accepted_us, ttl_ms)
        }
    }

    /// Records whose numbers ascend from above `seq`. The strategy draws gaps in the place of numbers.
    fn numbered(mut seq: u64, records: Vec<Record>) -> Vec<Record> {
        let number = |record: Record| {
            seq += 1 + record.birth.seq;
            let Record { source, stamp, payload, accepted_us, ttl_ms, .. } = record;
            let birth = Birth { origin: origin(), boot: 3, seq };
            Record::new(source, stamp, payload, birth, accepted_us, ttl_ms)
        };
        records.into_iter().map(number).collect()
    }

    /// Reads all records. `None`: they are malformed, or the sum of their checksums is another.
    fn read_all(bytes: &[u8], seq: u64, sum: u64) -> Option<Vec<Record>> {
        let (origin, mut records) = (origin(), Vec::new());
        let mut reader = CompactReader::new(bytes, &origin, 3, seq);
        while !reader.is_at_end() {
            records.push(Arc::unwrap_or_clone(reader.read()?));
        }
        (reader.sum() == sum).then_some(records)
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_went(seq in 0u64..1 << 40, records in prop::collection::vec(record(), 1..12)) {
            let records = numbered(seq, records);
            let mut writer = CompactWriter::new(seq, 0);
            prop_assert!(records.iter().all(|record| writer.push(record, usize::MAX)));
            prop_assert_eq!(writer.last_seq(), records.last().map_or(0, |record| record.birth.seq));
            prop_assert!(writer.bytes().len() >= COMPACT_BYTES_MIN * records.len());
            prop_assert_eq!(read_all(writer.bytes(), seq, writer.sum()), Some(records));
        }

        /// A batch that is full takes no part of the record that did not fit.
        #[test]
        fn what_does_not_fit_leaves_no_trace(records in prop::collection::vec(record(), 2..12), bytes_max in 0usize..600) {
            let records = numbered(0, records);
            let (mut writer, mut back, mut seq) = (CompactWriter::new(0, 0), Vec::new(), 0);
            for record in &records {
                if !writer.push(record, bytes_max) {
                    prop_assert!(writer.bytes().len() <= bytes_max || writer.count() == 1);
                    back.extend(read_all(writer.bytes(), seq, writer.sum()).expect("reads"));
                    seq = writer.last_seq();
                    writer.begin_next();
                    prop_assert!(writer.push(record, bytes_max));
                }
            }
            back.extend(read_all(writer.bytes(), seq, writer.sum()).expect("reads"));
            prop_assert_eq!(back, records);
        }

        /// Random bytes are refused, or are valid records that take no fewer bytes when they are written.
        #[test]
        fn garbage_is_refused_or_valid(bytes in prop::collection::vec(prop_oneof![0u8..16, any::<u8>()], 0..60), seq in number()) {
            let origin = origin();
            let mut reader = CompactReader::new(&bytes, &origin, 3, seq);
            let records: Vec<SharedRecord> = std::iter::from_fn(|| reader.read()).collect();
            for record in &records {
                prop_assert!(record.stamp.ts <= TS_MAX && record.ttl_ms <= TTL_MS_MAX && record.birth.seq > seq);
                prop_assert!(Source::check(record.source.as_str()).is_ok());
            }
            let mut writer = CompactWriter::new(seq, 0);
            records.iter().for_each(|record| assert!(writer.push(record, usize::MAX)));
            prop_assert!(writer.bytes().len() <= bytes.len());
        }
    }

    proptest! {
        // Every case decodes its records some thousands of times.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn every_flipped_bit_is_seen(records in prop::collection::vec(record(), 1..5)) {
            let records = numbered(0, records);
            let mut writer = CompactWriter::new(0, 0);
            records.iter().for_each(|record| assert!(writer.push(record, usize::MAX)));
            for bit in 0..writer.bytes().len() * 8 {
                let mut flipped = writer.bytes().to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(read_all(&flipped, 0, writer.sum()), None, "bit {}", bit);
            }
            for len in 0..writer.bytes().len() {
                prop_assert_eq!(read_all(&writer.bytes()[..len], 0, writer.sum()), None, "cut to {}", len);
            }
        }
    }

    #[test]
    fn what_no_node_would_write_is_refused() {
        let one =
            |bytes: &[u8]| CompactReader::new(bytes, &origin(), 3, 0).read().map(|record| record.birth.seq);
        assert_eq!(one(b"\x01\x02\x00\x01a\x03abc"), Some(1));
        assert_eq!(one(b"\x05\x01\x02\x00\x01a\x03abc"), Some(2));
        for (bytes, what) in [
            (&b"\x03\x02\x00\x01a\x03abc"[..], "a kind that is not known"),
            (b"\x41\x02\x00\x01a\x03abc", "a bit without a meaning"),
            (b"\x05\x00\x02\x00\x01a\x03abc", "a gap of no numbers"),
            (b"\x09\x02\x00\x00\x01a\x03abc", "a time of acceptance that is the stamp's, stated"),
            (b"\x11\x02\x00\x00\x01a\x03abc", "a time to live of 0, stated"),
            (b"\x01\x82\x00\x00\x01a\x03abc", "a number of more bytes than it needs"),
            (b"\x01\x01\x00\x01a\x03abc", "a stamp below 0"),
            (b"\x01\x02\x01\x01a\x03abc", "more kept of a name than there was"),
            (b"\x01\x02\x00\x01*\x03abc", "a name with a star"),
            (b"\x01\x02\x00\x00\x03abc", "an empty name"),
            (b"\x01\x02\x00\x01\xff\x03abc", "a name that is not UTF-8"),
            (b"\x00\x02\x00\x01a\x03\xffbc", "a JSON text that is not UTF-8"),
            (b"\x01\x02\x00\x01a\x00", "the same length as before, stated"),
            (b"\x01\x02\x00\x01a\x04abc", "data beyond the end"),
            (b"\x01\x02\x00\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "data beyond the memory"),
            (b"\x22\x02\x00\x01a", "a deletion with a length"),
        ] {
            assert_eq!(one(bytes), None, "{what}");
        }
        let origin = origin();
        let mut reader = CompactReader::new(b"\x02\x02\x00\x02\xc3\xa4\x02\x02\x01\x01a", &origin, 3, 0);
        assert!(reader.read().is_some() && reader.read().is_none(), "half of a character of the name before");
        let mut reader = CompactReader::new(b"\x02\x02\x00\x01a\x02\x02\x00\x01b", &origin, 3, u64::MAX - 1);
        assert!(reader.read().is_some() && reader.read().is_none(), "a number beyond the greatest");
    }
}
