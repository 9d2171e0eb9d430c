//! The hash functions of maps whose keys are names.
//!
//! Names come from outside. If their hashes could be computed there, a client could choose names that all have
//! the same hash, and every lookup would compare all of them. So the hashes depend on a seed, which the server draws
//! at its start and nobody else knows. It is the same for all maps of a process, so that a hash that is computed once
//! serves several of them. Without a server the seed is 0, so that a simulated run can be repeated exactly. The order
//! in which a map has its keys must never be seen from outside.
//!
//! Maps that are used for every record find their names by [`NameKey`], a hash with a proof instead of experience. It
//! has two steps, and each uses secret numbers of its own. First, the name is cut into pairs of words of eight bytes,
//! a secret number is added to each word, and the products of all pairs are summed in 128 bits (the hash NH of the
//! message authentication code UMAC), together with a multiple of the length. For any two names, whoever chose them,
//! at most one key in 2^64 makes the sums equal. Second, both halves of the sum are multiplied by secret numbers of
//! 128 bits and added, and the upper half of that is the hash (the multiply-shift scheme for vectors of
//! Dietzfelbinger). Of two different sums, at most two keys in 2^k make any k adjacent bits of the hashes equal. So no
//! choice of names makes a table slow for somebody who does not know the key. Other maps have keys of any type and
//! use [`NameState`], which hashes every piece by the one-shot XXH3 function, with the hash so far as its seed.
//!
//! Rejected: XXH3 with a seed for names, which costs a dozen instructions less for a name of 30 bytes, but promises
//! nothing to those who must expect chosen names; folded multiplication (foldhash, wyhash), which costs twenty less
//! and rests on experience alone, too; the second step for all words without the first, which costs half as much
//! again; hashing the hash again that names the shard, because two names with equal public hashes are easily made, and
//! no key tells them apart afterwards; the streaming `Xxh3`, whose state of half a kilobyte costs more to set up than
//! a name costs to hash; and a seed for each map, which many would have to be handed.

use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use super::words::short;
use crate::limits::SOURCE_BYTES_MAX;

/// Bytes of a pair of words.
const PAIR_BYTES: usize = 16;
/// Number of whole pairs in the longest name.
const PAIRS_MAX: usize = SOURCE_BYTES_MAX / PAIR_BYTES;

/// The secret numbers of a hash of names.
#[derive(Clone)]
pub struct NameKey {
    /// Factor of the length.
    len: u128,
    /// Added to the words of the last sixteen bytes, some of which may be part of the pair before.
    last: [u64; 2],
    /// Factors of the lower and the upper half of the sum.
    halves: [u128; 2],
    /// Added to the words of the whole pairs.
    pairs: [[u64; 2]; PAIRS_MAX],
}

impl NameKey {
    /// Makes the key that belongs to a seed.
    pub fn seeded(seed: u64) -> NameKey {
        let mut drawn = 0u64;
        let mut draw = || {
            drawn += 1;
            xxh3_128_with_seed(&drawn.to_le_bytes(), seed)
        };
        NameKey {
            len: draw(),
            last: halves_of(draw()),
            halves: std::array::from_fn(|_| draw()),
            pairs: std::array::from_fn(|_| halves_of(draw())),
        }
    }

    /// Returns the hash of a name. Text behind the length of the longest name counts only in part, because no map
    /// holds a longer name.
    #[inline]
    pub fn hash(&self, name: &str) -> u64 {
        let bytes = name.as_bytes();
        let (pairs, _) = bytes.as_chunks::<PAIR_BYTES>();
        let mut sum = self.len.wrapping_mul(bytes.len() as u128);
        let last = match (pairs, bytes.last_chunk::<PAIR_BYTES>()) {
            ([first, others @ ..], Some(last)) => {
                let [first_key, other_keys @ ..] = &self.pairs;
                sum = sum.wrapping_add(product(words(first), first_key));
                for (pair, key) in others.iter().zip(other_keys) {
                    sum = sum.wrapping_add(product(words(pair), key));
                }
                words(last)
            }
            _ => short_words(bytes),
        };
        let [low, high] = halves_of(sum.wrapping_add(product(last, &self.last)));
        let part = |number, factor: u128| factor.wrapping_mul(u128::from(number));
        halves_of(part(low, self.halves[0]).wrapping_add(part(high, self.halves[1])))[1]
    }
}

/// Returns the lower and the upper half.
#[inline]
fn halves_of(number: u128) -> [u64; 2] {
    [number as u64, (number >> u64::BITS) as u64]
}

#[inline]
fn words(pair: &[u8; PAIR_BYTES]) -> [u64; 2] {
    halves_of(u128::from_le_bytes(*pair))
}

/// Returns the two words of fewer than sixteen bytes. They overlap, or the second is 0.
#[inline]
fn short_words(bytes: &[u8]) -> [u64; 2] {
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => [u64::from_le_bytes(*first), u64::from_le_bytes(*last)],
        _ => [short(bytes), 0],
    }
}

#[inline]
fn product(words: [u64; 2], key: &[u64; 2]) -> u128 {
    u128::from(words[0].wrapping_add(key[0])) * u128::from(words[1].wrapping_add(key[1]))
}

/// The seed of this process, from its first use on, and the key that belongs to it.
static SEED: OnceLock<(u64, NameKey)> = OnceLock::new();

/// Sets the seed of this process. To be called before any name is hashed, because hashes with another seed find
/// nothing. Returns `false` if it is too late: then the seed stays as it is.
pub fn set_seed(seed: u64) -> bool {
    SEED.set((seed, NameKey::seeded(seed))).is_ok()
}

#[inline]
fn seed() -> &'static (u64, NameKey) {
    SEED.get_or_init(|| (0, NameKey::seeded(0)))
}

/// Returns the hash of a name, the same for all maps of this process. It must not leave the process.
#[inline]
pub fn name_hash(name: &str) -> u64 {
    seed().1.hash(name)
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
        NameHasher(seed().0)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Clients chose names whose unseeded hashes were equal, and every lookup compared all of them.
    #[test]
    fn names_that_collide_under_one_key_do_not_under_another() {
        let of = |key: &NameKey, number: u64| key.hash(&format!("s/{number:06}")) as u16;
        let (known, secret) = (NameKey::seeded(1), NameKey::seeded(2));
        let chosen: Vec<u64> = (0..500_000).filter(|number| of(&known, *number) == 7).collect();
        assert!(chosen.len() > 3, "{} names in one bucket of 65,536", chosen.len());
        let mut buckets: Vec<u16> = chosen.iter().map(|number| of(&secret, *number)).collect();
        buckets.sort_unstable();
        buckets.dedup();
        assert!(buckets.len() + 1 >= chosen.len(), "{} names in {} buckets", chosen.len(), buckets.len());
    }

    #[test]
    fn every_byte_and_the_length_of_a_name_count() {
        let key = NameKey::seeded(3);
        let mut seen = BTreeMap::new();
        for len in 1..=SOURCE_BYTES_MAX {
            let plain = "a".repeat(len);
            for at in 0..len {
                let mut name = plain.clone();
                name.replace_range(at..=at, "b");
                assert_eq!(seen.insert(key.hash(&name), name), None);
            }
            assert_eq!(seen.insert(key.hash(&plain), plain), None);
        }
        // A query may have any length, and then finds nothing.
        key.hash(&"a".repeat(10 * SOURCE_BYTES_MAX));
        assert_ne!(key.hash(""), key.hash("a"));
    }

    /// Tables take the lower bits of a hash for the place and the upper seven for a first comparison.
    #[test]
    fn similar_names_are_spread_evenly() {
        for seed in 0..20 {
            let key = NameKey::seeded(seed);
            let hashes = (0..16_384).map(|n| key.hash(&format!("sensors/site-{}/temperature-{n}", n % 100)));
            let (mut low, mut high) = ([0u32; 1024], [0u32; 128]);
            for hash in hashes {
                low[hash as usize % 1024] += 1;
                high[(hash >> 57) as usize] += 1;
            }
            // 16 and 128 are expected. Names that are as regular as these are not spread as if by chance: the hash
            // promises of any two names how seldom they meet, and of many no more than follows from that.
            assert!(low.iter().all(|count| *count <= 80), "seed {seed}: {:?}", low.iter().max());
            assert!(high.iter().all(|count| (25..=400).contains(count)), "seed {seed}: {high:?}");
        }
    }
}
