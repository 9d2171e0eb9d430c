//! Things found by a 64-bit hash of theirs.
//!
//! A node of a large cluster has thousands, and looks one up several times a datagram, mostly one that
//! no cache holds any more: a tree of them costs a miss a level, this costs two. They are gone
//! through in the order of their places, so that the order does not depend on the hash table.

use hashbrown::HashTable;
use slab::Slab;

use super::tree::mix;

/// The things. Each stands where it was put; the table of hashes is only looked into, never gone
/// through.
#[derive(Debug)]
pub(super) struct ByHash<T> {
    places: Slab<(u64, T)>,
    by_hash: HashTable<u32>,
}

impl<T> Default for ByHash<T> {
    fn default() -> ByHash<T> {
        ByHash { places: Slab::new(), by_hash: HashTable::new() }
    }
}

impl<T> ByHash<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The one with this hash.
    pub fn get(&self, hash: u64) -> Option<&T> {
        self.place(hash).and_then(|place| self.places.get(place)).map(|held| &held.1)
    }

    /// The one with this hash, to be changed.
    pub fn get_mut(&mut self, hash: u64) -> Option<&mut T> {
        let place = self.place(hash)?;
        self.places.get_mut(place).map(|held| &mut held.1)
    }

    /// Whether there is one with this hash.
    pub fn contains(&self, hash: u64) -> bool {
        self.place(hash).is_some()
    }

    /// The one with this hash, made if there is none.
    pub fn get_or_insert_with(&mut self, hash: u64, make: impl FnOnce() -> T) -> &mut T {
        let place = self.place(hash).unwrap_or_else(|| self.insert(hash, make()));
        &mut self.places[place].1
    }

    fn insert(&mut self, hash: u64, thing: T) -> usize {
        let place = self.places.insert((hash, thing));
        let places = &self.places;
        let hash_at = |place: &u32| places.get(*place as usize).map_or(0, |held| mix(held.0));
        self.by_hash.insert_unique(mix(hash), place as u32, hash_at);
        place
    }

    /// Takes the one with this hash out.
    pub fn remove(&mut self, hash: u64) -> Option<T> {
        let place = self.place(hash)?;
        if let Ok(entry) = self.by_hash.find_entry(mix(hash), |other| *other as usize == place) {
            entry.remove();
        }
        self.places.try_remove(place).map(|held| held.1)
    }

    /// All, each with its hash.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.places.iter().map(|(_, held)| (held.0, &held.1))
    }

    /// All, each with its hash, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.places.iter_mut().map(|(_, held)| (held.0, &mut held.1))
    }

    /// The next one in turn after the place `turn`, which is moved there: its hash. After the last
    /// comes the first.
    pub fn next_in_turn(&self, turn: &mut usize) -> Option<u64> {
        for _ in 0..=self.places.capacity() {
            *turn = if *turn + 1 < self.places.capacity() { *turn + 1 } else { 0 };
            if let Some(held) = self.places.get(*turn) {
                return Some(held.0);
            }
        }
        None
    }

    fn place(&self, hash: u64) -> Option<usize> {
        let is_it = |place: &u32| self.places.get(*place as usize).is_some_and(|held| held.0 == hash);
        self.by_hash.find(mix(hash), is_it).map(|place| *place as usize)
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
            let (mut held, mut map) = (ByHash::default(), BTreeMap::new());
            for (step, (is_put, hash)) in steps.into_iter().enumerate() {
                if is_put {
                    let there = *held.get_or_insert_with(hash, || step);
                    prop_assert_eq!(there, *map.entry(hash).or_insert(step));
                } else {
                    prop_assert_eq!(held.remove(hash), map.remove(&hash));
                }
                prop_assert_eq!(held.len(), map.len());
                prop_assert_eq!(held.iter().map(|one| (one.0, *one.1)).collect::<BTreeMap<_, _>>(), map.clone());
                for hash in 0..20 {
                    prop_assert_eq!(held.get(hash), map.get(&hash));
                }
            }
            // Everybody has a turn before anybody has two.
            let mut turn = 7;
            let turns: Vec<u64> = (0..map.len()).filter_map(|_| held.next_in_turn(&mut turn)).collect();
            prop_assert_eq!(turns.iter().collect::<std::collections::BTreeSet<_>>().len(), map.len());
            prop_assert_eq!(held.next_in_turn(&mut turn), turns.first().copied());
        }
    }
}
