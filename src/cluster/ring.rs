//! The ring: the live members in the order of a hash of their names.
//!
//! The place of a member is a hash of its name alone, so it outlives restarts and moves, and nodes
//! that see the same members see the same ring. Spreading cuts the ring into ranges of hashes; membership
//! owns the ring and changes it. Entries share the identities of members, so that a ring costs 24
//! bytes a member. The ring is passed around as `Arc<Ring>` and copied only while somebody holds an
//! older version.
//!
//! Two names with one hash (one pair in 2^64) are ordered by name.

use std::net::SocketAddr;
use std::sync::Arc;

use super::members::{Identity, State, grow_a_little};
use crate::record::NodeName;

/// One live member on the ring.
#[derive(Clone, Debug)]
pub struct RingEntry {
    /// Place of the member: [`Identity::ring_hash`].
    pub hash: u64,
    /// Identity of the member.
    pub identity: Arc<Identity>,
    /// State of the member: `Alive` or `Suspect`.
    pub state: State,
    /// The last digits of the ring's version at which the member came onto the ring.
    pub joined: u32,
}

impl RingEntry {
    /// Name of the member.
    pub fn name(&self) -> &NodeName {
        &self.identity.name
    }

    /// Boot number of the member.
    pub fn boot(&self) -> u64 {
        self.identity.boot
    }

    /// Boot number with which the member started, which its records have.
    pub fn start_boot(&self) -> u64 {
        self.identity.start_boot()
    }

    /// Address of the member for datagrams and streams.
    pub fn gossip(&self) -> SocketAddr {
        self.identity.gossip()
    }

    /// Zone of the member; empty if it named none.
    pub fn zone(&self) -> &str {
        self.identity.zone()
    }
}

/// All live members, this node included, in ascending order of hash and name.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    entries: Vec<RingEntry>,
    version: u64,
}

impl Ring {
    /// Builds a ring of these members, all alive. Of several members with one name the first counts.
    pub fn of(identities: impl IntoIterator<Item = Arc<Identity>>) -> Ring {
        let entry = |identity: Arc<Identity>| RingEntry {
            hash: identity.ring_hash(),
            identity,
            state: State::Alive,
            joined: 0,
        };
        let mut entries: Vec<RingEntry> = identities.into_iter().map(entry).collect();
        entries.sort_by(|a, b| a.hash.cmp(&b.hash).then_with(|| a.name().cmp(b.name())));
        entries.dedup_by(|a, b| a.name() == b.name());
        entries.shrink_to_fit();
        Ring { version: entries.len() as u64, entries }
    }

    /// The members in ascending order of hash and name.
    pub fn entries(&self) -> &[RingEntry] {
        &self.entries
    }

    /// Version of the ring: it grows with every change, also of a member's state.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Number of live members.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Number of members that memory is set aside for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// Returns the index of the first member at or after `hash`; `len()` if there is none.
    pub fn lower_bound(&self, hash: u64) -> usize {
        self.entries.partition_point(|entry| entry.hash < hash)
    }

    /// Returns the member of this name, whose hash is given.
    pub fn get(&self, hash: u64, name: &str) -> Option<&RingEntry> {
        self.position(hash, name).ok().and_then(|index| self.entries.get(index))
    }

    /// Adds a member, or replaces its identity and state.
    pub fn insert(&mut self, identity: Arc<Identity>, state: State) {
        let hash = identity.ring_hash();
        self.version += 1;
        let entry = RingEntry { hash, identity, state, joined: self.version as u32 };
        match self.position(hash, entry.name().as_str()) {
            Ok(index) => {
                let joined = self.entries[index].joined;
                self.entries[index] = RingEntry { joined, ..entry };
            }
            Err(index) => {
                grow_a_little(&mut self.entries);
                self.entries.insert(index, entry);
            }
        }
        debug_assert!(self.is_sorted_at(hash), "the ring is in ascending order of hash and name");
    }

    /// Returns whether the entries around the place of `hash` are in order.
    fn is_sorted_at(&self, hash: u64) -> bool {
        let at = self.lower_bound(hash);
        let around = self.entries.get(at.saturating_sub(1)..self.entries.len().min(at + 3));
        around.unwrap_or_default().is_sorted_by(|a, b| (a.hash, a.name()) < (b.hash, b.name()))
    }

    /// Removes a member. Returns `false` if it was not on the ring.
    pub fn remove(&mut self, hash: u64, name: &str) -> bool {
        let Ok(index) = self.position(hash, name) else { return false };
        self.version += 1;
        self.entries.remove(index);
        true
    }

    fn position(&self, hash: u64, name: &str) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|entry| entry.hash.cmp(&hash).then_with(|| entry.name().as_str().cmp(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str, boot: u64) -> Arc<Identity> {
        let name = NodeName::parse(name).expect("name");
        Arc::new(Identity::new(name, boot, SocketAddr::from(([10, 0, 0, 1], 7946)), "", "", ""))
    }

    #[test]
    fn stays_sorted_and_counts_changes() {
        let mut ring = Ring::default();
        for index in 0..100 {
            ring.insert(identity(&format!("n{index}"), 1), State::Alive);
        }
        assert!(ring.entries().windows(2).all(|pair| pair[0].hash < pair[1].hash));
        assert_eq!((ring.len(), ring.version()), (100, 100));

        let again = identity("n7", 2);
        ring.insert(again.clone(), State::Suspect);
        assert_eq!((ring.len(), ring.version()), (100, 101));
        let entry = ring.get(again.ring_hash(), "n7").expect("there");
        assert_eq!((entry.boot(), entry.state), (2, State::Suspect));

        assert!(ring.remove(again.ring_hash(), "n7"));
        assert!(!ring.remove(again.ring_hash(), "n7"));
        assert_eq!((ring.len(), ring.version()), (99, 102));
        assert!(ring.lower_bound(u64::MAX) <= 99);
    }

    #[test]
    fn built_at_once_is_built_one_by_one() {
        let identities: Vec<_> = (0..50).map(|index| identity(&format!("n{index}"), 1)).collect();
        let mut ring = Ring::default();
        identities.iter().for_each(|it| ring.insert(it.clone(), State::Alive));
        let twice = Ring::of(identities.iter().chain(&identities).cloned());
        assert_eq!(twice.version(), ring.version());
        let places = |ring: &Ring| ring.entries().iter().map(|it| it.name().clone()).collect::<Vec<_>>();
        assert_eq!(places(&twice), places(&ring));
    }
}
