//! Notices when the wall clock of this machine is set, by an operator, by NTP or by a hypervisor: it then jumps against
//! the monotonic clock, which nobody can set. A machine that was suspended looks the same.

use super::log_limit::LogLimit;
use crate::metrics::Counter;
use crate::record::Now;

/// Time between two looks at the clocks, in microseconds.
const COMPARE_US: u64 = 1_000_000;
/// Time after which a jump is looked at again before it is believed, in microseconds. A thread that is held up between
/// its readings of the two clocks sees a jump that is none.
const JUMP_CONFIRM_US: u64 = 200_000;
/// Least change of the difference of the two clocks that is a jump, in microseconds. NTP corrects less than that by
/// letting a clock run faster or slower, by at most 500 µs in a second.
const JUMP_US_MIN: u64 = 500_000;

/// Compares the wall clock with the monotonic clock at intervals.
#[derive(Debug, Default)]
pub struct ClockWatch {
    next_us: u64,
    /// The wall clock less the monotonic one when they were last looked at, in microseconds.
    difference_us: Option<i64>,
    /// Another difference that was seen once, in microseconds.
    suspected_us: Option<i64>,
    lines: LogLimit,
}

impl ClockWatch {
    /// Looks at the clocks if it is time to; counts a jump, and logs it. May be called as often as one likes.
    pub fn handle_turn(&mut self, now: Now, jumps: &Counter) {
        let Some(jump_us) = self.look(now) else { return };
        jumps.increment();
        if let Some(count) = self.lines.count(now.mono_us) {
            tracing::warn!(
                seconds = jump_us as f64 / 1e6,
                jumps = count,
                "the wall clock of this machine has jumped, or the machine was suspended; this is logged once a minute"
            );
        }
    }

    /// Returns by how much the wall clock has jumped since the last look, in microseconds: forwards if it is positive.
    fn look(&mut self, now: Now) -> Option<i64> {
        if now.mono_us < self.next_us {
            return None;
        }
        self.next_us = now.mono_us + COMPARE_US;
        let difference_us = now.wall_us as i64 - now.mono_us as i64;
        let is_near = |other: i64| other.abs_diff(difference_us) < JUMP_US_MIN;
        let before_us = *self.difference_us.get_or_insert(difference_us);
        if is_near(before_us) {
            self.suspected_us = None;
            self.difference_us = Some(difference_us);
            return None;
        }
        if !self.suspected_us.is_some_and(is_near) {
            self.suspected_us = Some(difference_us);
            self.next_us = now.mono_us + JUMP_CONFIRM_US;
            return None;
        }
        self.suspected_us = None;
        self.difference_us = Some(difference_us);
        Some(difference_us - before_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_US: u64 = 1_800_000_000_000_000;

    /// Looks every 50 ms for `seconds`, while the wall clock is ahead by what `ahead_us` makes of the time. Returns the
    /// jumps.
    fn jumps(
        watch: &mut ClockWatch,
        seconds: std::ops::Range<u64>,
        ahead_us: impl Fn(u64) -> i64,
    ) -> Vec<i64> {
        let turns = (seconds.start * 20..seconds.end * 20).map(|turn| turn * 50_000);
        let now = |mono_us: u64| {
            let wall_us = (START_US + mono_us).saturating_add_signed(ahead_us(mono_us));
            Now { mono_us, wall_us }
        };
        turns.filter_map(|mono_us| watch.look(now(mono_us))).collect()
    }

    #[test]
    fn a_jump_is_seen_once_in_either_direction() {
        let mut watch = ClockWatch::default();
        assert_eq!(jumps(&mut watch, 0..5, |_| 0), [0; 0]);
        assert_eq!(jumps(&mut watch, 5..10, |_| 60_000_000), [60_000_000]);
        assert_eq!(jumps(&mut watch, 10..20, |_| -3_600_000_000), [-3_660_000_000]);
    }

    #[test]
    fn a_clock_that_runs_a_little_fast_does_not_jump() {
        let mut watch = ClockWatch::default();
        assert_eq!(jumps(&mut watch, 0..10_000, |mono_us| (mono_us / 2_000) as i64), [0; 0]);
    }

    #[test]
    fn one_strange_reading_is_no_jump() {
        let mut watch = ClockWatch::default();
        let held_up = |mono_us: u64| if mono_us == 3_000_000 { 2_000_000 } else { 0 };
        assert_eq!(jumps(&mut watch, 0..10, held_up), [0; 0]);
    }

    #[test]
    fn jumps_are_counted() {
        let (mut watch, counter) = (ClockWatch::default(), Counter::default());
        for second in 0..6 {
            let wall_us = START_US + second * 1_000_000 + if second < 3 { 0 } else { 3_000_000 };
            watch.handle_turn(Now { mono_us: second * 1_000_000, wall_us }, &counter);
        }
        assert_eq!(counter.get(), 1);
    }
}
