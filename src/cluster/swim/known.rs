//! Members known from before: many nodes that begin as one cluster, without a storm of joins.
//!
//! What all of them know alike is made once and shared: what members say of themselves, their ring
//! and the hash of the view. A node's own part is filled in one go, in O(N).

use std::sync::Arc;

use hashbrown::HashTable;

use super::Swim;
use super::message::life_key;
use super::slot::Slot;
use crate::cluster::members::Identity;
use crate::cluster::ring::Ring;
use crate::record::Now;

/// Members that are known from before, all alive.
#[derive(Clone, Debug)]
pub struct Known {
    pub(super) ring: Arc<Ring>,
    /// [`life_key`] of every entry of the ring.
    pub(super) keys: Arc<[u64]>,
    /// XOR of them all.
    pub(super) view: u64,
    /// By hash: one more than the place on the ring.
    pub(super) index: HashTable<Slot>,
}

impl Known {
    /// These members; of several with one name the first counts.
    pub fn new(identities: impl IntoIterator<Item = Arc<Identity>>) -> Known {
        let ring = Ring::of(identities);
        let keys = ring.entries().iter().map(|entry| life_key(entry.name(), entry.boot())).collect();
        Known::with(ring, keys)
    }

    /// Those of the members that `is_known` says yes to: for views that differ.
    pub fn only(&self, mut is_known: impl FnMut(&Identity) -> bool) -> Known {
        let all = self.ring.entries().iter().zip(self.keys.iter());
        let kept = all.filter(|(entry, _)| is_known(&entry.identity));
        let (identities, keys): (Vec<_>, Vec<_>) = kept.map(|it| (it.0.identity.clone(), *it.1)).unzip();
        Known::with(Ring::of(identities), keys)
    }

    fn with(ring: Ring, keys: Vec<u64>) -> Known {
        let view = keys.iter().fold(0, |view, key| view ^ key);
        let mut index = HashTable::with_capacity(ring.len());
        for (slot, entry) in (1..).zip(ring.entries()) {
            // There is room for all: nothing is hashed anew.
            index.insert_unique(entry.hash, slot, |_| 0);
        }
        Known { ring: Arc::new(ring), keys: keys.into(), view, index }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ring.len()
    }
}

impl Swim {
    /// Takes in members that are known from before. To be called before anything else, on a node that
    /// knows nobody; else they are taken in one by one.
    pub fn handle_known(&mut self, now: Now, known: &Known) {
        self.clocks.set_now(now);
        self.table.fill(known, now.mono_us, &mut self.random);
        if known.len() > 1 {
            self.lists.joined();
        }
        self.is_changed = true;
    }
}
