//! The total order of records, and the clock that issues timestamps.
//!
//! Records are ordered by (`ts`, `deleted`, hash of the data). The order is the same on every node, whatever
//! the order of arrival, so merging is commutative, associative and idempotent. Rejected: the origin's name
//! as a tie-break that users can see, because the same record published at two nodes would then be two
//! records.

use xxhash_rust::xxh3::xxh3_128;

use super::Now;

/// Position of a record in the total order. The derived `Ord` compares the fields in the order of their
/// declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Microseconds since the Unix epoch, at most [`crate::limits::TS_MAX`].
    pub ts: u64,
    /// Whether the record deletes the source. A deletion is greater than a value with the same `ts`.
    pub deleted: bool,
    /// XXH3-128 of the data; for a deletion, of zero bytes.
    pub hash: u128,
}

impl Stamp {
    /// Makes the stamp of a value. `ts` is in microseconds since the Unix epoch.
    pub fn of_data(ts: u64, data: &[u8]) -> Stamp {
        Stamp { ts, deleted: false, hash: xxh3_128(data) }
    }

    /// Makes the stamp of a deletion. `ts` is in microseconds since the Unix epoch.
    pub fn of_deletion(ts: u64) -> Stamp {
        Stamp { ts, deleted: true, hash: xxh3_128(&[]) }
    }
}

/// Issues timestamps for publishes that bring none.
///
/// A timestamp is the greatest of three numbers: the wall clock, one more than the last one issued, and one
/// more than the newest `ts` of the source. The store keeps the greatest one issued, so nothing is issued
/// twice even if the machine's clock is set back between two runs.
#[derive(Debug, Default)]
pub struct HybridClock {
    last_issued: std::sync::atomic::AtomicU64,
}

impl HybridClock {
    /// Makes a clock that issues only timestamps greater than `high_water`.
    pub fn new(high_water: u64) -> HybridClock {
        HybridClock { last_issued: high_water.into() }
    }

    /// Returns a timestamp, in microseconds since the Unix epoch, that is greater than every one issued
    /// before and than `latest`, the newest `ts` of the source if it has one.
    pub fn issue(&self, now: Now, latest: Option<u64>) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        let floor = now.wall_us.max(latest.map_or(0, |ts| ts.saturating_add(1)));
        let mut last = self.last_issued.load(Relaxed);
        loop {
            let next = floor.max(last.saturating_add(1));
            match self.last_issued.compare_exchange_weak(last, next, Relaxed, Relaxed) {
                Ok(_) => {
                    debug_assert!(next > last, "no timestamp is issued twice");
                    return next;
                }
                Err(seen) => last = seen,
            }
        }
    }

    /// Makes all further timestamps greater than `ts`, which is known to have been issued already.
    pub fn raise(&self, ts: u64) {
        self.last_issued.fetch_max(ts, std::sync::atomic::Ordering::Relaxed);
    }

    /// Returns the greatest timestamp issued so far, in microseconds since the Unix epoch.
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
