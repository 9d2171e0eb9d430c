//! The tokens of records that every member is to hold, and who waits for which.
//!
//! The cluster machine knows such a record by its token alone. An answer for a session is left at its worker,
//! which takes it in its next turn.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use super::condition::Reached;
use crate::limits::REPLICATED_WAITING_MAX;
use crate::protocol::refusal::{Code, Refusal};

/// A client that waits until every member holds a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A session of one of the workers.
    Session {
        /// Number of the worker that has the connection.
        worker: usize,
        /// Number of the connection on that worker.
        connection: usize,
    },
    /// A request over HTTP.
    Http,
}

/// An answer of the cluster machine for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Number of the connection on its worker. By now it may be the number of another connection.
    pub(crate) connection: usize,
    /// The token of the record.
    pub(crate) token: u64,
    /// Number of members that hold the record.
    pub(crate) reached: Reached,
}

/// All tokens that wait; at most [`REPLICATED_WAITING_MAX`].
pub(super) struct TokenTable {
    table: Mutex<WaitingTokens>,
    /// Answers for sessions, by worker.
    slots: Vec<WorkerSlot>,
}

#[derive(Default)]
struct WaitingTokens {
    last: u64,
    waiting: BTreeMap<u64, Waiter>,
}

#[derive(Default)]
struct WorkerSlot {
    /// Whether there are answers. Workers look at this in every turn, so that they need not lock.
    is_filled: AtomicBool,
    settled: Mutex<Vec<Settled>>,
}

impl TokenTable {
    /// Makes an empty table for this number of workers.
    pub(super) fn new(workers: usize) -> TokenTable {
        TokenTable { table: Mutex::default(), slots: (0..workers).map(|_| WorkerSlot::default()).collect() }
    }

    /// Gives out the next token, unless too many wait.
    pub(super) fn register(&self, waiter: Waiter) -> Result<u64, Refusal> {
        let table = &mut *self.table.lock();
        if table.waiting.len() >= REPLICATED_WAITING_MAX {
            let message = format!("{REPLICATED_WAITING_MAX} publishes wait for ack=\"replicated\" already");
            return Err(Refusal::new(Code::Overloaded, message));
        }
        table.last += 1;
        table.waiting.insert(table.last, waiter);
        Ok(table.last)
    }

    /// Takes back a token whose record was refused: the cluster machine does not know it.
    pub(super) fn release(&self, token: u64) {
        self.take(token);
    }

    /// Removes a token, and returns the client that waits for it.
    pub(super) fn take(&self, token: u64) -> Option<Waiter> {
        self.table.lock().waiting.remove(&token)
    }

    /// Leaves an answer at its worker. Returns the worker if it is to be woken.
    pub(super) fn leave(&self, worker: usize, settled: Settled) -> Option<usize> {
        let slot = self.slots.get(worker)?;
        slot.settled.lock().push(settled);
        (!slot.is_filled.swap(true, Relaxed)).then_some(worker)
    }

    /// Takes the answers that were left at a worker.
    pub(super) fn take_settled(&self, worker: usize) -> Vec<Settled> {
        match self.slots.get(worker) {
            // What is pushed after the swap sets the flag again, and wakes the worker.
            Some(slot) if slot.is_filled.swap(false, Relaxed) => mem::take(&mut slot.settled.lock()),
            _ => Vec::new(),
        }
    }

    /// Returns whether no token waits.
    pub(super) fn is_empty(&self) -> bool {
        self.table.lock().waiting.is_empty()
    }
}
