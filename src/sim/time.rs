//! Virtual time, and the wall clocks that nodes derive from it.

use crate::record::Now;

/// Microseconds in a second.
pub(super) const SECOND_US: u64 = 1_000_000;
/// Time on a correct wall clock when a world begins, in microseconds since the Unix epoch.
const BEGINNING_WALL_US: u64 = 1_763_800_000_000_000;

/// Returns both clocks of a node: `now_us` is the world's time in microseconds since it began, and the
/// node's wall clock is off by `wall_offset_us`.
pub(super) fn now_of(now_us: u64, wall_offset_us: i64) -> Now {
    Now { mono_us: now_us, wall_us: (BEGINNING_WALL_US + now_us).saturating_add_signed(wall_offset_us) }
}
