//! The total order of records, and the clock that issues stamps.
//!
//! The order is (`ts`, `deleted`, hash of the data): the same on every node, whatever the order of
//! arrival, so merging is commutative, associative and idempotent. Rejected: the origin's name as
//! the tie-break that users see, since the same record published at two nodes would then be two.

use xxhash_rust::xxh3::xxh3_128;

use super::Now;

/// Where a record stands in the order. Derived `Ord` compares the fields as they stand here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Microseconds since the Unix epoch, at most [`crate::limits::TS_MAX`].
    pub ts: u64,
    /// A deletion beats a value of the same `ts`.
    pub deleted: bool,
    /// XXH3-128 of the data bytes; of none for a deletion.
    pub hash: u128,
}

impl Stamp {
    /// The stamp of a value.
    pub fn of_data(ts: u64, data: &[u8]) -> Stamp {
        Stamp { ts, deleted: false, hash: xxh3_128(data) }
    }

    /// The stamp of a deletion.
    pub fn of_deletion(ts: u64) -> Stamp {
        Stamp { ts, deleted: true, hash: xxh3_128(&[]) }
    }
}

/// Issues stamps for publishes that bring none.
///
/// A stamp is max(wall clock, last issued + 1, the source's latest + 1). The high-water mark is
/// kept by the store, so a clock set back between two lives issues nothing twice.
#[derive(Debug, Default)]
pub struct HybridClock {
    last_issued: std::sync::atomic::AtomicU64,
}

impl HybridClock {
    /// A clock that issues only stamps over `high_water`.
    pub fn new(high_water: u64) -> HybridClock {
        HybridClock { last_issued: high_water.into() }
    }

    /// A stamp over every one issued before and over `latest`, the source's newest `ts`.
    pub fn issue(&self, now: Now, latest: Option<u64>) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        let floor = now.wall_us.max(latest.map_or(0, |ts| ts.saturating_add(1)));
        let mut last = self.last_issued.load(Relaxed);
        loop {
            let next = floor.max(last.saturating_add(1));
            match self.last_issued.compare_exchange_weak(last, next, Relaxed, Relaxed) {
                Ok(_) => return next,
                Err(seen) => last = seen,
            }
        }
    }

    /// Lifts the mark to `ts`: what is known to have been issued.
    pub fn raise(&self, ts: u64) {
        self.last_issued.fetch_max(ts, std::sync::atomic::Ordering::Relaxed);
    }

    /// The greatest stamp issued so far.
    pub fn high_water(&self) -> u64 {
        self.last_issued.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_ts_then_deletion_then_hash() {
        let value = Stamp::of_data(5, b"1");
        let other = Stamp::of_data(5, b"2");
        let deletion = Stamp::of_deletion(5);
        assert!(deletion > value && deletion > other);
        assert!(Stamp::of_data(6, b"1") > deletion);
        assert_eq!(value < other, value.hash < other.hash);
    }

    #[test]
    fn issued_stamps_pass_the_clock_the_last_and_the_source() {
        let clock = HybridClock::new(100);
        let now = Now { mono_us: 0, wall_us: 50 };
        assert_eq!(clock.issue(now, None), 101);
        assert_eq!(clock.issue(now, Some(500)), 501);
        assert_eq!(clock.issue(Now { mono_us: 0, wall_us: 900 }, Some(500)), 900);
        assert_eq!(clock.issue(now, Some(10)), 901);
    }
}
