//! Parts that were handed over to a peer and are not settled, by number.
//!
//! The numbers of a link are successive, and nearly always the oldest part is settled first. So the parts lie
//! in a ring at the place that their number gives, and none is ever searched for. A part that is tried again
//! for long would hold the places of all parts after it, which are settled sooner: once most places of the
//! ring are empty, its oldest part moves to a short sorted list. Rejected: a tree, whose leaf of a kilobyte is
//! allocated and freed for every single part; and a sorted queue alone, in which every step with a part is a
//! binary search.

use std::collections::VecDeque;

/// Fewest places of the ring at which its oldest part is moved to the list. There are at most four times as
/// many places as parts, and this many more.
const SPARSE_PLACES_MIN: usize = 64;

/// A part, or one fragment of it, that was handed over and is not settled. Times are in microseconds.
#[derive(Clone, Debug)]
pub(super) struct UnsettledPart {
    /// Number of the duty that the part belongs to.
    pub duty: usize,
    /// Time at which the data itself was last sent.
    pub copied_us: u64,
    /// Time at which the part was first sent, as data or as a question; 0: it was never sent.
    pub first_us: u64,
    /// Time at which the part was last sent, as data or as a question.
    pub last_us: u64,
    /// Time at which the part counts as not acknowledged, if no receipt comes; 0 while it waits to be sent.
    pub due_us: u64,
    /// Index of the fragment of the batch.
    pub fragment: u32,
    /// Number of times that the part was sent, questions included.
    pub tries: u32,
    /// Number of times that the data itself was sent.
    pub copies: u32,
    /// Bytes of the part that are in flight; 0 while it waits to be sent.
    pub flying: u32,
    /// Approximate size of the part in a packet, in bytes.
    pub bytes: u32,
    /// Whether the next try only asks whether the peer has the part.
    pub ask: bool,
    /// Whether the part was last sent in a datagram that is larger than every path carries.
    pub is_large: bool,
}

const _: () =
    assert!(size_of::<Option<UnsettledPart>>() <= 64, "a part takes one line of a processor's cache");

impl UnsettledPart {
    /// A fragment of about `bytes` bytes that waits to be sent for the first time.
    pub fn new(duty: usize, fragment: u32, bytes: usize, ask: bool) -> UnsettledPart {
        UnsettledPart {
            duty,
            copied_us: 0,
            first_us: 0,
            last_us: 0,
            due_us: 0,
            fragment,
            tries: 0,
            copies: 0,
            flying: 0,
            bytes: bytes as u32,
            ask,
            is_large: false,
        }
    }
}

/// All unsettled parts of one link.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// The parts with the least numbers, ascending: few, and each tried again for long.
    old: Vec<(u64, UnsettledPart)>,
    /// Number that belongs to the first place of `ring`.
    base: u64,
    /// Parts by number from `base` on. A place is empty if its part is settled. The first is never empty.
    ring: VecDeque<Option<UnsettledPart>>,
    /// Number of parts in `ring`.
    live: usize,
}

impl Unsettled {
    /// Returns whether everything is settled.
    pub fn is_empty(&self) -> bool {
        self.live == 0 && self.old.is_empty()
    }

    /// Number of parts.
    pub fn len(&self) -> usize {
        self.live + self.old.len()
    }

    /// The least number that is not settled.
    pub fn first(&self) -> Option<u64> {
        let oldest = self.old.first().map(|held| held.0);
        oldest.or_else(|| (self.live > 0).then_some(self.base))
    }

    /// Adds a part. Its number must be greater than any before.
    pub fn push(&mut self, number: u64, sent: UnsettledPart) {
        if self.live == 0 {
            self.base = number;
            if self.ring.capacity() == 0 {
                // Most links never have more than one.
                self.ring.reserve_exact(1);
            }
        }
        let next = self.base + self.ring.len() as u64;
        debug_assert!(next <= number && self.old.last().is_none_or(|last| last.0 < number), "{number}");
        (next..number).for_each(|_| self.ring.push_back(None));
        self.ring.push_back(Some(sent));
        self.live += 1;
    }

    /// The part of this number.
    pub fn get(&self, number: u64) -> Option<&UnsettledPart> {
        match number.checked_sub(self.base) {
            Some(place) => self.ring.get(place as usize)?.as_ref(),
            None => self.old.get(self.find_old(number).ok()?).map(|held| &held.1),
        }
    }

    /// The part of this number, to be changed.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut UnsettledPart> {
        match number.checked_sub(self.base) {
            Some(place) => self.ring.get_mut(place as usize)?.as_mut(),
            None => {
                let at = self.find_old(number).ok()?;
                self.old.get_mut(at).map(|held| &mut held.1)
            }
        }
    }

    /// Removes the part of this number, and returns it.
    pub fn remove(&mut self, number: u64) -> Option<UnsettledPart> {
        let Some(place) = number.checked_sub(self.base) else {
            let at = self.find_old(number).ok()?;
            return Some(self.old.remove(at).1);
        };
        let sent = self.ring.get_mut(place as usize)?.take()?;
        self.live -= 1;
        self.trim();
        while self.ring.len() > SPARSE_PLACES_MIN.max(4 * self.live)
            && let Some(Some(oldest)) = self.ring.pop_front()
        {
            self.old.push((self.base, oldest));
            self.base += 1;
            self.live -= 1;
            self.trim();
        }
        Some(sent)
    }

    /// The least number in `first..=last` of a part that was sent at least once.
    pub fn next_sent(&self, first: u64, last: u64) -> Option<u64> {
        let is_sent = |sent: &UnsettledPart| sent.tries > 0;
        if first < self.base && !self.old.is_empty() {
            let rest = self.old.get(self.find_old(first).unwrap_or_else(|at| at)..).unwrap_or_default();
            if let Some(found) = rest.iter().find(|held| is_sent(&held.1)) {
                return (found.0 <= last).then_some(found.0);
            }
        }
        let from = first.saturating_sub(self.base);
        let to = last.checked_sub(self.base)?.saturating_add(1).min(self.ring.len() as u64);
        if from >= to {
            return None;
        }
        let mut places = self.ring.range(from as usize..to as usize);
        places.position(|sent| sent.as_ref().is_some_and(is_sent)).map(|step| self.base + from + step as u64)
    }

    /// All parts, ascending by number.
    pub fn iter(&self) -> impl Iterator<Item = &UnsettledPart> {
        self.old.iter().map(|held| &held.1).chain(self.ring.iter().flatten())
    }

    /// Gives memory back, if everything is settled: a node of a large cluster has thousands of links, nearly
    /// all idle.
    pub fn tidy(&mut self) {
        if self.is_empty() {
            *self = Unsettled::default();
        }
    }

    /// Takes the empty places before the first part off the ring.
    fn trim(&mut self) {
        if self.live == 0 {
            return self.ring.clear();
        }
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.base += 1;
        }
    }

    /// Index in `old` of the part of this number, or where it would be.
    fn find_old(&self, number: u64) -> Result<usize, usize> {
        self.old.binary_search_by_key(&number, |held| held.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A part that was sent, or not, and belongs to the duty of this number.
    fn part(duty: u64, is_sent: bool) -> UnsettledPart {
        UnsettledPart { tries: u32::from(is_sent), ..UnsettledPart::new(duty as usize, 0, 1, false) }
    }

    proptest! {
        #[test]
        fn holds_what_a_map_would(steps in proptest::collection::vec((0u8..9, 0u64..400), 0..300)) {
            let (mut held, mut map, mut next) = (Unsettled::default(), BTreeMap::new(), 0);
            for (what, number) in steps {
                match what {
                    0 => prop_assert_eq!(held.remove(number).map(|sent| sent.duty), map.remove(&number)),
                    1 => {
                        // Nearly all that is old is settled.
                        let settled: Vec<u64> = map.range(..number).map(|it| *it.0).skip(1).collect();
                        for number in settled {
                            prop_assert_eq!(held.remove(number).map(|sent| sent.duty), map.remove(&number));
                        }
                    }
                    _ => {
                        // Some numbers are never used.
                        next += 1 + u64::from(what > 7);
                        held.push(next, part(next, next % 3 > 0));
                        map.insert(next, next as usize);
                    }
                }
                prop_assert_eq!((held.is_empty(), held.len()), (map.is_empty(), map.len()));
                prop_assert_eq!(held.first(), map.keys().next().copied());
                prop_assert_eq!(held.get(number).map(|sent| sent.duty), map.get(&number).copied());
                prop_assert_eq!(held.get_mut(number).map(|sent| sent.duty), map.get(&number).copied());
                let all: Vec<usize> = held.iter().map(|sent| sent.duty).collect();
                prop_assert_eq!(all, map.values().copied().collect::<Vec<_>>());
                let sent = map.range(number..=number + 9).map(|held| *held.0).find(|number| number % 3 > 0);
                prop_assert_eq!(held.next_sent(number, number + 9), sent);
                let places_max = SPARSE_PLACES_MIN + 4 * map.len();
                prop_assert!(held.ring.len() <= places_max, "{} places", held.ring.len());
                held.tidy();
            }
        }
    }

    /// A part that was tried again for a second held a place for each of the parts that were settled in that
    /// second.
    #[test]
    fn one_old_part_holds_no_places_of_settled_ones() {
        let mut held = Unsettled::default();
        for number in 1..=10_000 {
            held.push(number, part(number, true));
            if number > 1 {
                held.remove(number);
            }
            assert!(held.ring.len() <= SPARSE_PLACES_MIN + 1, "{} places", held.ring.len());
        }
        assert_eq!((held.first(), held.next_sent(0, u64::MAX), held.len()), (Some(1), Some(1), 1));
        assert!(held.remove(1).is_some() && held.is_empty());
        held.tidy();
        assert_eq!((held.ring.capacity(), held.old.capacity()), (0, 0));
    }
}
