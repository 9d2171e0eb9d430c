//! A table whose entries are found by key or by index.
//!
//! A node of a large cluster has thousands of links and of lines, and looks up a few for every datagram,
//! mostly ones that no processor cache holds any more: a search tree would cost a cache miss a level, this
//! table costs two. Entries are visited in the order of their indices (here called places), so that the
//! order does not depend on the hash function.

use std::net::{IpAddr, SocketAddr};

use hashbrown::HashTable;
use slab::Slab;

use super::random::mix;

/// A key by which entries are found.
pub(super) trait Key: Copy + Eq {
    /// Hash of the key: the same for equal keys, and hardly ever for others.
    fn hash(self) -> u64;
}

impl Key for u64 {
    fn hash(self) -> u64 {
        mix(self)
    }
}

impl Key for SocketAddr {
    fn hash(self) -> u64 {
        let port = u64::from(self.port());
        match self.ip() {
            IpAddr::V4(ip) => mix(u64::from(u32::from(ip)) << 16 | port),
            IpAddr::V6(ip) => {
                let bits = u128::from(ip);
                mix(bits as u64 ^ mix((bits >> 64) as u64 ^ port))
            }
        }
    }
}

/// The table. An entry keeps its place for as long as it is in the table.
#[derive(Debug)]
pub(super) struct ByKey<K, T> {
    /// Keys and entries by place.
    places: Slab<(K, T)>,
    /// Places by the hashes of their keys. Entries are never visited through it.
    by_hash: HashTable<u32>,
}

impl<K, T> Default for ByKey<K, T> {
    fn default() -> ByKey<K, T> {
        ByKey { places: Slab::new(), by_hash: HashTable::new() }
    }
}

impl<K: Key, T> ByKey<K, T> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Place of the entry with this key.
    pub fn place(&self, key: K) -> Option<usize> {
        let is_it = |place: &u32| self.places.get(*place as usize).is_some_and(|held| held.0 == key);
        self.by_hash.find(key.hash(), is_it).map(|place| *place as usize)
    }

    /// Place of the entry with this key, which is perhaps at `guess`.
    pub fn place_near(&self, guess: usize, key: K) -> Option<usize> {
        match self.places.get(guess) {
            Some(held) if held.0 == key => Some(guess),
            _ => self.place(key),
        }
    }

    /// The entry at this place.
    pub fn at(&self, place: usize) -> Option<&T> {
        self.places.get(place).map(|held| &held.1)
    }

    /// The entry at this place, to be changed.
    pub fn at_mut(&mut self, place: usize) -> Option<&mut T> {
        self.places.get_mut(place).map(|held| &mut held.1)
    }

    /// The entry with this key.
    pub fn get(&self, key: K) -> Option<&T> {
        self.place(key).and_then(|place| self.at(place))
    }

    /// The entry with this key, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        self.place(key).and_then(|place| self.at_mut(place))
    }

    /// The entry with this key, to be changed; it is made if there is none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> T) -> &mut T {
        let place = self.place(key).unwrap_or_else(|| self.insert(key, make()));
        &mut self.places[place].1
    }

    /// Adds an entry and returns its place. No other entry may have the same key.
    pub fn insert(&mut self, key: K, thing: T) -> usize {
        let place = self.places.insert((key, thing));
        let places = &self.places;
        let hash_at = |place: &u32| places.get(*place as usize).map_or(0, |held| held.0.hash());
        self.by_hash.insert_unique(key.hash(), place as u32, hash_at);
        debug_assert_eq!(self.by_hash.len(), self.places.len());
        place
    }

    /// Removes the entry at this place, and returns it.
    pub fn remove(&mut self, place: usize) -> Option<T> {
        let (key, thing) = self.places.try_remove(place)?;
        if let Ok(entry) = self.by_hash.find_entry(key.hash(), |other| *other as usize == place) {
            entry.remove();
        }
        debug_assert_eq!(self.by_hash.len(), self.places.len());
        Some(thing)
    }

    /// All entries with their places, in the order of the places.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.places.iter().map(|(place, held)| (place, &held.1))
    }

    /// All entries with their keys, to be changed, in the order of their places.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut T)> {
        self.places.iter_mut().map(|(_, held)| (held.0, &mut held.1))
    }

    /// Moves `turn` to the next place that has an entry; after the last comes the first. `false`: the table
    /// is empty.
    pub fn turn(&self, turn: &mut usize) -> bool {
        for _ in 0..=self.places.capacity() {
            *turn = if *turn + 1 < self.places.capacity() { *turn + 1 } else { 0 };
            if self.places.contains(*turn) {
                return true;
            }
        }
        false
    }

    /// Key of the entry at this place, and the entry, to be changed.
    pub fn entry_at(&mut self, place: usize) -> Option<(K, &mut T)> {
        self.places.get_mut(place).map(|held| (held.0, &mut held.1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_a_map_would(steps in proptest::collection::vec((any::<bool>(), 0u64..20), 1..200)) {
            let (mut held, mut map) = (ByKey::<u64, usize>::default(), BTreeMap::new());
            for (step, (is_put, hash)) in steps.into_iter().enumerate() {
                if is_put {
                    let there = *held.get_or_insert_with(hash, || step);
                    prop_assert_eq!(there, *map.entry(hash).or_insert(step));
                } else {
                    let taken = held.place(hash).and_then(|place| held.remove(place));
                    prop_assert_eq!(taken, map.remove(&hash));
                }
                prop_assert_eq!(held.len(), map.len());
                let all: BTreeMap<u64, usize> = held.iter_mut().map(|one| (one.0, *one.1)).collect();
                prop_assert_eq!(&all, &map);
                for hash in 0..20 {
                    prop_assert_eq!(held.get(hash), map.get(&hash));
                }
            }
            // Every entry has a turn before any has two.
            let mut at = 7;
            let mut turn = || held.turn(&mut at).then_some(at);
            let turns: Vec<usize> = (0..map.len()).filter_map(|_| turn()).collect();
            prop_assert_eq!(turns.iter().collect::<std::collections::BTreeSet<_>>().len(), map.len());
            prop_assert_eq!(turn(), turns.first().copied());
            let keys = turns.into_iter().filter_map(|place| held.entry_at(place).map(|held| held.0));
            prop_assert!(keys.collect::<std::collections::BTreeSet<_>>().iter().eq(map.keys()));
        }
    }
}
