//! The hash function of maps whose keys are names.
//!
//! Names come from outside. If their hashes could be computed there, a client could choose names that all have
//! the same hash, and every lookup would compare all of them. So the hash has a seed, which the server draws at its
//! start and nobody else knows. It is the same for all maps of a process, so that a hash that is computed once serves
//! several of them. Without a server the seed is 0, so that a simulated run can be repeated exactly. The order in
//! which a map has its keys must never be seen from outside.
//!
//! Every piece is hashed by the one-shot XXH3 function, with the hash so far as its seed. Rejected: the streaming
//! `Xxh3`, whose state of half a kilobyte costs more to set up than a name costs to hash; and a seed for each map,
//! which many would have to be handed.

use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The seed of this process, from its first use on.
static SEED: OnceLock<u64> = OnceLock::new();

/// Sets the seed of this process. To be called before any name is hashed, because hashes with another seed find
/// nothing. Returns `false` if it is too late: then the seed stays as it is.
pub fn set_seed(seed: u64) -> bool {
    SEED.set(seed).is_ok()
}

#[inline]
fn seed() -> u64 {
    *SEED.get_or_init(|| 0)
}

/// Returns the hash of a name, the same for all maps of this process. It must not leave the process.
#[inline]
pub fn name_hash(name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), seed())
}

/// Makes a [`NameHasher`] for every key.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameState;

/// Hashes the bytes that it is given with XXH3.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameHasher(u64);

impl BuildHasher for NameState {
    type Hasher = NameHasher;

    fn build_hasher(&self) -> NameHasher {
        NameHasher(seed())
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
