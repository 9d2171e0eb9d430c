//! How much may be sent again to members that nobody depends on.

/// Most bytes that can be saved up.
const BYTES_MAX: usize = 256 * 1024;
/// What a node that sends nothing else may spend, in bytes a second.
const IDLE_BYTES_A_SECOND: u64 = 32 * 1024;
/// Of so many bytes sent for the first time, one may be spent on further tries.
const EARNED_OF: usize = 4;
/// Longest silence that earns anything, in microseconds.
const IDLE_US_MAX: u64 = 10_000_000;

/// Bytes that may be spent on further tries to single members: a quarter of what is sent anyway, so that
/// loss does not become collapse. Tries to larger parts are not counted: one left out costs a subtree.
#[derive(Debug)]
pub(super) struct RetryBudget {
    bytes: usize,
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
        let elapsed_us = now_us.saturating_sub(self.earned_us).min(IDLE_US_MAX);
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
