//! The hasher of maps keyed by names: fixed, so that a run can be repeated to the byte.
//!
//! One-shot XXH3 over each piece, chained by its seed. Rejected: the streaming `Xxh3`, whose state
//! of half a kilobyte costs more to set up than a name costs to hash; and hashers seeded at random.

use std::hash::{BuildHasher, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Builds [`NameHasher`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameState;

/// Hashes what it is given with XXH3.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameHasher(u64);

impl BuildHasher for NameState {
    type Hasher = NameHasher;

    fn build_hasher(&self) -> NameHasher {
        NameHasher(0)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// `str` ends its bytes with one of these; it adds nothing to a chained hash.
    fn write_u8(&mut self, byte: u8) {
        self.0 = self.0.rotate_left(5) ^ u64::from(byte);
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
