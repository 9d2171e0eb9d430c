//! The guard that checks whether the node takes publishes at all.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::guard::{Entrant, Guard};
use crate::ingest::downstream::Downstream;
use crate::protocol::refusal::{Code, Refusal};

/// Bit for a node that shuts down.
const DRAINING: u8 = 1;
/// Bit for a node whose clock is too far off its peers' clocks.
const SKEWED: u8 = 2;

/// The node's clock has not been compared with a member's.
const UNCOMPARED: u8 = 4;

/// Refuses every draft while the node shuts down or cannot trust its clock.
#[derive(Default)]
pub(super) struct NodeGuard {
    /// The reasons for which publishes are refused, as bits; 0 while there is none.
    reasons: AtomicU8,
}

impl NodeGuard {
    /// Refuses every draft from now on, because the node shuts down.
    pub(super) fn set_draining(&self) {
        self.reasons.fetch_or(DRAINING, Relaxed);
    }

    /// Sets whether the node's clock is too far off its peers' clocks. Drafts are refused meanwhile.
    pub(super) fn set_skewed(&self, is_skewed: bool) {
        self.set(SKEWED, is_skewed);
    }

    pub(super) fn set_clock_compared(&self, is_compared: bool) {
        self.set(UNCOMPARED, !is_compared);
    }

    fn set(&self, reason: u8, holds: bool) {
        if holds {
            self.reasons.fetch_or(reason, Relaxed);
        } else {
            self.reasons.fetch_and(!reason, Relaxed);
        }
    }
}

impl Guard for NodeGuard {
    fn check<D: Downstream>(&self, _: &Entrant<'_, D>) -> Result<(), Refusal> {
        match self.reasons.load(Relaxed) {
            0 => Ok(()),
            reasons if reasons & DRAINING != 0 => {
                Err(Refusal::new(Code::Overloaded, "this node is shutting down"))
            }
            reasons if reasons & SKEWED != 0 => {
                Err(Refusal::new(Code::ClockSkew, "this node's clock is off its peers'"))
            }
            _ => {
                Err(Refusal::new(Code::ClockSkew, "this node's clock has not been compared with a member's"))
            }
        }
    }
}
