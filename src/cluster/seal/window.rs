//! The window of one sender's life: which of its last messages have come.
//!
//! A message that was recorded and is sent again has a number that has come, or one that lies before the window.
//! Numbers are counted over all receivers of the sender, so the window is larger than what one network reorders
//! between two nodes: in a burst to many members, only every so-many-th number comes here.

/// Words of 64 numbers each.
const WINDOW_WORDS: u64 = 129;
/// Numbers below the greatest that can still be told apart. The word that the greatest number begins is not full.
pub(super) const WINDOW_NUMBERS: u64 = (WINDOW_WORDS - 1) * 64;
/// The contract asks for at least so many.
const _: () = assert!(WINDOW_NUMBERS >= 4_096);

/// The numbers of a life that have come. Numbers begin at 1.
#[derive(Debug)]
pub(super) struct ReplayWindow {
    /// The greatest number that has come.
    top: u64,
    /// A bit for each of the last numbers, by the number modulo the size.
    seen: Box<[u64; WINDOW_WORDS as usize]>,
}

impl Default for ReplayWindow {
    fn default() -> ReplayWindow {
        ReplayWindow { top: 0, seen: Box::new([0; WINDOW_WORDS as usize]) }
    }
}

impl ReplayWindow {
    fn place(number: u64) -> (usize, u64) {
        ((number / 64 % WINDOW_WORDS) as usize, 1 << (number % 64))
    }

    /// Returns whether the message of this number has not come, as far as the window tells.
    pub fn is_new(&self, number: u64) -> bool {
        if number > self.top {
            return true;
        }
        let (word, bit) = ReplayWindow::place(number);
        number > 0
            && self.top - number < WINDOW_NUMBERS
            && self.seen.get(word).is_some_and(|seen| seen & bit == 0)
    }

    /// Notes that the message of this number has come. It must be new, and its seal must have been verified.
    pub fn note(&mut self, number: u64) {
        debug_assert!(self.is_new(number), "{number} has come before");
        if number > self.top {
            let passed = (number / 64 - self.top / 64).min(WINDOW_WORDS);
            for word in self.top / 64 + 1..=self.top / 64 + passed {
                self.seen[(word % WINDOW_WORDS) as usize] = 0;
            }
            self.top = number;
        }
        let (word, bit) = ReplayWindow::place(number);
        self.seen[word] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tells_what_a_set_would(steps in proptest::collection::vec((0u64..40_000, 0u32..6), 1..400)) {
            let (mut window, mut seen, mut base) = (ReplayWindow::default(), BTreeSet::new(), 1);
            for (step, kind) in steps {
                // Mostly close together, at times far ahead.
                let number = match kind {
                    0 => base + step,
                    1 => base + step / 40,
                    _ => (base + step % 200).saturating_sub(100).max(1),
                };
                let top = seen.last().copied().unwrap_or(0);
                let is_new = number > top || (top - number < WINDOW_NUMBERS && !seen.contains(&number));
                prop_assert_eq!(window.is_new(number), is_new, "{} below {}", number, top);
                if is_new {
                    window.note(number);
                    seen.insert(number);
                }
                base = base.max(number);
            }
        }
    }

    #[test]
    fn every_number_is_taken_once_in_any_order_within_the_window() {
        let mut window = ReplayWindow::default();
        window.note(10_000);
        for number in (10_000 - WINDOW_NUMBERS + 1..10_000).rev() {
            assert!(window.is_new(number));
            window.note(number);
            assert!(!window.is_new(number));
        }
        assert!(!window.is_new(10_000 - WINDOW_NUMBERS) && !window.is_new(0));
        window.note(1 << 47);
        assert!(window.is_new((1 << 47) - 1) && !window.is_new(10_000));
    }
}
