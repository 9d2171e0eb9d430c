//! The time that one part of a turn may take.

use super::clock;
use crate::record::Now;

/// Bounds how long one part of a turn works. The time starts with the first look at it, so a part that has nothing to
/// do reads no clock: at light load, reading clocks was a tenth of a worker's time.
#[derive(Debug)]
pub struct TimeBound {
    most_us: u64,
    end_us: Option<u64>,
}

impl TimeBound {
    /// Allows `most_us` microseconds from the first look on.
    pub fn of(most_us: u64) -> TimeBound {
        TimeBound { most_us, end_us: None }
    }

    /// Returns both clocks, or `None` if the time is used up.
    pub fn now(&mut self) -> Option<Now> {
        let now = clock::now();
        (!self.ends_before(now.mono_us)).then_some(now)
    }

    /// Returns whether the time is used up.
    pub fn is_used_up(&mut self) -> bool {
        self.ends_before(clock::mono_us())
    }

    fn ends_before(&mut self, now_us: u64) -> bool {
        now_us > *self.end_us.get_or_insert(now_us + self.most_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_starts_with_the_first_look_and_ends() {
        let mut allowed = TimeBound::of(100);
        assert!(!allowed.ends_before(1_000), "the time starts here");
        assert!(!allowed.ends_before(1_100));
        assert!(allowed.ends_before(1_101));
        assert!(TimeBound::of(0).now().is_some(), "the first look is always allowed");
    }
}
