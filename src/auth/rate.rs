//! Rates: how many records a second may come into this node with one token.
//!
//! A rate is a token bucket that holds a second's worth. It is kept as one number, the time at which the bucket
//! would be full again if nothing more came (the generic cell rate algorithm), so that all threads share it
//! without a lock.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::limits::JWT_RATES_MAX;

/// A second, in nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;

/// The bucket of one token.
#[derive(Debug)]
pub struct Rate {
    per_second: NonZeroU32,
    /// Monotonic time at which the bucket is full again, in nanoseconds.
    full_ns: AtomicU64,
    /// Number of records that were refused.
    refused: AtomicU64,
}

impl Rate {
    /// Makes a full bucket.
    pub fn new(per_second: NonZeroU32) -> Rate {
        Rate { per_second, full_ns: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    /// Records a second.
    pub fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    /// Takes one record out of the bucket. An error is the time after which there is room for it, in
    /// milliseconds.
    pub fn take(&self, now_us: u64) -> Result<(), u64> {
        let now_ns = now_us.saturating_mul(1_000);
        let record_ns = SECOND_NS / u64::from(self.per_second.get());
        let taken = self.full_ns.fetch_update(Relaxed, Relaxed, |full_ns| {
            let next_ns = full_ns.max(now_ns) + record_ns;
            (next_ns - now_ns <= SECOND_NS).then_some(next_ns)
        });
        taken.map(|_| ()).map_err(|full_ns| {
            self.refused.fetch_add(1, Relaxed);
            (full_ns + record_ns).saturating_sub(now_ns + SECOND_NS).div_ceil(1_000_000).max(1)
        })
    }

    /// Number of records that were refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn is_full(&self, now_us: u64) -> bool {
        self.full_ns.load(Relaxed) <= now_us.saturating_mul(1_000)
    }
}

/// Buckets by the name in the token and the records a second.
type RatesByName = BTreeMap<(Arc<str>, NonZeroU32), Arc<Rate>>;

/// The buckets of the names in JWTs, which stand in no file.
#[derive(Debug, Default)]
pub(super) struct RateTable(Mutex<RatesByName>);

impl RateTable {
    /// Returns the bucket of a name. All connections and requests with that name and rate share it.
    pub(super) fn of(&self, name: &Arc<str>, per_second: NonZeroU32, now_us: u64) -> Arc<Rate> {
        let mut rates = self.0.lock();
        if let Some(rate) = rates.get(&(name.clone(), per_second)) {
            return rate.clone();
        }
        if rates.len() >= JWT_RATES_MAX {
            // A full bucket that nobody uses is as good as a new one.
            rates.retain(|_, rate| Arc::strong_count(rate) > 1 || !rate.is_full(now_us));
        }
        let rate = Arc::new(Rate::new(per_second));
        if rates.len() < JWT_RATES_MAX {
            rates.insert((name.clone(), per_second), rate.clone());
        }
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32) -> Rate {
        Rate::new(NonZeroU32::new(per_second).expect("not zero"))
    }

    #[test]
    fn a_seconds_worth_comes_at_once_and_then_the_rate() {
        let rate = rate(10);
        let start_us = 5_000_000;
        assert_eq!((0..30).filter(|_| rate.take(start_us).is_ok()).count(), 10);
        assert_eq!(rate.take(start_us), Err(100));
        assert_eq!(rate.take(start_us + 99_000), Err(1));
        assert_eq!(rate.take(start_us + 100_000), Ok(()));
        let later: usize = (1..=100)
            .map(|step| (0..5).filter(|_| rate.take(start_us + 100_000 + step * 100_000).is_ok()).count())
            .sum();
        assert_eq!(later, 100, "ten a second for ten seconds");
        assert!(rate.refused() > 400);
    }

    #[test]
    fn any_rate_lets_a_seconds_worth_pass() {
        for per_second in [1, 3, 7, 1_000, 999_999, 1_000_000_000] {
            let rate = rate(per_second);
            let most = per_second.min(2_000);
            assert_eq!((0..most).filter(|_| rate.take(1).is_ok()).count(), most as usize, "{per_second}");
        }
    }

    #[test]
    fn names_share_their_bucket() {
        let table = RateTable::default();
        let ten = NonZeroU32::new(10).expect("not zero");
        let (a, b) = (table.of(&"a".into(), ten, 0), table.of(&"b".into(), ten, 0));
        assert!(Arc::ptr_eq(&a, &table.of(&"a".into(), ten, 0)) && !Arc::ptr_eq(&a, &b));
    }
}
