//! Decides which records take part in a session, and turns them into items.
//!
//! An item is 128 bits: a hash of the source's name (upper half) and the record's checksum. Both
//! sides must choose the same records, so the choice depends on the record and on what both agreed
//! at the session's beginning, never on when a record came by.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::riblt::{Difference, Encoder, SetItem};
use crate::cluster::Replica;
use crate::record::{NodeName, Record, SharedRecord};

/// Decides which records take part in a session.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Seed of the session's hashes: two names that collide in one session do not in the next.
    pub seed: u64,
    /// Wall clock of the session, in microseconds. Deletions that may be collected by then take no part: they are
    /// gone at one side, and must not come back from the other. Values that expired long before take no part
    /// either: every node lets them expire by itself.
    pub wall_us: u64,
    /// Earlier one of the two sides' wall clocks, in microseconds. Records that are too far ahead of it take no
    /// part, because one of the two sides would refuse them.
    pub earliest_wall_us: u64,
    /// Time for which deletions are kept, in microseconds.
    pub tombstones_us: u64,
    /// Wall clock, in microseconds. Records accepted later take no part: they may still be on their way down
    /// their tree.
    pub accepted_us_max: u64,
    /// Set on a node that was away for too long, to its name and the time when it last agreed with the
    /// cluster: only records that it accepted itself since then take part.
    pub own_since: Option<(NodeName, u64)>,
}

impl Filter {
    /// Returns whether a record takes part.
    pub fn admits(&self, record: &Record) -> bool {
        let is_own = |(name, since_us): &(NodeName, u64)| {
            record.birth.origin == *name && record.accepted_us > *since_us
        };
        record.accepted_us <= self.accepted_us_max
            && !record.is_far_ahead(self.earliest_wall_us)
            && record.exchanged_until_us(self.tombstones_us).is_none_or(|at| at > self.wall_us)
            && self.own_since.as_ref().is_none_or(is_own)
    }

    /// Returns the hash of a source's name in this session.
    pub fn source_hash(&self, source: &str) -> u64 {
        xxh3_64_with_seed(source.as_bytes(), self.seed)
    }

    fn item(&self, record: &Record) -> SetItem {
        SetItem::from(self.source_hash(record.source.as_str())) << 64 | SetItem::from(record.checksum)
    }
}

/// Returns the hash of the name of the source that an item stands for.
pub(super) fn source_of(item: SetItem) -> u64 {
    (item >> 64) as u64
}

/// Returns the items of a shard as a set, and the number of records looked at.
pub(super) fn set_of_shard(replica: &dyn Replica, shard: usize, filter: &Filter) -> (Encoder, usize) {
    let (mut items, mut visited) = (Vec::new(), 0);
    replica.visit_shard(shard, &mut |record| {
        visited += 1;
        if filter.admits(record) {
            items.push(filter.item(record));
        }
    });
    // What is sent must not depend on the order of the map.
    items.sort_unstable();
    (Encoder::new(&items, filter.seed), visited)
}

/// Returns the records of a shard that take part, in the order of the hashes of their sources: all of them,
/// or those of the sources whose hashes are in `wanted`, which is in ascending order.
pub(super) fn records_of_shard(
    replica: &dyn Replica,
    shard: usize,
    filter: &Filter,
    wanted: Option<&[u64]>,
) -> Vec<SharedRecord> {
    let mut records = Vec::new();
    replica.visit_shard(shard, &mut |record| {
        let hash = filter.source_hash(record.source.as_str());
        if wanted.is_none_or(|wanted| wanted.binary_search(&hash).is_ok()) && filter.admits(record) {
            records.push((hash, record.clone()));
        }
    });
    records.sort_unstable_by(|(a, left), (b, right)| a.cmp(b).then_with(|| left.source.cmp(&right.source)));
    records.into_iter().map(|(_, record)| record).collect()
}

/// Returns the items of two ascending lists that are in only one of them.
pub(super) fn compare_lists(theirs: &[SetItem], ours: &[SetItem]) -> Difference {
    let mut difference = Difference::default();
    let (mut theirs, mut ours) = (theirs.iter().peekable(), ours.iter().peekable());
    loop {
        match (theirs.peek(), ours.peek()) {
            (Some(&&their), Some(&&our)) if their == our => {
                theirs.next();
                ours.next();
            }
            (Some(&&their), our) if our.is_none_or(|&&our| their < our) => {
                difference.theirs.push(their);
                theirs.next();
            }
            (_, Some(&&our)) => {
                difference.ours.push(our);
                ours.next();
            }
            (_, None) => return difference,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Birth, Payload, Source, Stamp};

    /// An expired value is exchanged for a quarter of the time for which a deletion is, at every node alike. After
    /// that some nodes hold it whole and others have only its hash.
    #[test]
    fn expired_values_take_part_for_a_quarter_of_the_time() {
        let day_us = 86_400_000_000;
        let birth = |seq| Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq };
        let source = || Source::parse("s").expect("source");
        let value =
            Record::new(source(), Stamp::of_data(5, b"1"), Payload::Json("1".into()), birth(1), 5, 1_000);
        let deletion = Record::new(source(), Stamp::of_deletion(5), Payload::Deleted, birth(2), 5, 0);
        let admits = |record: &Record, wall_us| {
            let filter = Filter {
                wall_us,
                earliest_wall_us: wall_us,
                tombstones_us: day_us,
                accepted_us_max: u64::MAX,
                ..Filter::default()
            };
            filter.admits(record)
        };
        let end_us = 5 + 1_000_000;
        assert!(admits(&value, end_us) && admits(&value, end_us + day_us / 4 - 1));
        assert!(!admits(&value, end_us + day_us / 4));
        assert!(admits(&deletion, 5 + day_us - 1) && !admits(&deletion, 5 + day_us));
    }

    #[test]
    fn lists() {
        let difference = compare_lists(&[1, 2, 4, 9], &[2, 3, 9, 11, 12]);
        assert_eq!(difference, Difference { theirs: vec![1, 4], ours: vec![3, 11, 12] });
        assert_eq!(compare_lists(&[7, 8], &[]), Difference { theirs: vec![7, 8], ours: vec![] });
        assert_eq!(compare_lists(&[], &[7]), Difference { theirs: vec![], ours: vec![7] });
    }
}
