//! The buckets of histories that a session has listed already.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::rows::BUCKET_US;

/// Largest number of buckets that are remembered, at 16 bytes each. When there are more, all are forgotten,
/// and each is listed once more.
const LISTED_MAX: usize = 1_000_000;

/// Hash of a source and a bucket, by which the bucket is remembered.
pub(super) fn bucket_hash(source: &str, bucket: i64) -> u64 {
    xxh3_64_with_seed(source.as_bytes(), bucket as u64)
}

#[derive(Default)]
struct Remembered {
    hashes: HashSet<u64, BuildHasherDefault<HashAsIs>>,
    /// Day since the Unix epoch on which the hashes were gathered.
    day: u64,
}

/// Remembers which buckets were listed, so that each is listed once a day by every session.
#[derive(Default)]
pub(super) struct ListedBuckets(Mutex<Remembered>);

impl ListedBuckets {
    /// Forgets everything if a new day has begun. A list lives two days longer than what it lists, so
    /// within one day everything must be listed anew.
    pub(super) fn forget_before_today(&self, now_us: u64) {
        let day = now_us / (24 * BUCKET_US);
        let mut remembered = self.0.lock();
        if remembered.day != day {
            *remembered = Remembered { hashes: HashSet::default(), day };
        }
    }

    /// Returns whether the bucket with this hash is listed.
    pub(super) fn contains(&self, hash: u64) -> bool {
        self.0.lock().hashes.contains(&hash)
    }

    /// Remembers buckets as listed.
    pub(super) fn insert(&self, hashes: impl Iterator<Item = u64>) {
        let mut remembered = self.0.lock();
        for hash in hashes {
            if remembered.hashes.len() >= LISTED_MAX {
                remembered.hashes.clear();
            }
            remembered.hashes.insert(hash);
        }
    }
}

/// Hasher of keys that are hashes already.
#[derive(Default)]
struct HashAsIs(u64);

impl Hasher for HashAsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_listed_once_a_day() {
        const DAY_US: u64 = 24 * BUCKET_US;
        let listed = ListedBuckets::default();
        let hash = bucket_hash("s", 7);
        listed.forget_before_today(5 * DAY_US);
        assert!(!listed.contains(hash));
        listed.insert([hash].into_iter());
        listed.forget_before_today(6 * DAY_US - 1);
        assert!(listed.contains(hash) && !listed.contains(bucket_hash("s", 8)));
        listed.forget_before_today(6 * DAY_US);
        assert!(!listed.contains(hash));
    }
}
