//! Which records take part in a session, and as which items.
//!
//! An item is 128 bits: a hash of the source's name (upper half) and the record's checksum. Both
//! sides must choose the same records, so the choice depends on the record and on what both agreed
//! at the session's beginning, never on when a record came by.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::riblt::{Item, check_of};
use crate::cluster::Replica;
use crate::record::{NodeName, Record, SharedRecord};

/// Which records take part.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Seed of the session's hashes: two names that collide in one session do not in the next.
    pub seed: u64,
    /// The session's time. What could be collected by then takes no part: it is gone at one side,
    /// and must not come back from the other.
    pub wall_us: u64,
    /// How long deletions are kept.
    pub tombstones_us: u64,
    /// Records accepted later take no part: they may still be on their way down their tree.
    pub accepted_us_max: u64,
    /// Set on a node that was away for too long: only what itself accepted in this life takes part.
    pub own_life: Option<(NodeName, u64)>,
}

impl Filter {
    /// Whether a record takes part.
    pub fn admits(&self, record: &Record) -> bool {
        let is_own = |(name, boot): &(NodeName, u64)| {
            record.birth.origin == *name && record.birth.boot == *boot
        };
        record.accepted_us <= self.accepted_us_max
            && record.collect_us(self.tombstones_us).is_none_or(|at| at > self.wall_us)
            && self.own_life.as_ref().is_none_or(is_own)
    }

    /// The hash of a source's name.
    pub fn source_hash(&self, source: &str) -> u64 {
        xxh3_64_with_seed(source.as_bytes(), self.seed)
    }

    fn item(&self, record: &Record) -> Item {
        Item::from(self.source_hash(record.source.as_str())) << 64 | Item::from(record.checksum)
    }
}

/// The hash of the source that an item's record is of.
pub(super) fn source_of(item: Item) -> u64 {
    (item >> 64) as u64
}

/// The items of a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct ItemSet {
    /// Ascending, so that what is sent does not depend on the order of the map.
    pub items: Vec<Item>,
    /// XOR of their checksums.
    pub fold: u64,
}

impl ItemSet {
    /// Gathers the items of a shard.
    pub fn of_shard(replica: &dyn Replica, shard: usize, filter: &Filter) -> ItemSet {
        let mut set = ItemSet::default();
        replica.visit_shard(shard, &mut |record| {
            if filter.admits(record) {
                set.items.push(filter.item(record));
            }
        });
        set.items.sort_unstable();
        set.fold = set.items.iter().fold(0, |fold, &item| fold ^ check_of(item, filter.seed));
        set
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }
}

/// Records of a shard in the order of their sources' hashes: all that take part, or (`wanted`,
/// ascending) those of the sources with these hashes.
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
