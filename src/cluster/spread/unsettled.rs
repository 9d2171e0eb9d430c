//! Parts that were handed over to a peer and are not settled, by number.
//!
//! Numbers only grow, and nearly always the oldest is settled first, so a sorted queue serves as the map.
//! Rejected: a tree, whose leaf of a kilobyte is allocated and freed for every single part; and a slot for
//! every number, since slots must be held for as long as one old part is tried again.

use std::collections::VecDeque;

/// A part, or one fragment of it, that was handed over and is not settled. Times are in microseconds.
#[derive(Clone, Debug)]
pub(super) struct UnsettledPart {
    /// Number of the duty that the part belongs to.
    pub duty: usize,
    /// Index of the fragment of the batch.
    pub fragment: u32,
    /// Number of times that the part was sent, questions included.
    pub tries: u32,
    /// Number of times that the data itself was sent.
    pub copies: u32,
    /// Time at which the data itself was last sent.
    pub copied_us: u64,
    /// Time at which the part was first sent, as data or as a question; 0: it was never sent.
    pub first_us: u64,
    /// Time at which the part was last sent, as data or as a question.
    pub last_us: u64,
    /// Bytes of the part that are in flight; 0 while it waits to be sent.
    pub flying: usize,
    /// Approximate size of the part in a packet, in bytes.
    pub bytes: usize,
    /// Whether the next try only asks whether the peer has the part.
    pub ask: bool,
    /// Time at which the part counts as not acknowledged, if no receipt comes; 0 while it waits to be sent.
    pub due_us: u64,
}

impl UnsettledPart {
    /// A fragment of about `bytes` bytes that waits to be sent for the first time.
    pub fn new(duty: usize, fragment: u32, bytes: usize, ask: bool) -> UnsettledPart {
        UnsettledPart {
            duty,
            fragment,
            tries: 0,
            copies: 0,
            copied_us: 0,
            first_us: 0,
            last_us: 0,
            flying: 0,
            bytes,
            ask,
            due_us: 0,
        }
    }
}

/// All unsettled parts of one link, ascending by number.
#[derive(Debug, Default)]
pub(super) struct Unsettled(VecDeque<(u64, UnsettledPart)>);

impl Unsettled {
    /// Returns whether everything is settled.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The least number that is not settled.
    pub fn first(&self) -> Option<u64> {
        self.0.front().map(|first| first.0)
    }

    /// Adds a part. Its number must be greater than any before.
    pub fn push(&mut self, number: u64, sent: UnsettledPart) {
        debug_assert!(self.0.back().is_none_or(|last| last.0 < number), "{number}");
        if self.0.capacity() == 0 {
            // Most links never have more than one.
            self.0.reserve_exact(1);
        }
        self.0.push_back((number, sent));
    }

    /// The part of this number.
    pub fn get(&self, number: u64) -> Option<&UnsettledPart> {
        self.find(number).ok().and_then(|at| self.0.get(at)).map(|held| &held.1)
    }

    /// The part of this number, to be changed.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut UnsettledPart> {
        self.find(number).ok().and_then(|at| self.0.get_mut(at)).map(|held| &mut held.1)
    }

    /// Removes the part of this number, and returns it.
    pub fn remove(&mut self, number: u64) -> Option<UnsettledPart> {
        let at = self.find(number).ok()?;
        let (_, sent) = self.0.remove(at)?;
        if self.0.is_empty() {
            // The memory is given back: a node of a large cluster has thousands of links, nearly all idle.
            self.0 = VecDeque::new();
        }
        Some(sent)
    }

    /// The parts with numbers in `first..=last`, ascending.
    pub fn range(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, &UnsettledPart)> {
        let from = self.find(first).unwrap_or_else(|at| at);
        let rest = self.0.range(from..).map(|(number, sent)| (*number, sent));
        rest.take_while(move |held| held.0 <= last)
    }

    /// All parts, ascending by number.
    pub fn iter(&self) -> impl Iterator<Item = &UnsettledPart> {
        self.0.iter().map(|held| &held.1)
    }

    /// Index of the part of this number, or where it would be.
    fn find(&self, number: u64) -> Result<usize, usize> {
        // The part that is settled is mostly the oldest.
        if self.first().is_none_or(|first| number <= first) {
            return if self.first() == Some(number) { Ok(0) } else { Err(0) };
        }
        self.0.binary_search_by_key(&number, |held| held.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_a_map_would(steps in proptest::collection::vec((0u8..4, 0u64..40), 0..120)) {
            let (mut held, mut map, mut next) = (Unsettled::default(), BTreeMap::new(), 0);
            for (what, number) in steps {
                if what == 0 {
                    prop_assert_eq!(held.remove(number).map(|sent| sent.duty), map.remove(&number));
                } else {
                    // Some numbers are never used.
                    next += u64::from(what);
                    held.push(next, UnsettledPart::new(next as usize, 0, 1, false));
                    map.insert(next, next as usize);
                }
                prop_assert_eq!(held.is_empty(), map.is_empty());
                prop_assert_eq!(held.first(), map.keys().next().copied());
                prop_assert_eq!(held.get(number).map(|sent| sent.duty), map.get(&number).copied());
                prop_assert_eq!(held.get_mut(number).map(|sent| sent.duty), map.get(&number).copied());
                let all: Vec<usize> = held.iter().map(|sent| sent.duty).collect();
                prop_assert_eq!(all, map.values().copied().collect::<Vec<_>>());
                let some: Vec<u64> = held.range(number, number + 9).map(|held| held.0).collect();
                prop_assert_eq!(some, map.range(number..=number + 9).map(|held| *held.0).collect::<Vec<_>>());
            }
        }
    }
}
