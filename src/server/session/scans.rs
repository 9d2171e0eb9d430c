//! How much of the map the snapshots of a worker may look at in one turn.
//!
//! Scans are counted in steps: a name that is looked at, or a few patterns that it is compared with
//! ([`crate::latest::Latest::scan`]). All sessions of a worker share the steps of a turn, and each gets a small
//! part of them before it is another one's turn. So a thousand snapshots at a time take as much of a turn as eight,
//! and a small snapshot does not wait for large ones to be complete.
//!
//! To hand what was found to the kernel takes longer than to find it, so the bytes of a turn are bounded, too.

use crate::limits::{SCAN_BYTES_PER_TURN, SCAN_STEPS_PER_SESSION, SCAN_STEPS_PER_TURN};

/// The steps that are left to the sessions of a worker in this turn.
#[derive(Debug)]
pub struct ScanBudget {
    left: usize,
    /// Bytes that may still be found in this turn.
    bytes_left: usize,
    /// Most steps of one session at a time.
    share: usize,
    /// Number of steps that were taken since the worker last took the count.
    taken: u64,
}

impl Default for ScanBudget {
    fn default() -> ScanBudget {
        ScanBudget {
            left: SCAN_STEPS_PER_TURN,
            bytes_left: SCAN_BYTES_PER_TURN,
            share: SCAN_STEPS_PER_SESSION,
            taken: 0,
        }
    }
}

impl ScanBudget {
    /// Begins a turn of the worker.
    pub fn begin_turn(&mut self) {
        self.left = SCAN_STEPS_PER_TURN;
        self.bytes_left = SCAN_BYTES_PER_TURN;
    }

    /// Returns how many steps are left in this turn.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Returns whether no session may scan any more in this turn.
    pub fn is_used_up(&self) -> bool {
        self.left == 0 || self.bytes_left == 0
    }

    /// Returns how many steps the next session may take.
    pub(super) fn share(&self) -> usize {
        self.left.min(self.share)
    }

    /// Notes that a session took this number of steps.
    pub(super) fn use_up(&mut self, steps: usize) {
        self.left = self.left.saturating_sub(steps);
        self.taken += steps as u64;
    }

    /// Notes that a session has found so many bytes for its client.
    pub fn use_up_bytes(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// Takes the number of steps since the last call.
    pub fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.taken)
    }

    /// Sets the share of a session.
    #[cfg(test)]
    pub(super) fn set_share(&mut self, share: usize) {
        self.share = share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand clients that took snapshots at a time raised the median latency of healthy ones from 0.2 to 15.8 ms:
    /// a turn found as much for them as it could in a millisecond, and took two more to hand it to the kernel.
    #[test]
    fn a_turn_ends_after_its_steps_or_its_bytes() {
        let mut scans = ScanBudget::default();
        scans.use_up(SCAN_STEPS_PER_TURN - 1);
        scans.use_up_bytes(SCAN_BYTES_PER_TURN - 1);
        assert!(!scans.is_used_up());
        scans.use_up_bytes(100);
        assert!(scans.is_used_up());
        scans.begin_turn();
        assert!(!scans.is_used_up());
        scans.use_up(SCAN_STEPS_PER_TURN);
        assert!(scans.is_used_up());
    }
}
