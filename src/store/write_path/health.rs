//! The health of a store: whether the records that are pushed get written, and if not, why.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::store::queue::WriteQueue;

/// Health of a store: whether the records that are pushed get written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreHealth {
    /// Records that are pushed get written.
    Open,
    /// Nothing is written for now: publishes are refused, and records that are pushed all the same, such as
    /// those of peers, wait.
    Failing {
        /// Explanation for people.
        reason: String,
    },
}

/// The condition of the store, as the thread that writes reports it. Every setter returns whether it changed
/// anything, so that subscribers are told of changes only.
#[derive(Default)]
pub(super) struct StoreCondition {
    /// The reason why commits fail, if they do.
    trouble: Mutex<Option<String>>,
    /// Whether there is such a reason. Every publish asks, and takes no lock for it.
    is_in_trouble: AtomicBool,
    /// The reason why nothing becomes durable for now although pushed records are taken, if there is one.
    away: Mutex<Option<String>>,
    /// Whether the map is being read again to make up for what was dropped.
    is_resyncing: AtomicBool,
}

impl StoreCondition {
    /// Sets the reason why commits fail; `None` when they succeed.
    pub(super) fn set_trouble(&self, reason: Option<String>) -> bool {
        let mut current = self.trouble.lock();
        self.is_in_trouble.store(reason.is_some(), Ordering::Release);
        replace(&mut current, reason)
    }

    /// Sets the reason why nothing becomes durable for now; `None` when it does again.
    pub(super) fn set_away(&self, reason: Option<String>) -> bool {
        replace(&mut self.away.lock(), reason)
    }

    /// Sets whether the map is being read again.
    pub(super) fn set_resyncing(&self, is_resyncing: bool) -> bool {
        self.is_resyncing.swap(is_resyncing, Ordering::AcqRel) != is_resyncing
    }

    /// The reason why nothing becomes durable for now, if there is one.
    pub(super) fn away(&self) -> Option<String> {
        self.away.lock().clone()
    }

    /// Returns whether changes were dropped that the store has not caught up with yet.
    pub(super) fn needs_resync(&self, queue: &WriteQueue) -> bool {
        self.is_resyncing.load(Ordering::Acquire) || queue.lost_from().is_some()
    }

    /// The health that follows from this condition and the fill level of the queue.
    pub(super) fn health(&self, queue: &WriteQueue) -> StoreHealth {
        if self.is_in_trouble.load(Ordering::Acquire)
            && let Some(reason) = &*self.trouble.lock()
        {
            return StoreHealth::Failing { reason: reason.clone() };
        }
        if self.needs_resync(queue) {
            return StoreHealth::Failing {
                reason: "catching up with what was dropped while it failed".into(),
            };
        }
        if queue.is_full() {
            return StoreHealth::Failing { reason: "the queue is full: writing is too slow".into() };
        }
        StoreHealth::Open
    }
}

fn replace(current: &mut Option<String>, reason: Option<String>) -> bool {
    let is_changed = *current != reason;
    if is_changed {
        *current = reason;
    }
    is_changed
}
