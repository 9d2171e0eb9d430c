//! The maps that are compared. Each does what aNode's does at a merge: judge the record against the one
//! that is held, replace that one if it loses, number the change, and keep the shard's fingerprint and the
//! bytes held.
//!
//! The others have it easier in one point: their fingerprints are updated beside the merge, so a reader may
//! see one without the other. In aNode's map both are one step.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use anode::latest::{Change, Latest, shard_of};
use anode::limits::SHARDS;
use anode::record::hash::NameState;
use anode::record::merge::{Verdict, judge};
use anode::record::{SharedRecord, Source};

/// A map of the newest record of every source.
pub trait Map: Sync {
    /// Merges a record. Returns the change to be told, if the record won.
    fn merge(&self, record: &SharedRecord) -> Option<Change>;
    /// Returns the XOR of the checksums of all records.
    fn fingerprint(&self) -> u64;
}

/// Name of a map, and a function that makes an empty one.
pub type Contender = (&'static str, fn() -> Box<dyn Map>);

/// All maps, aNode's first.
pub const CONTENDERS: [Contender; 4] = [
    ("aNode", || Box::new(Latest::default())),
    ("dashmap", || Box::new(Dash::default())),
    ("papaya", || Box::new(Papaya::default())),
    ("scc", || Box::new(Scc::default())),
];

/// Wall clock at which all merges happen, in microseconds. No record of the load expires.
const WALL_US: u64 = 1;

impl Map for Latest {
    fn merge(&self, record: &SharedRecord) -> Option<Change> {
        self.update(record.source.as_str(), |slot| match judge(slot.current(), record) {
            Verdict::Newer => Some(slot.replace(record.clone(), WALL_US, 0)),
            Verdict::SameOfGreaterBirth | Verdict::Same | Verdict::Older => None,
        })
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprints().into_iter().fold(0, |all, shard| all ^ shard)
    }
}

/// The name of a source, looked up by its text and hashed as aNode hashes it.
#[derive(Clone, PartialEq, Eq)]
struct Name(Source);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

/// The entry of a source in dashmap, papaya and scc.
#[derive(Clone)]
struct Held {
    record: SharedRecord,
    version: u64,
    /// Shard of the source, kept so that it need not be computed at every merge.
    shard: u16,
}

impl Held {
    fn change(&self) -> Change {
        let (record, is_expiry) = (self.record.clone(), !self.record.is_visible(WALL_US));
        Change { record, is_expiry, shard: self.shard, version: self.version }
    }
}

/// Versions and fingerprints of the shards, and the bytes of all records, for dashmap, papaya and scc;
/// aNode's map keeps them itself.
struct Sums {
    shards: Box<[Sum]>,
    bytes: AtomicUsize,
}

/// The sums of a shard, on cache lines of their own, as aNode's shards are.
#[repr(align(128))]
#[derive(Default)]
struct Sum {
    fingerprint: AtomicU64,
    version: AtomicU64,
}

impl Default for Sums {
    fn default() -> Sums {
        Sums { shards: (0..SHARDS).map(|_| Sum::default()).collect(), bytes: AtomicUsize::new(0) }
    }
}

impl Sums {
    /// Returns the version of the next change of a shard.
    fn next_version(&self, shard: u16) -> u64 {
        self.shards[usize::from(shard)].version.fetch_add(1, Relaxed) + 1
    }

    fn note(&self, shard: u16, old: Option<&SharedRecord>, new: &SharedRecord) {
        let checksum = new.checksum ^ old.map_or(0, |old| old.checksum);
        self.shards[usize::from(shard)].fingerprint.fetch_xor(checksum, Relaxed);
        let (before, after) = (old.map_or(0, |old| old.cost_bytes()), new.cost_bytes());
        if before != after {
            self.bytes.fetch_add(after.wrapping_sub(before), Relaxed);
        }
    }

    /// Replaces the held record if the new one wins. Returns the change then.
    fn put(&self, held: &mut Held, record: &SharedRecord) -> Option<Change> {
        if judge(Some(&held.record), record) != Verdict::Newer {
            return None;
        }
        held.version = self.next_version(held.shard);
        self.note(held.shard, Some(&held.record), record);
        held.record = record.clone();
        Some(held.change())
    }

    fn first(&self, record: &SharedRecord) -> Held {
        let shard = shard_of(record.source.as_str()) as u16;
        Held { record: record.clone(), version: self.next_version(shard), shard }
    }

    fn fingerprint(&self) -> u64 {
        self.shards.iter().fold(0, |all, shard| all ^ shard.fingerprint.load(Relaxed))
    }
}

/// The map of the crate dashmap: sharded tables behind reader-writer locks.
#[derive(Default)]
struct Dash {
    table: dashmap::DashMap<Name, Held, NameState>,
    sums: Sums,
}

impl Map for Dash {
    fn merge(&self, record: &SharedRecord) -> Option<Change> {
        if let Some(mut held) = self.table.get_mut(record.source.as_str()) {
            return self.sums.put(&mut held, record);
        }
        match self.table.entry(Name(record.source.clone())) {
            dashmap::Entry::Occupied(mut held) => self.sums.put(held.get_mut(), record),
            dashmap::Entry::Vacant(place) => {
                let held = self.sums.first(record);
                self.sums.note(held.shard, None, record);
                let change = held.change();
                place.insert(held);
                Some(change)
            }
        }
    }

    fn fingerprint(&self) -> u64 {
        self.sums.fingerprint()
    }
}

/// The map of the crate papaya: lock-free; a value is never changed, but replaced by another one.
#[derive(Default)]
struct Papaya {
    table: papaya::HashMap<Name, Held, NameState>,
    sums: Sums,
}

impl Map for Papaya {
    fn merge(&self, record: &SharedRecord) -> Option<Change> {
        use papaya::{Compute, Operation};
        let table = self.table.pin();
        let decide = |held: Option<(&Name, &Held)>| match held {
            None => Operation::Insert(self.sums.first(record)),
            Some((_, held)) => match judge(Some(&held.record), record) {
                Verdict::Newer => {
                    let version = self.sums.next_version(held.shard);
                    Operation::Insert(Held { record: record.clone(), version, shard: held.shard })
                }
                Verdict::SameOfGreaterBirth | Verdict::Same | Verdict::Older => Operation::Abort(()),
            },
        };
        match table.compute(Name(record.source.clone()), decide) {
            Compute::Inserted(_, held) => {
                self.sums.note(held.shard, None, &held.record);
                Some(held.change())
            }
            Compute::Updated { old: (_, old), new: (_, new) } => {
                self.sums.note(new.shard, Some(&old.record), &new.record);
                Some(new.change())
            }
            Compute::Removed(..) | Compute::Aborted(()) => None,
        }
    }

    fn fingerprint(&self) -> u64 {
        self.sums.fingerprint()
    }
}

/// The map of the crate scc: a lock for every bucket of a few entries.
#[derive(Default)]
struct Scc {
    table: scc::HashMap<Name, Held, NameState>,
    sums: Sums,
}

/// A text by which a [`Name`] is looked up.
#[derive(Hash)]
struct Text<'a>(&'a str);

impl scc::Equivalent<Name> for Text<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        self.0 == name.0.as_str()
    }
}

impl Map for Scc {
    fn merge(&self, record: &SharedRecord) -> Option<Change> {
        let text = Text(record.source.as_str());
        if let Some(wins) = self.table.update_sync(&text, |_, held| self.sums.put(held, record)) {
            return wins;
        }
        match self.table.entry_sync(Name(record.source.clone())) {
            scc::hash_map::Entry::Occupied(mut held) => self.sums.put(held.get_mut(), record),
            scc::hash_map::Entry::Vacant(place) => {
                let held = self.sums.first(record);
                self.sums.note(held.shard, None, record);
                let change = held.change();
                place.insert_entry(held);
                Some(change)
            }
        }
    }

    fn fingerprint(&self) -> u64 {
        self.sums.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::load::{Keys, Load};

    #[test]
    fn all_maps_end_with_the_same_records() {
        for keys in [Keys::Uniform, Keys::Zipf] {
            let load = Load::new(keys, 300, 5_000, 1).expect("a load");
            let mut seen = Vec::new();
            for (name, make) in CONTENDERS {
                let map = make();
                let won =
                    load.first().iter().chain(load.merges()).filter(|it| map.merge(it).is_some()).count();
                let backwards = make();
                load.merges().iter().rev().chain(load.first()).for_each(|it| {
                    backwards.merge(it);
                });
                assert_eq!(map.fingerprint(), backwards.fingerprint(), "{name}: the order does not matter");
                seen.push((won, map.fingerprint()));
            }
            assert!(seen.iter().all(|it| *it == seen[0]), "{keys:?}: {seen:?}");
        }
    }
}
