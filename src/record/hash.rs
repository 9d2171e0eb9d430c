//! The hash function of maps whose keys are names. It has no random seed, so that a simulated run can be
//! repeated exactly.
//!
//! Every piece is hashed by the one-shot XXH3 function, with the hash so far as its seed. Rejected: the
//! streaming `Xxh3`, whose state of half a kilobyte costs more to set up than a name costs to hash; and hash
//! functions with random seeds.

use std::hash::{BuildHasher, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Makes a [`NameHasher`] for every key.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameState;

/// Hashes the bytes that it is given with XXH3.
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

    /// The `Hash` of `str` ends its bytes with one `0xff`. A rotation suffices for it, because the text
    /// before it is hashed well already.
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
