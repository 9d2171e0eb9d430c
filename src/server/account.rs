//! How an event loop counts what its clients make it hold.
//!
//! At the end of a turn, the loop adds up what each connection that it touched holds ([`Holdings`]), and
//! notes the difference in its account. The account has a lease of the node's budget, which it makes larger
//! and smaller in steps, so most turns touch no memory that threads share.

use std::sync::Arc;

use crate::limits::REQUEST_HEAD_BYTES_MAX;
use crate::memory::{Budget, FREE_BYTES, Lease, MemoryUse, OverBudget};

/// Steps in which the lease of an event loop grows and shrinks, in bytes.
const STEP_BYTES: usize = 16 * 1024;

// A connection that only asks something must not be refused for want of memory.
const _: () = assert!(FREE_BYTES > REQUEST_HEAD_BYTES_MAX + 1);

/// The bytes that one connection makes its node hold, by use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Bytes that came from the client and are no whole message yet.
    pub frames: usize,
    /// Bytes and records that wait to be sent.
    pub unsent: usize,
    /// Publishes that wait for their answers.
    pub answers: usize,
    /// Patterns, and what is remembered for subscriptions.
    pub subscriptions: usize,
}

impl Holdings {
    /// All bytes together.
    pub fn total(&self) -> usize {
        self.frames + self.unsent + self.answers + self.subscriptions
    }

    /// The use that holds the most.
    pub fn greatest(&self) -> MemoryUse {
        let uses = [
            (self.frames, MemoryUse::Frames),
            (self.unsent, MemoryUse::Unsent),
            (self.answers, MemoryUse::Answers),
            (self.subscriptions, MemoryUse::Subscriptions),
        ];
        uses.into_iter().max_by_key(|(bytes, _)| *bytes).map_or(MemoryUse::Unsent, |(_, greatest)| greatest)
    }
}

/// What all connections of an event loop hold, and the lease that covers it.
#[derive(Debug)]
pub struct WorkerAccount {
    lease: Lease,
    held: usize,
}

impl WorkerAccount {
    /// Makes the account of an event loop without connections.
    pub fn new(budget: &Arc<Budget>) -> WorkerAccount {
        WorkerAccount { lease: budget.lease(), held: 0 }
    }

    /// Notes that a connection which held `before` bytes now holds `after`. It is counted in any case; an error says
    /// that it may not hold so much, and must be closed or hold less.
    pub fn change(&mut self, before: usize, after: usize) -> Result<(), OverBudget> {
        debug_assert!(self.held >= before, "a connection held more than was counted");
        self.held = self.held - before + after;
        let missing = self.held.saturating_sub(self.lease.bytes());
        let verdict = if after > before { self.lease.budget().admits(missing, after) } else { Ok(()) };
        self.follow();
        verdict
    }

    /// Makes the lease cover what is held, and not much more.
    fn follow(&mut self) {
        let kept = if self.held == 0 { 0 } else { self.held + STEP_BYTES };
        let leased = self.lease.bytes();
        let wanted = if leased < self.held {
            self.held.next_multiple_of(STEP_BYTES)
        } else if leased > kept + STEP_BYTES || kept == 0 {
            kept
        } else {
            return;
        };
        if wanted != leased {
            // A holder of nothing is never refused: the memory is held already.
            let _ = self.lease.resize(wanted, 0);
        }
    }

    /// Checks whether a connection that holds `held` bytes may hold `added` more. Counts nothing.
    pub fn admits(&self, held: usize, added: usize) -> Result<(), OverBudget> {
        self.lease.budget().admits(added, held + added)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn the_lease_follows_what_is_held() {
        let budget = Arc::new(Budget::new(16 * MIB, 8 * MIB));
        let mut account = WorkerAccount::new(&budget);
        assert_eq!(account.change(0, 1), Ok(()));
        assert_eq!(budget.taken(), STEP_BYTES);
        for bytes in 1..1_000 {
            assert_eq!(account.change(bytes, bytes + 1), Ok(()));
        }
        assert_eq!(budget.taken(), STEP_BYTES, "small changes stay within a step");
        assert_eq!(account.change(1_000, 3 * MIB), Ok(()));
        assert_eq!(account.change(0, 2 * MIB), Ok(()));
        assert_eq!(budget.taken(), 5 * MIB);
        assert_eq!(account.change(3 * MIB, 0), Ok(()));
        assert_eq!(budget.taken(), 2 * MIB + STEP_BYTES, "a step is kept");
        assert_eq!(account.change(2 * MIB, 0), Ok(()));
        assert_eq!(budget.taken(), 0);
        assert_eq!(account.change(0, MIB), Ok(()));
        drop(account);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn who_asks_for_more_is_refused_and_others_are_not() {
        let budget = Arc::new(Budget::new(4 * MIB, 2 * MIB));
        let mut account = WorkerAccount::new(&budget);
        assert_eq!(account.change(0, 2 * MIB + 1), Err(OverBudget::Holder(2 * MIB)));
        assert_eq!(account.change(2 * MIB + 1, 0), Ok(()));
        assert_eq!(account.change(0, 2 * MIB), Ok(()));
        assert_eq!(account.change(0, MIB), Ok(()));
        assert_eq!(account.change(0, MIB), Err(OverBudget::Node(4 * MIB)), "the rest is for small ones");
        assert_eq!(account.change(MIB, 0), Ok(()));
        assert_eq!(account.change(0, 200 * 1024), Ok(()));
        assert_eq!(account.admits(200 * 1024, MIB), Err(OverBudget::Node(4 * MIB)));
        assert_eq!(account.admits(0, 100), Ok(()));
        for bytes in [2 * MIB, MIB, 200 * 1024] {
            assert_eq!(account.change(bytes, 0), Ok(()));
        }
    }

    #[test]
    fn the_greatest_use_is_named() {
        let holdings = Holdings { frames: 3, unsent: 5, answers: 4, subscriptions: 0 };
        assert_eq!((holdings.total(), holdings.greatest()), (12, MemoryUse::Unsent));
        assert_eq!(Holdings { frames: 9, ..holdings }.greatest(), MemoryUse::Frames);
    }
}
