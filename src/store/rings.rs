//! Histories in memory: of each source the records that were the latest, up to a number.
//!
//! The only record of a source is the one that the map holds, too. From the second on, records are kept in their
//! encoded form, each in one block of memory. The record that is passed round in the node takes twice as much, in
//! three blocks, each of which would have to be fetched into the processor's caches once more when it is dropped;
//! so a record is encoded while it is new.
//!
//! Histories are bounded in bytes over all sources: the oldest entry is dropped first, of whichever
//! source it is.

use std::collections::VecDeque;

use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::record::cost::allocated;
use crate::record::hash::name_hash;
use crate::record::{SharedRecord, Source, Stamp, wire};

/// Memory of the histories of all sources, in bytes.
const HISTORY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Number of unused entries of a table that are kept in any case.
const ENTRIES_KEPT: usize = 64;
/// Least memory of an entry, in bytes, by which the number of entries is estimated.
const ENTRY_BYTES_MIN: usize = 64;

/// History of one source.
struct SourceRing {
    source: Source,
    /// Stamp of the newest record.
    newest: Stamp,
    /// Records in ascending order of their stamps, the oldest first. There is at least one.
    records: VecDeque<HistoryEntry>,
}

impl SourceRing {
    fn is_of(&self, source: &str) -> bool {
        self.source.as_str() == source
    }

    /// Place of the oldest record among those of all sources.
    fn oldest_number(&self) -> u64 {
        self.records.front().map_or(0, |oldest| oldest.number)
    }
}

struct HistoryEntry {
    /// Place of the entry among those of all sources.
    number: u64,
    kept: KeptRecord,
}

/// A record of a history.
enum KeptRecord {
    /// The record is shared with the map.
    Shared(SharedRecord),
    /// The record is kept in its encoded form.
    Encoded(Box<[u8]>),
}

impl KeptRecord {
    /// Keeps a record in its encoded form, if there are others of the source.
    fn of(record: &SharedRecord, is_only: bool) -> KeptRecord {
        match is_only {
            true => KeptRecord::Shared(record.clone()),
            false => KeptRecord::Encoded(wire::encode(record).into_boxed_slice()),
        }
    }

    /// Memory of the record, in bytes. One that is shared with the map counts here, too.
    fn cost_bytes(&self) -> usize {
        match self {
            KeptRecord::Shared(record) => record.cost_bytes(),
            KeptRecord::Encoded(encoded) => allocated(encoded.len()),
        }
    }

    fn record(&self) -> Option<SharedRecord> {
        match self {
            KeptRecord::Shared(record) => Some(record.clone()),
            KeptRecord::Encoded(encoded) => wire::decode(encoded).ok().map(SharedRecord::from),
        }
    }
}

/// Returns how much memory the entries of a ring take, in bytes, those that are not in use included.
fn entry_bytes(records: &VecDeque<HistoryEntry>) -> usize {
    match records.capacity() {
        0 => 0,
        capacity => allocated(capacity * size_of::<HistoryEntry>()),
    }
}

#[derive(Default)]
struct RingTable {
    rings: HashTable<SourceRing>,
    /// Order in which records are dropped: the hash of a record's source, and its number. May name
    /// records that are dropped already.
    order: VecDeque<(u64, u64)>,
    /// Number of the entry that was added last.
    numbered: u64,
    /// Bytes of all records in the rings.
    bytes: usize,
    /// Bytes of the rings' entries, those that are not in use included.
    entry_bytes: usize,
}

/// Histories in memory, shared by all threads.
pub(super) struct HistoryRings {
    table: Mutex<RingTable>,
    len_max: usize,
    bytes_max: usize,
}

impl HistoryRings {
    /// Empty histories of at most `len_max` records each.
    pub(super) fn new(len_max: u32) -> HistoryRings {
        HistoryRings { table: Mutex::default(), len_max: len_max as usize, bytes_max: HISTORY_BYTES_MAX }
    }

    /// Greatest number of records of a source.
    pub(super) fn len_max(&self) -> usize {
        self.len_max
    }

    /// Adds a record that became the latest of its source.
    pub(super) fn push(&self, record: &SharedRecord) {
        if self.len_max == 0 {
            return;
        }
        let mut table = self.table.lock();
        table.push(record, self.len_max);
        while table.held_bytes() > self.bytes_max && table.drop_oldest() {}
        debug_assert!(!table.rings.is_empty() || table.bytes == 0, "bytes are those of the records");
    }

    /// Drops the history of a source, unless the stamp of its newest record is greater than `stamp`.
    pub(super) fn remove(&self, source: &Source, stamp: Stamp) {
        let mut table = self.table.lock();
        let found = table.rings.find_entry(name_hash(source.as_str()), |ring| ring.is_of(source.as_str()));
        let Ok(entry) = found else { return };
        if entry.get().newest <= stamp {
            let (ring, _) = entry.remove();
            table.bytes -= ring.records.iter().map(|entry| entry.kept.cost_bytes()).sum::<usize>();
            table.handle_removed(&ring);
        }
    }

    /// The records of a source, the oldest first.
    pub(super) fn of_source(&self, source: &str) -> Vec<SharedRecord> {
        let table = self.table.lock();
        let ring = table.rings.find(name_hash(source), |ring| ring.is_of(source));
        let entries = ring.into_iter().flat_map(|ring| &ring.records);
        entries.filter_map(|entry| entry.kept.record()).collect()
    }
}

impl RingTable {
    /// Returns how much memory the histories take, in bytes: records, rings, and the order of the records.
    fn held_bytes(&self) -> usize {
        let order_bytes = self.order.capacity() * size_of::<(u64, u64)>();
        self.bytes + self.entry_bytes + self.rings.allocation_size() + order_bytes
    }

    /// Takes the entries of a ring that was removed out of the sum. A table or an order of which little is in use
    /// is made smaller, since it would count against the histories for ever.
    fn handle_removed(&mut self, ring: &SourceRing) {
        self.entry_bytes -= entry_bytes(&ring.records);
        if self.rings.capacity() > 4 * self.rings.len() + ENTRIES_KEPT {
            self.rings.shrink_to(2 * self.rings.len(), |ring| name_hash(ring.source.as_str()));
        }
        if self.order.capacity() > 4 * self.order.len() + ENTRIES_KEPT {
            self.order.shrink_to(2 * self.order.len());
        }
    }

    fn push(&mut self, record: &SharedRecord, len_max: usize) {
        let hash = name_hash(record.source.as_str());
        let entry = self.rings.entry(
            hash,
            |ring| ring.is_of(record.source.as_str()),
            |ring| name_hash(ring.source.as_str()),
        );
        let mut entry = entry.or_insert_with(|| SourceRing {
            source: record.source.clone(),
            newest: record.stamp,
            records: VecDeque::new(),
        });
        let SourceRing { newest, records, .. } = entry.get_mut();
        let is_replaced = *newest == record.stamp && !records.is_empty();
        if *newest > record.stamp {
            return;
        }
        *newest = record.stamp;
        let is_only = len_max == 1 || records.len() <= usize::from(is_replaced);
        let kept = KeptRecord::of(record, is_only);
        self.bytes += kept.cost_bytes();
        if is_replaced && let Some(last) = records.back_mut() {
            self.bytes -= std::mem::replace(&mut last.kept, kept).cost_bytes();
            return;
        }
        // The map has let go of the record that was the only one so far.
        if let Some(HistoryEntry { kept: KeptRecord::Shared(only), .. }) = records.back()
            && !is_only
        {
            let encoded = KeptRecord::of(only, false);
            self.bytes = self.bytes + encoded.cost_bytes() - only.cost_bytes();
            if let Some(last) = records.back_mut() {
                last.kept = encoded;
            }
        }
        self.numbered += 1;
        self.order.push_back((hash, self.numbered));
        let entries_before = entry_bytes(records);
        if records.capacity() == 0 {
            // Many sources have only one record for a long time.
            records.reserve_exact(1);
        }
        records.push_back(HistoryEntry { number: self.numbered, kept });
        self.entry_bytes += entry_bytes(records) - entries_before;
        if records.len() > len_max
            && let Some(oldest) = records.pop_front()
        {
            self.bytes -= oldest.kept.cost_bytes();
            // If sources publish in turns, this record is the oldest of all and its place is the first.
            self.order.pop_front_if(|first| *first == (hash, oldest.number));
        }
        self.shorten_order();
    }

    /// Removes dropped records from the order once it is several times as long as the number of records held.
    fn shorten_order(&mut self) {
        let held: usize = self.bytes / ENTRY_BYTES_MIN + 1024;
        if self.order.len() <= 4 * held {
            return;
        }
        let rings = &self.rings;
        self.order
            .retain(|(hash, number)| rings.iter_hash(*hash).any(|ring| ring.oldest_number() <= *number));
    }

    /// Drops the record that was added first. Returns `false` if there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some((hash, number)) = self.order.pop_front() else { return false };
        let found = self.rings.find_entry(hash, |ring| ring.oldest_number() == number);
        let Ok(mut entry) = found else { return true };
        let records = &mut entry.get_mut().records;
        let oldest = records.pop_front();
        if records.is_empty() {
            let (ring, _) = entry.remove();
            self.handle_removed(&ring);
        }
        self.bytes -= oldest.map_or(0, |oldest| oldest.kept.cost_bytes());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::shared;

    /// Only the records were counted, and the rings of many sources with one small record each took more memory
    /// than these.
    #[test]
    fn histories_are_bounded_in_bytes() {
        let rings = HistoryRings { bytes_max: 100_000, ..HistoryRings::new(4) };
        for n in 0..10_000 {
            rings.push(&shared(&format!("s/{}", n % 3000), n + 1));
            assert!(rings.table.lock().held_bytes() <= 100_000);
        }
        let table = rings.table.lock();
        let kept: usize = table.rings.iter().map(|ring| ring.records.len()).sum();
        assert!(table.held_bytes() > 50_000 && kept > 100, "{} bytes, {kept} records", table.held_bytes());
        assert_eq!(
            table.entry_bytes,
            table.rings.iter().map(|ring| entry_bytes(&ring.records)).sum::<usize>()
        );
    }

    #[test]
    fn forgotten_histories_leave_no_memory_behind() {
        let rings = HistoryRings::new(4);
        let records: Vec<_> = (0..5_000).map(|n| shared(&format!("s/{n}"), n + 1)).collect();
        records.iter().for_each(|record| rings.push(record));
        let full = rings.table.lock().held_bytes();
        records.iter().for_each(|record| rings.remove(&record.source, record.stamp));
        let table = rings.table.lock();
        assert_eq!((table.bytes, table.entry_bytes), (0, 0));
        assert!(table.held_bytes() < full / 4, "{} of {full}", table.held_bytes());
    }
}
