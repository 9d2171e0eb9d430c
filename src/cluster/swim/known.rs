//! Members known from before, with which many nodes begin as one cluster without a storm of joins.
//!
//! What is the same for all of these nodes is made once and shared: the identities of the members, their ring
//! and the hash of the view. Each node's own table is filled from it in one go, in O(N).

use std::sync::Arc;

use hashbrown::HashTable;

use super::Swim;
use super::message::life_key;
use super::slot::Slot;
use crate::cluster::members::{Identity, address_hash};
use crate::cluster::ring::Ring;
use crate::record::Now;

/// Members that are known from before, all alive.
#[derive(Clone, Debug)]
pub struct Known {
    /// The members on a ring.
    pub(super) ring: Arc<Ring>,
    /// [`life_key`] of every entry of the ring, in the ring's order.
    pub(super) keys: Arc<[u64]>,
    /// XOR of all keys.
    pub(super) view: u64,
    /// Index by ring hash. The value is one more than the member's index on the ring.
    pub(super) index: HashTable<Slot>,
    /// Index by [`address_hash`], with the same values.
    pub(super) by_address: HashTable<Slot>,
}

impl Known {
    /// Makes the list of these members. Of several members with one name the first counts.
    pub fn new(identities: impl IntoIterator<Item = Arc<Identity>>) -> Known {
        let ring = Ring::of(identities);
        let keys = ring.entries().iter().map(|entry| life_key(entry.name(), entry.boot())).collect();
        Known::with(ring, keys)
    }

    /// Returns only the members for which `is_known` returns true, for nodes whose views differ.
    pub fn only(&self, mut is_known: impl FnMut(&Identity) -> bool) -> Known {
        let all = self.ring.entries().iter().zip(self.keys.iter());
        let kept = all.filter(|(entry, _)| is_known(&entry.identity));
        let (identities, keys): (Vec<_>, Vec<_>) = kept.map(|it| (it.0.identity.clone(), *it.1)).unzip();
        Known::with(Ring::of(identities), keys)
    }

    fn with(ring: Ring, keys: Vec<u64>) -> Known {
        let view = keys.iter().fold(0, |view, key| view ^ key);
        let mut index = HashTable::with_capacity(ring.len());
        let mut by_address = HashTable::with_capacity(ring.len());
        for (slot, entry) in (1..=Slot::MAX).zip(ring.entries()) {
            // There is room for all entries, so no entry is hashed again.
            index.insert_unique(entry.hash, slot, |_| 0);
            by_address.insert_unique(address_hash(entry.gossip()), slot, |_| 0);
        }
        Known { ring: Arc::new(ring), keys: keys.into(), view, index, by_address }
    }

    /// Number of members.
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }
}

impl Swim {
    /// Takes in members that are known from before. On a node that knows nobody this is fast; on any other
    /// the members are taken in one by one.
    pub fn handle_known(&mut self, now: Now, known: &Known) {
        self.clocks.set_now(now);
        self.table.fill(known, now.mono_us, &mut self.random);
        if known.len() > 1 {
            self.lists.joined();
            self.newcomers.joined();
        }
        self.is_changed = true;
    }
}
