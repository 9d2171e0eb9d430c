//! The messages of one source that one subscriber has received, in 16 bytes.

/// The newest sequence number that was received, and which of the 64 before it were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// One more than the newest sequence number; 0: nothing was received.
    next: u32,
    /// Number of different messages that were received.
    distinct: u32,
    /// Bit n tells whether the message `next - 1 - n` was received.
    recent: u64,
}

/// The relation of an arriving message to those that arrived before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The message is newer than all that arrived before.
    New,
    /// The message is new, but a newer one arrived before it.
    Late,
    /// The message had arrived already.
    Duplicate,
}

impl Seen {
    /// Notes an arrival. A message that is more than 64 behind the newest is taken to be late, though it may
    /// be a duplicate.
    #[inline]
    pub fn note(&mut self, seq: u32) -> Arrival {
        if seq >= self.next {
            let ahead = seq - self.next + 1;
            self.recent = self.recent.checked_shl(ahead).unwrap_or_default() | 1;
            self.next = seq.saturating_add(1);
            self.distinct += 1;
            return Arrival::New;
        }
        let bit = 1u64.checked_shl(self.next - 1 - seq).unwrap_or_default();
        if self.recent & bit != 0 {
            return Arrival::Duplicate;
        }
        self.recent |= bit;
        self.distinct += 1;
        Arrival::Late
    }

    /// Returns one more than the newest sequence number; 0: nothing was received.
    pub fn next(self) -> u32 {
        self.next
    }

    /// Returns how many different messages were received.
    pub fn distinct(self) -> u32 {
        self.distinct
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Within its window of 64 messages it agrees with a set of all that arrived.
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec(0u32..60, 0..300)) {
            let mut seen = Seen::default();
            let mut all = BTreeSet::new();
            for (at, back) in steps.into_iter().enumerate() {
                let seq = (at as u32 + 10).saturating_sub(back);
                let newest = all.last().copied();
                let wanted = if all.contains(&seq) {
                    Arrival::Duplicate
                } else if newest.is_some_and(|newest| newest > seq) {
                    Arrival::Late
                } else {
                    Arrival::New
                };
                prop_assert_eq!(seen.note(seq), wanted);
                all.insert(seq);
                prop_assert_eq!(seen.distinct() as usize, all.len());
                prop_assert_eq!(Some(seen.next() - 1), all.last().copied());
            }
        }
    }

    #[test]
    fn a_great_leap_forgets_what_was_before() {
        let mut seen = Seen::default();
        assert_eq!(seen.note(0), Arrival::New);
        assert_eq!(seen.note(1_000), Arrival::New);
        assert_eq!(seen.note(999), Arrival::Late);
        assert_eq!(seen.note(999), Arrival::Duplicate);
        assert_eq!(seen.next(), 1_001);
    }
}
