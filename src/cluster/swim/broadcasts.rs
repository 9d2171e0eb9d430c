//! The queue of news that still has to be told: members whose state changed, and how often each change was
//! told.
//!
//! An entry is a member, not a message: the news is the member's state at the moment of telling. So the queue
//! holds at most one entry for each member and never stale news, and news of a forgotten member is not told.
//! News told the fewest times comes first, and among equals the newest.

use std::collections::BTreeMap;

use super::slot::Slot;

/// The queue of members whose news has to be told.
#[derive(Debug, Default)]
pub(super) struct Broadcasts {
    /// Members by their place: the number of times told, then a number that is smaller for newer news.
    queue: BTreeMap<(u32, u64), Slot>,
    places: BTreeMap<Slot, (u32, u64)>,
    added: u64,
}

impl Broadcasts {
    /// Queues a member whose state changed, to be told from the beginning.
    pub fn push(&mut self, slot: Slot) {
        self.remove(slot);
        self.added += 1;
        let place = (0, u64::MAX - self.added);
        self.queue.insert(place, slot);
        self.places.insert(slot, place);
        debug_assert_eq!(self.queue.len(), self.places.len(), "every queued member has one place");
    }

    /// Removes a member whose news is not to be told any more.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(place) = self.places.remove(&slot) {
            self.queue.remove(&place);
        }
    }

    /// Returns whether there is no news to tell.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The queued members in the order in which they should be told.
    pub fn iter(&self) -> impl Iterator<Item = Slot> {
        self.queue.values().copied()
    }

    /// Notes that the news of a member was told once more. After `times_max` times it is removed.
    pub fn told(&mut self, slot: Slot, times_max: u32) {
        let Some((told, age)) = self.places.remove(&slot) else { return };
        self.queue.remove(&(told, age));
        if told + 1 < times_max {
            self.queue.insert((told + 1, age), slot);
            self.places.insert(slot, (told + 1, age));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_told_first_and_done_at_last() {
        let mut news = Broadcasts::default();
        news.push(1);
        news.push(2);
        assert_eq!(news.iter().collect::<Vec<_>>(), [2, 1]);
        news.told(2, 2);
        assert_eq!(news.iter().collect::<Vec<_>>(), [1, 2]);
        news.push(2);
        assert_eq!(news.iter().collect::<Vec<_>>(), [2, 1]);
        for _ in 0..2 {
            news.told(1, 2);
            news.told(2, 2);
        }
        assert!(news.is_empty());
    }
}
