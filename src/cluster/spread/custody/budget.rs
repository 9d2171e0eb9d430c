//! Bounds the bytes that may be sent again to members that no other member depends on.

/// Most bytes of budget that can be saved up.
const BYTES_MAX: usize = 256 * 1024;
/// Bytes of budget that are earned in a second without sending anything.
const IDLE_BYTES_A_SECOND: u64 = 32 * 1024;
/// Number of bytes sent for the first time that earn one byte.
const EARNED_OF: usize = 4;
/// Longest time for which bytes are earned without sending anything, in microseconds.
const EARNING_IDLE_US_MAX: u64 = 10_000_000;

/// Bytes that may be spent on further tries of parts with a single member: a quarter of what is sent for the
/// first time, so that loss does not become collapse. Tries of larger parts cost nothing, since a part that
/// is left out costs a subtree.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// Bytes that may be spent now.
    bytes: usize,
    /// Time up to which earned bytes were counted, in microseconds.
    earned_us: u64,
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget { bytes: BYTES_MAX, earned_us: 0 }
    }
}

impl RetryBudget {
    /// Earns by sending `bytes` for the first time.
    pub fn earn(&mut self, bytes: usize) {
        self.bytes = (self.bytes + bytes / EARNED_OF).min(BYTES_MAX);
    }

    /// Spends `bytes`; `false`: there is not enough, and nothing is spent.
    pub fn take(&mut self, now_us: u64, bytes: usize) -> bool {
        let elapsed_us = now_us.saturating_sub(self.earned_us).min(EARNING_IDLE_US_MAX);
        let idle = (elapsed_us * IDLE_BYTES_A_SECOND / 1_000_000) as usize;
        if idle > 0 {
            self.earned_us = now_us;
            self.bytes = (self.bytes + idle).min(BYTES_MAX);
        }
        let is_enough = self.bytes >= bytes;
        if is_enough {
            self.bytes -= bytes;
        }
        debug_assert!(self.bytes <= BYTES_MAX, "{} bytes", self.bytes);
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spends_a_quarter_of_what_is_sent_and_a_little_in_silence() {
        let mut budget = RetryBudget::default();
        assert!(budget.take(0, BYTES_MAX) && !budget.take(0, 1));
        budget.earn(4_000);
        assert!(!budget.take(0, 1_001) && budget.take(0, 1_000));
        assert!(budget.take(1_000_000, 32 * 1024) && !budget.take(1_000_000, 1));
    }
}
