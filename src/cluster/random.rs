//! The only source of randomness in the cluster core: SplitMix64, seeded from outside.
//!
//! A machine's choices (which member to probe, when to try again) must differ between nodes and be the same
//! for the same seed. None of them is secret, so eight bytes of state are enough, and a simulated
//! world of ten thousand machines pays eight bytes for each part of a machine that makes choices.

/// A seeded sequence of random numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

/// Spreads every bit of a number over all bits of the result: the finalizer of SplitMix64 (variant 13 of
/// Stafford's). Equal numbers give equal results, so it also derives one number from another.
pub fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next 64 random bits. Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A random number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is uniform but for a bias of bound / 2^64.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A random index into a list of this length; 0 if the list is empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A random duration from `us` less `by_us` to `us` plus `by_us`, in microseconds.
    pub fn around_us(&mut self, us: u64, by_us: u64) -> u64 {
        us.saturating_sub(by_us) + self.below(2 * by_us + 1)
    }

    /// A random duration around `us`, up to a quarter shorter or longer, in microseconds.
    pub fn jitter_us(&mut self, us: u64) -> u64 {
        us - us / 4 + self.below(us / 2 + 1)
    }

    /// Draws whether an event of this probability, in parts of a million, happens.
    pub fn happens(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    /// Puts a slice into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_stream() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
    }

    #[test]
    fn stays_in_bounds() {
        let mut random = Random::new(1);
        for bound in [1, 2, 3, 1000] {
            assert!((0..1000).all(|_| random.below(bound) < bound));
        }
        assert_eq!(random.below(0), 0);
        assert!((0..1000).all(|_| (75..=125).contains(&random.jitter_us(100))));
        assert!((0..1000).all(|_| (90..=110).contains(&random.around_us(100, 10))));
        assert_eq!(random.around_us(100, 0), 100);
    }

    #[test]
    fn shuffling_keeps_everything() {
        let mut items: Vec<u32> = (0..50).collect();
        Random::new(3).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
