//! Sets of sequence numbers that have only a few holes.

/// Most ranges of a set beyond its head. This bounds the memory that one peer or one origin can take.
const ISLANDS_MAX: usize = 256;

/// A range of sequence numbers that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeqRange {
    /// The first number of the range.
    pub first: u64,
    /// The last number of the range.
    pub last: u64,
}

/// A set that has all numbers up to a head, and islands of further ones. It is used for the records that are
/// held of an origin, and for the parts taken from a peer: both arrive nearly in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeqSet {
    /// All numbers up to this one are in the set.
    head: u64,
    /// The islands, ascending, with a hole before each.
    islands: Vec<SeqRange>,
}

impl SeqSet {
    /// The greatest number up to which none is missing.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The islands, ascending.
    pub fn islands(&self) -> &[SeqRange] {
        &self.islands
    }

    /// Returns whether `seq` is in the set.
    pub fn contains(&self, seq: u64) -> bool {
        self.covers(seq, seq)
    }

    /// Returns whether all of `first..=last` are in the set.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        let first = first.max(self.head.saturating_add(1));
        first > last || self.islands.iter().any(|island| island.first <= first && last <= island.last)
    }

    /// Adds `first..=last`. Returns `false` if that would be one island too many; then nothing is added.
    pub fn insert(&mut self, first: u64, last: u64) -> bool {
        if first > last {
            return true;
        }
        if first <= self.head.saturating_add(1) {
            self.raise(last);
            return true;
        }
        let from = self.islands.partition_point(|island| island.last.saturating_add(1) < first);
        let to = self.islands.partition_point(|island| island.first <= last.saturating_add(1));
        if from == to && self.islands.len() >= ISLANDS_MAX {
            return false;
        }
        let mut merged = SeqRange { first, last };
        for island in self.islands.get(from..to).unwrap_or_default() {
            merged.first = merged.first.min(island.first);
            merged.last = merged.last.max(island.last);
        }
        self.islands.splice(from..to, [merged]);
        debug_assert!(self.is_sound(), "{self:?}");
        true
    }

    /// Adds all numbers up to `head`.
    pub fn raise(&mut self, head: u64) {
        self.head = self.head.max(head);
        if self.islands.is_empty() {
            return;
        }
        let swallowed = self.islands.partition_point(|island| island.first <= self.head.saturating_add(1));
        for island in self.islands.drain(..swallowed) {
            self.head = self.head.max(island.last);
        }
        debug_assert!(self.is_sound(), "{self:?}");
    }

    /// Returns whether the islands ascend with a hole before each, and are not too many.
    fn is_sound(&self) -> bool {
        let ends = [self.head].into_iter().chain(self.islands.iter().map(|island| island.last));
        let mut apart = self.islands.iter().zip(ends);
        self.islands.len() <= ISLANDS_MAX
            && apart.all(|(island, end)| end.saturating_add(1) < island.first && island.first <= island.last)
    }

    /// The first holes up to `last`, at most `count` of them.
    pub fn holes(&self, last: u64, count: usize) -> Vec<SeqRange> {
        let mut holes = Vec::new();
        let mut next = self.head.saturating_add(1);
        for island in &self.islands {
            if next > last || holes.len() >= count {
                break;
            }
            holes.push(SeqRange { first: next, last: (island.first - 1).min(last) });
            next = island.last.saturating_add(1);
        }
        if next <= last && holes.len() < count {
            holes.push(SeqRange { first: next, last });
        }
        holes
    }
}

/// Ascending ranges in the form that they have on the wire: how many numbers are skipped, how many are in the
/// range, and so on in turn, counted from `from`.
pub(super) fn to_runs(from: u64, ranges: &[SeqRange]) -> Vec<u64> {
    let mut runs = Vec::with_capacity(ranges.len() * 2);
    let mut next = from;
    for &SeqRange { first, last } in ranges {
        runs.push(first.saturating_sub(next));
        runs.push((last - first).saturating_add(1));
        next = last.saturating_add(1);
    }
    runs
}

/// The ranges that [`to_runs`] made these numbers of. `None`: no node would send them.
pub(super) fn from_runs(from: u64, runs: &[u64]) -> Option<Vec<SeqRange>> {
    let mut ranges = Vec::with_capacity((runs.len() / 2).min(ISLANDS_MAX));
    let mut next = from;
    for pair in runs.chunks(2).take(ISLANDS_MAX) {
        let &[skipped, meant] = pair else { return None };
        let first = next.checked_add(skipped)?;
        next = first.checked_add(meant)?;
        if meant == 0 {
            return None;
        }
        ranges.push(SeqRange { first, last: next - 1 });
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_set(ranges in proptest::collection::vec((1u64..300, 0u64..9), 0..60), last in 0u64..330) {
            let (mut set, mut model) = (SeqSet::default(), BTreeSet::new());
            for (first, more) in ranges {
                prop_assert!(set.insert(first, first + more));
                model.extend(first..=first + more);
            }
            for seq in 1..330 {
                prop_assert_eq!(set.contains(seq), model.contains(&seq), "{}", seq);
            }
            prop_assert!(!model.contains(&(set.head() + 1)));
            let max = set.islands().last().map_or(set.head(), |island| island.last);
            prop_assert_eq!(max, model.last().copied().unwrap_or(0));
            let holes: Vec<u64> = set.holes(last, 1000).iter().flat_map(|hole| hole.first..=hole.last).collect();
            let expected: Vec<u64> = (1..=last).filter(|seq| !model.contains(seq)).collect();
            prop_assert_eq!(holes, expected);
            let runs = to_runs(set.head() + 1, set.islands());
            prop_assert_eq!(from_runs(set.head() + 1, &runs).expect("runs"), set.islands().to_vec());
        }

        #[test]
        fn any_runs_are_read_without_panic(from: u64, runs in proptest::collection::vec(any::<u64>(), 0..40)) {
            if let Some(ranges) = from_runs(from, &runs) {
                let mut set = SeqSet::default();
                for SeqRange { first, last } in ranges {
                    set.insert(first, last);
                }
                set.holes(u64::MAX, 10);
            }
        }
    }

    #[test]
    fn islands_are_bounded() {
        let mut set = SeqSet::default();
        assert!((1..=ISLANDS_MAX as u64).all(|index| set.insert(index * 3, index * 3)));
        assert!(!set.insert(9_000, 9_000));
        assert!(set.insert(4, 4), "growing an island costs nothing");
        set.raise(u64::MAX);
        assert_eq!((set.head(), set.islands().len()), (u64::MAX, 0));
    }
}
