//! How much of the map the snapshots of a worker may look at in one turn.
//!
//! Scans are counted in steps: a name that is looked at, or a few patterns that it is compared with
//! ([`crate::latest::Latest::scan`]). All sessions of a worker share the steps of a turn, and each gets a small
//! part of them before it is another one's turn. So a thousand snapshots at a time take as much of a turn as eight,
//! and a small snapshot does not wait for large ones to be complete.

use crate::limits::{SCAN_STEPS_PER_SESSION, SCAN_STEPS_PER_TURN};

/// The steps that are left to the sessions of a worker in this turn.
#[derive(Debug)]
pub struct ScanBudget {
    left: usize,
    /// Most steps of one session at a time.
    share: usize,
    /// Number of steps that were taken since the worker last took the count.
    taken: u64,
}

impl Default for ScanBudget {
    fn default() -> ScanBudget {
        ScanBudget { left: SCAN_STEPS_PER_TURN, share: SCAN_STEPS_PER_SESSION, taken: 0 }
    }
}

impl ScanBudget {
    /// Begins a turn of the worker.
    pub fn begin_turn(&mut self) {
        self.left = SCAN_STEPS_PER_TURN;
    }

    /// Returns how many steps are left in this turn.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Returns whether no session may scan any more in this turn.
    pub fn is_used_up(&self) -> bool {
        self.left == 0
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
