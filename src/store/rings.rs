//! Histories in memory: of each source the records that were the latest, up to a number.
//!
//! The only record of a source is the one that the map holds, too. From the second on, records are kept in their
//! encoded form, one after the other in large pieces of memory ([`super::segments`]). The record that is passed round
//! in the node takes twice as much, in three blocks, each of which would have to be fetched into the processor's
//! caches once more when it is dropped; so a record is encoded while it is new.
//!
//! Histories are bounded in bytes over all sources: the oldest entry is dropped first, of whichever
//! source it is.

use std::collections::VecDeque;

use hashbrown::HashTable;
use parking_lot::Mutex;

use super::segments::{Place, SEGMENT_BYTES, Segments, Tag};
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

    /// Index of the record of this number among those of the source, if it is held.
    fn place_of(&self, number: u64) -> Option<usize> {
        self.records.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    /// The record of this number, if it is held.
    fn kept_mut(&mut self, number: u64) -> Option<&mut KeptRecord> {
        let at = self.place_of(number)?;
        self.records.get_mut(at).map(|entry| &mut entry.kept)
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
    Encoded(Place),
}

/// The records that are kept, of all sources.
struct KeptRecords {
    encoded: Segments,
    /// Bytes of those that are shared with the map. They count here, too.
    shared_bytes: usize,
}

impl KeptRecords {
    /// Keeps a record, in its encoded form if there are others of the source.
    fn keep(&mut self, record: &SharedRecord, tag: Tag, is_only: bool) -> KeptRecord {
        if is_only {
            self.shared_bytes += record.cost_bytes();
            return KeptRecord::Shared(record.clone());
        }
        let len = wire::encoded_len(record);
        KeptRecord::Encoded(self.encoded.append(tag, len, |out| wire::write(out, record)))
    }

    /// Lets a record go.
    fn drop(&mut self, kept: KeptRecord) {
        match kept {
            KeptRecord::Shared(record) => self.shared_bytes -= record.cost_bytes(),
            KeptRecord::Encoded(place) => self.encoded.release(place),
        }
    }

    fn record(&self, kept: &KeptRecord) -> Option<SharedRecord> {
        match kept {
            KeptRecord::Shared(record) => Some(record.clone()),
            KeptRecord::Encoded(place) => wire::decode(self.encoded.get(*place)).ok().map(SharedRecord::from),
        }
    }

    /// Memory of the records in bytes.
    fn bytes(&self) -> usize {
        self.shared_bytes + self.encoded.allocated_bytes()
    }
}

/// Returns how much memory the entries of a ring take, in bytes, those that are not in use included.
fn entry_bytes(records: &VecDeque<HistoryEntry>) -> usize {
    match records.capacity() {
        0 => 0,
        capacity => allocated(capacity * size_of::<HistoryEntry>()),
    }
}

struct RingTable {
    rings: HashTable<SourceRing>,
    kept: KeptRecords,
    /// Order in which records are dropped: the hash of a record's source, and its number. May name
    /// records that are dropped already.
    order: VecDeque<(u64, u64)>,
    /// Number of the entry that was added last.
    numbered: u64,
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
        HistoryRings::sized(len_max, HISTORY_BYTES_MAX, SEGMENT_BYTES)
    }

    /// Empty histories of at most `len_max` records each and about `bytes_max` bytes in all.
    fn sized(len_max: u32, bytes_max: usize, segment_bytes: usize) -> HistoryRings {
        let table = RingTable {
            rings: HashTable::new(),
            kept: KeptRecords { encoded: Segments::new(segment_bytes), shared_bytes: 0 },
            order: VecDeque::new(),
            numbered: 0,
            entry_bytes: 0,
        };
        HistoryRings { table: Mutex::new(table), len_max: len_max as usize, bytes_max }
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
        table.compact();
        while table.held_bytes() > self.bytes_max && table.drop_oldest() {}
    }

    /// Drops the history of a source, unless the stamp of its newest record is greater than `stamp`.
    pub(super) fn remove(&self, source: &Source, stamp: Stamp) {
        let mut table = self.table.lock();
        let found = table.rings.find_entry(name_hash(source.as_str()), |ring| ring.is_of(source.as_str()));
        let Ok(entry) = found else { return };
        if entry.get().newest <= stamp {
            let (ring, _) = entry.remove();
            table.handle_removed(&ring);
            ring.records.into_iter().for_each(|entry| table.kept.drop(entry.kept));
        }
    }

    /// The records of a source, the oldest first.
    pub(super) fn of_source(&self, source: &str) -> Vec<SharedRecord> {
        let table = self.table.lock();
        let ring = table.rings.find(name_hash(source), |ring| ring.is_of(source));
        let entries = ring.into_iter().flat_map(|ring| &ring.records);
        entries.filter_map(|entry| table.kept.record(&entry.kept)).collect()
    }
}

impl RingTable {
    /// Returns how much memory the histories take, in bytes: records, rings, and the order of the records.
    fn held_bytes(&self) -> usize {
        let order_bytes = self.order.capacity() * size_of::<(u64, u64)>();
        self.kept.bytes() + self.entry_bytes + self.rings.allocation_size() + order_bytes
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
        if is_replaced && let Some(last) = records.back_mut() {
            let tag = Tag { hash, number: last.number };
            let kept = self.kept.keep(record, tag, is_only);
            self.kept.drop(std::mem::replace(&mut last.kept, kept));
            return;
        }
        // The map has let go of the record that was the only one so far.
        if !is_only
            && let Some(HistoryEntry { kept, number }) = records.back_mut()
            && let KeptRecord::Shared(only) = kept
        {
            let encoded = self.kept.keep(only, Tag { hash, number: *number }, false);
            self.kept.drop(std::mem::replace(kept, encoded));
        }
        self.numbered += 1;
        let number = self.numbered;
        let kept = self.kept.keep(record, Tag { hash, number }, is_only);
        self.order.push_back((hash, number));
        // Before the new record is added, whose place is then the one that becomes free.
        if records.len() >= len_max
            && let Some(oldest) = records.pop_front()
        {
            self.kept.drop(oldest.kept);
            // If sources publish in turns, this record is the oldest of all and its place is the first.
            self.order.pop_front_if(|first| *first == (hash, oldest.number));
        }
        let entries_before = entry_bytes(records);
        if records.capacity() == 0 {
            // Many sources have only one record for a long time.
            records.reserve_exact(1);
        }
        records.push_back(HistoryEntry { number, kept });
        self.entry_bytes += entry_bytes(records) - entries_before;
        self.shorten_order();
    }

    /// Moves the records of segments of which little is held, so that memory is not lost to sources that publish
    /// seldom. Two segments for each record at most: each frees a third of its memory.
    fn compact(&mut self) {
        for _ in 0..2 {
            let Some(taken) = self.kept.encoded.take_sparsest() else { return };
            for (tag, place, bytes) in taken.records() {
                let is_of = |ring: &SourceRing| ring.place_of(tag.number).is_some();
                let Some(ring) = self.rings.find_mut(tag.hash, is_of) else { continue };
                if let Some(KeptRecord::Encoded(kept)) = ring.kept_mut(tag.number)
                    && *kept == place
                {
                    *kept = self.kept.encoded.append(tag, bytes.len(), |out| out.extend_from_slice(bytes));
                }
            }
            self.kept.encoded.give_back(taken);
        }
    }

    /// Removes dropped records from the order once it is several times as long as the number of records held.
    fn shorten_order(&mut self) {
        let held: usize = self.kept.bytes() / ENTRY_BYTES_MIN + 1024;
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
        if let Some(oldest) = oldest {
            self.kept.drop(oldest.kept);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::store::testing::shared;

    /// Only the records were counted, and the rings of many sources with one small record each took more memory
    /// than these.
    #[test]
    fn histories_are_bounded_in_bytes() {
        let rings = HistoryRings::sized(4, 100_000, 1_024);
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

    /// Sources that publish at very different rates share segments, whose records are moved again and again.
    #[test]
    fn busy_sources_do_not_take_the_histories_of_quiet_ones() {
        let rings = HistoryRings::sized(8, 1_000_000, 1_024);
        let mut model: HashMap<String, VecDeque<u64>> = HashMap::new();
        for n in 1..20_000_u64 {
            let rate = 1 << (n % 12);
            let name = format!("s/{}", n / rate % 12 * 100 + n % 12);
            rings.push(&shared(&name, n));
            let stamps = model.entry(name).or_default();
            stamps.push_back(n);
            if stamps.len() > 8 {
                stamps.pop_front();
            }
        }
        for (name, stamps) in &model {
            let held: Vec<u64> = rings.of_source(name).iter().map(|record| record.stamp.ts).collect();
            assert!(held.iter().eq(stamps), "{name}: {held:?} instead of {stamps:?}");
        }
        let records: usize = model.values().map(VecDeque::len).sum();
        let bytes = rings.table.lock().kept.bytes();
        assert!(bytes < 300 * records, "{bytes} bytes for {records} records");
    }

    #[test]
    fn forgotten_histories_leave_no_memory_behind() {
        let rings = HistoryRings::new(4);
        let records: Vec<_> = (0..5_000).map(|n| shared(&format!("s/{n}"), n + 1)).collect();
        records.iter().for_each(|record| rings.push(record));
        let again: Vec<_> = (0..5_000).map(|n| shared(&format!("s/{n}"), n + 5_001)).collect();
        again.iter().for_each(|record| rings.push(record));
        let full = rings.table.lock().held_bytes();
        again.iter().for_each(|record| rings.remove(&record.source, record.stamp));
        let table = rings.table.lock();
        assert_eq!((table.kept.shared_bytes, table.entry_bytes), (0, 0));
        assert!(table.held_bytes() < full / 4, "{} of {full}", table.held_bytes());
    }
}
