//! The total order of records, and the timestamps of publishes that bring none.
//!
//! Records are ordered by (`ts`, `deleted`, hash of the data). The order is the same on every node, whatever
//! the order of arrival, so merging is commutative, associative and idempotent. Rejected: the origin's name
//! as a tie-break that users can see, because the same record published at two nodes would then be two
//! records.

use xxhash_rust::xxh3::xxh3_128;

use super::Now;
use crate::limits::TS_MAX;

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

/// Returns the timestamp for a publish that brings none, in microseconds since the Unix epoch: the wall clock,
/// or one more than `latest`, the newest `ts` of the source, if that is greater. `None` means that the source
/// has no timestamp left, because the next one would exceed [`TS_MAX`].
///
/// Every source has timestamps of its own. Rejected: one clock for all sources of a node, because one
/// timestamp that is ahead would then push those of all other sources ahead, at every node it reaches.
pub fn next_ts(now: Now, latest: Option<u64>) -> Option<u64> {
    let ts = now.wall_us.max(latest.map_or(0, |ts| ts.saturating_add(1)));
    (ts <= TS_MAX).then_some(ts)
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
    fn the_next_ts_passes_the_clock_and_the_source() {
        let now = Now { mono_us: 0, wall_us: 50 };
        assert_eq!(next_ts(now, None), Some(50));
        assert_eq!(next_ts(now, Some(500)), Some(501));
        assert_eq!(next_ts(now, Some(10)), Some(50));
    }

    /// A stamp over the greatest one was issued, acknowledged, and could not be read back from the store.
    #[test]
    fn no_ts_is_issued_that_cannot_be_read_back() {
        let now = Now { mono_us: 0, wall_us: 50 };
        assert_eq!(next_ts(now, Some(TS_MAX - 1)), Some(TS_MAX));
        assert_eq!(next_ts(now, Some(TS_MAX)), None);
        assert_eq!(next_ts(now, Some(u64::MAX)), None);
        assert_eq!(next_ts(Now { mono_us: 0, wall_us: TS_MAX + 1 }, None), None);
    }
}
