//! The mark up to which pushed changes survive a power cut.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::store::queue::Ticket;

/// The durable mark: the greatest ticket up to which everything survives a power cut. It never falls.
#[derive(Default)]
pub(in crate::store) struct DurableMark {
    ticket: AtomicU64,
    /// Whether the thread that writes has ended. The lock is held while the ticket moves, so that no
    /// waiter misses it.
    has_ended: Mutex<bool>,
    moved: Condvar,
}

impl DurableMark {
    /// The ticket up to which everything is durable.
    pub(in crate::store) fn get(&self) -> Ticket {
        #[cfg(feature = "planted-bugs")]
        if crate::planted::believes_all_durable() {
            return Ticket(u64::MAX);
        }
        Ticket(self.ticket.load(Ordering::Acquire))
    }

    /// Raises the mark to `ticket` and wakes the threads that wait for it. Returns `false` if the mark was
    /// there already.
    pub(super) fn raise(&self, ticket: Ticket) -> bool {
        {
            let _lock = self.has_ended.lock();
            if self.ticket.fetch_max(ticket.0, Ordering::AcqRel) >= ticket.0 {
                return false;
            }
        }
        self.moved.notify_all();
        true
    }

    /// Waits until `ticket` is durable. Returns `false` if that takes longer than `timeout`, or never
    /// comes because the thread that writes has ended.
    pub(in crate::store) fn wait(&self, ticket: Ticket, timeout: Duration) -> bool {
        let mut has_ended = self.has_ended.lock();
        let is_waiting = |has_ended: &mut bool| !*has_ended && self.get() < ticket;
        self.moved.wait_while_for(&mut has_ended, is_waiting, timeout);
        self.get() >= ticket
    }

    /// Waits until the thread that writes has ended. Returns `false` if that takes longer than `timeout`.
    pub(in crate::store) fn wait_ended(&self, timeout: Duration) -> bool {
        let mut has_ended = self.has_ended.lock();
        self.moved.wait_while_for(&mut has_ended, |has_ended| !*has_ended, timeout);
        *has_ended
    }

    /// Notes that the thread that writes has ended: nothing more becomes durable.
    pub(super) fn set_ended(&self) {
        *self.has_ended.lock() = true;
        self.moved.notify_all();
    }
}
