//! The lives of other nodes whose messages this node has opened: their keys, and which messages have come.
//!
//! Only a life of which a message was opened is kept, so nobody without a key of the cluster can fill the table.

use super::derived::AeadKey;
use super::header::{LifeName, short_name_hash};
use super::window::ReplayWindow;
use crate::cluster::by_key::ByKey;
use crate::config::cluster_key::KeyId;
use crate::record::NodeName;

/// Most lives that are kept: more than a cluster has members. One more takes the place of the one that was heard of
/// least lately, whose node is then told in every message that it is not known.
pub(super) const LIVES_MAX: usize = 16_384;

/// A life of which a message was opened.
#[derive(Debug)]
pub(super) struct KnownLife {
    pub name: LifeName,
    pub window: ReplayWindow,
    /// The life's key for each key of the cluster that it has used.
    keys: Vec<(KeyId, AeadKey)>,
    /// Number of the last message among all that were opened, of any life.
    heard: u64,
}

/// All lives that are kept.
#[derive(Debug, Default)]
pub(super) struct KnownLives {
    by_nonce: ByKey<u64, KnownLife>,
    /// Boot numbers of the members, by the hashes of their names. Lives with smaller ones are over.
    floors: ByKey<u64, Floor>,
    opened: u64,
}

/// The least boot number that a member of one name may have.
#[derive(Clone, Copy, Debug)]
struct Floor {
    boot: u64,
    /// Whether there was a member of the name when the members were told last.
    is_told: bool,
}

impl KnownLife {
    /// The life's key for the key of the cluster with this id, if it was used before.
    pub fn key(&self, id: KeyId) -> Option<&AeadKey> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }
}

impl KnownLives {
    /// Number of lives that are kept.
    pub fn len(&self) -> usize {
        self.by_nonce.len()
    }

    /// The life with this nonce.
    pub fn get(&self, nonce: u64) -> Option<&KnownLife> {
        self.by_nonce.get(nonce)
    }

    /// Returns whether a newer life of the same node is a member.
    pub fn is_over(&self, life: &LifeName) -> bool {
        self.floors.get(life.name).is_some_and(|floor| life.boot < floor.boot)
    }

    /// Notes that a message of a life was opened, with `key` if it was derived just now. Returns the nonce of the life
    /// that had to make room.
    pub fn note(&mut self, life: LifeName, number: u64, key: Option<(KeyId, AeadKey)>) -> Option<u64> {
        self.opened += 1;
        let make = || KnownLife { name: life, window: ReplayWindow::default(), keys: Vec::new(), heard: 0 };
        let known = self.by_nonce.get_or_insert_with(life.nonce, make);
        debug_assert_eq!(known.name, life, "two lives have the same nonce");
        known.heard = self.opened;
        known.window.note(number);
        known.keys.extend(key);
        if self.by_nonce.len() <= LIVES_MAX {
            return None;
        }
        let oldest = self.by_nonce.iter().min_by_key(|(_, life)| life.heard).map(|(place, _)| place)?;
        self.by_nonce.remove(oldest).map(|life| life.name.nonce)
    }

    /// Forgets the keys that were derived from keys which the node no longer has.
    pub fn keep_keys(&mut self, mut is_kept: impl FnMut(KeyId) -> bool) {
        self.by_nonce.iter_mut().for_each(|(_, life)| life.keys.retain(|(id, _)| is_kept(*id)));
    }

    /// Takes the members with their boot numbers, and whether each has answered at its own address, so that its boot
    /// number is believed.
    pub fn note_members(&mut self, members: &mut dyn Iterator<Item = (&NodeName, u64, bool)>) {
        for (name, boot, is_believed) in members {
            let floor = || Floor { boot: 0, is_told: true };
            let floor = self.floors.get_or_insert_with(short_name_hash(name), floor);
            floor.is_told = true;
            if is_believed {
                floor.boot = floor.boot.max(boot);
            }
        }
        let gone: Vec<usize> =
            self.floors.iter().filter(|(_, floor)| !floor.is_told).map(|(place, _)| place).collect();
        gone.into_iter().for_each(|place| {
            self.floors.remove(place);
        });
        self.floors.iter_mut().for_each(|(_, floor)| floor.is_told = false);
        let mut over = Vec::new();
        for (place, life) in self.by_nonce.iter() {
            if self.is_over(&life.name) {
                over.push(place);
            }
        }
        over.into_iter().for_each(|place| {
            self.by_nonce.remove(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NodeName {
        NodeName::parse(name).expect("a name")
    }

    fn life(nonce: u64, node: &str, boot: u64) -> LifeName {
        LifeName { nonce, name: short_name_hash(&name(node)), boot }
    }

    #[test]
    fn a_life_is_over_when_a_newer_one_is_a_member() {
        let mut lives = KnownLives::default();
        let (old, new, other) = (life(1, "a", 5), life(2, "a", 6), life(3, "b", 1));
        for life in [old, new, other] {
            assert_eq!(lives.note(life, 9, None), None);
        }
        let (a, b) = (name("a"), name("b"));
        // What only says that it is a newer life is not believed: a live member would be shut out.
        lives.note_members(&mut [(&a, 5, true), (&a, 6, false), (&b, 1, true)].into_iter());
        assert!(!lives.is_over(&old) && lives.len() == 3);
        lives.note_members(&mut [(&a, 6, true), (&b, 1, true)].into_iter());
        assert!(lives.is_over(&old) && !lives.is_over(&new) && !lives.is_over(&other));
        assert!(lives.get(1).is_none() && lives.len() == 2);
        // A member that is joining anew keeps its floor; one that is forgotten does not.
        lives.note_members(&mut [(&a, 7, false)].into_iter());
        assert!(lives.is_over(&old) && !lives.is_over(&new));
        lives.note_members(&mut [(&b, 1, true)].into_iter());
        assert!(!lives.is_over(&old));
    }

    #[test]
    fn the_life_that_was_heard_of_least_lately_makes_room() {
        let mut lives = KnownLives::default();
        for nonce in 0..LIVES_MAX as u64 {
            assert_eq!(lives.note(life(nonce, "a", 1), 1, None), None);
        }
        assert_eq!(lives.note(life(0, "a", 1), 2, None), None);
        assert_eq!(lives.note(life(u64::MAX, "a", 1), 1, None), Some(1));
        assert!(lives.get(0).is_some() && lives.get(1).is_none() && lives.len() == LIVES_MAX);
    }
}
