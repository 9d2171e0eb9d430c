//! The budget of memory that clients may make a node hold, and the leases of its parts.
//!
//! Whatever a node keeps for a client counts against one budget: frames and bodies that have not come in full,
//! answers and records that the client does not read, subscriptions, publishes that wait for their answers, pages of
//! HTTP, and the buffers of connections over HTTP. The map of records has a bound of its own, and so have the queues between the node's parts.
//!
//! A [`Lease`] is a part of the budget that is taken, and is given back when it is dropped. Each event loop
//! has one lease for all its connections, which it changes in large steps, so that counting costs no atomic
//! for each record. Each request over HTTP has a lease of its own.
//!
//! A *holder* is one connection or one request. A few greedy holders must not shut out all others, so what a
//! holder is refused depends on its size:
//!
//! - With up to [`FREE_BYTES`], it is counted but never refused. Their number is bounded, by
//!   `--max-connections`.
//! - With up to [`SMALL_BYTES`], it may use the whole budget.
//! - With more, it may use three quarters of the budget. And no holder may have more than
//!   [`Budget::holder_max`].

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes up to which a holder is never refused: the head of a request, or what a client that reads its answers
/// may have waiting for a moment.
pub const FREE_BYTES: usize = 20 * 1024;
/// Bytes up to which a holder may use the whole budget.
pub const SMALL_BYTES: usize = 256 * 1024;

/// The uses of memory that are counted, and refused, for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryUse {
    /// Frames of a WebSocket that have not come in full.
    Frames,
    /// Answers and records that a client has not read yet.
    Unsent,
    /// Publishes that wait for their answers.
    Answers,
    /// Patterns, and what else is kept for the subscriptions of a connection.
    Subscriptions,
    /// Answers of HTTP that a client has not read yet.
    Pages,
}

/// All uses of memory, in the order of the metrics.
pub const MEMORY_USES: [MemoryUse; 5] =
    [MemoryUse::Frames, MemoryUse::Unsent, MemoryUse::Answers, MemoryUse::Subscriptions, MemoryUse::Pages];

impl MemoryUse {
    /// The name of the use in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            MemoryUse::Frames => "frames",
            MemoryUse::Unsent => "unsent",
            MemoryUse::Answers => "answers",
            MemoryUse::Subscriptions => "subscriptions",
            MemoryUse::Pages => "pages",
        }
    }
}

/// Why a holder does not get more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// The holder alone would have more than a holder may.
    #[error("a connection or request may hold at most {0} bytes of this node's memory for clients")]
    Holder(usize),
    /// All holders together have as much as they may.
    #[error("clients hold as much of this node's memory as they may (--max-client-memory is {0} bytes)")]
    Node(usize),
}

/// The memory that the clients of a node may use together. All threads share it.
#[derive(Debug)]
pub struct Budget {
    taken: AtomicUsize,
    limit: usize,
    holder_max: usize,
}

impl Budget {
    /// Makes a budget of `limit` bytes of which nothing is taken. One holder may have `holder_max` bytes.
    pub fn new(limit: usize, holder_max: usize) -> Budget {
        Budget { taken: AtomicUsize::new(0), limit, holder_max }
    }

    /// Returns how many bytes all holders may have together.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns how many bytes one holder may have.
    pub fn holder_max(&self) -> usize {
        self.holder_max
    }

    /// Returns how many bytes are taken. This may be more than the limit, because small holders are not
    /// refused.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Makes a lease of nothing.
    pub fn lease(self: &Arc<Budget>) -> Lease {
        Lease { budget: self.clone(), bytes: 0 }
    }

    /// Checks whether a holder that would have `holder` bytes may take `added` of them now. Takes nothing.
    pub fn admits(&self, added: usize, holder: usize) -> Result<(), OverBudget> {
        if holder > self.holder_max && holder > FREE_BYTES {
            return Err(OverBudget::Holder(self.holder_max));
        }
        match self.taken().checked_add(added) {
            Some(taken) if taken <= self.limit_for(holder) => Ok(()),
            _ if added == 0 => Ok(()),
            _ => Err(OverBudget::Node(self.limit)),
        }
    }

    /// Returns up to how many taken bytes a holder of this size may take more.
    fn limit_for(&self, holder: usize) -> usize {
        match holder {
            0..=FREE_BYTES => usize::MAX,
            _ if holder <= SMALL_BYTES => self.limit,
            _ => self.limit - self.limit / 4,
        }
    }

    fn take(&self, bytes: usize, holder: usize) -> Result<(), OverBudget> {
        self.admits(bytes, holder)?;
        let limit = self.limit_for(holder);
        // Memory that is taken says nothing about other memory, so no order is needed.
        let taken = self.taken.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if taken > limit && bytes > 0 {
            self.give_back(bytes);
            return Err(OverBudget::Node(self.limit));
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        let before = self.taken.fetch_sub(bytes, Relaxed);
        debug_assert!(before >= bytes, "more was given back than was taken");
    }
}

/// A part of a [`Budget`] that is taken until the lease is dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Lease {
    /// Returns how many bytes are leased.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the budget of which this is a part.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Changes the lease to `bytes` bytes, on behalf of a holder that has `holder` bytes then. On an error the
    /// lease is as it was; to make a lease smaller never fails.
    pub fn resize(&mut self, bytes: usize, holder: usize) -> Result<(), OverBudget> {
        match bytes.checked_sub(self.bytes) {
            Some(added) => self.budget.take(added, holder)?,
            None => self.budget.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Changes the lease of a single holder to `bytes` bytes.
    pub fn set(&mut self, bytes: usize) -> Result<(), OverBudget> {
        self.resize(bytes, bytes)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn budget(limit: usize, holder_max: usize) -> Arc<Budget> {
        Arc::new(Budget::new(limit, holder_max))
    }

    #[test]
    fn a_lease_is_given_back_when_it_shrinks_and_when_it_is_dropped() {
        let budget = budget(8 * MIB, 4 * MIB);
        let mut lease = budget.lease();
        assert_eq!(lease.set(3 * MIB), Ok(()));
        assert_eq!(lease.set(2 * MIB), Ok(()));
        assert_eq!((budget.taken(), lease.bytes()), (2 * MIB, 2 * MIB));
        drop(lease);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn no_holder_has_more_than_a_holder_may() {
        let budget = budget(8 * MIB, 2 * MIB);
        let mut lease = budget.lease();
        assert_eq!(lease.set(2 * MIB + 1), Err(OverBudget::Holder(2 * MIB)));
        assert_eq!((lease.bytes(), budget.taken()), (0, 0), "a refusal takes nothing");
        assert_eq!(lease.set(2 * MIB), Ok(()));
    }

    /// A few clients that take as much as they can must not shut out those that need little.
    #[test]
    fn what_is_left_is_for_the_small() {
        let budget = budget(8 * MIB, 8 * MIB);
        let (mut greedy, mut other, mut small, mut tiny) =
            (budget.lease(), budget.lease(), budget.lease(), budget.lease());
        assert_eq!(greedy.set(6 * MIB), Ok(()));
        assert_eq!(other.set(SMALL_BYTES + 1), Err(OverBudget::Node(8 * MIB)));
        assert_eq!(small.set(SMALL_BYTES), Ok(()));
        let others: Vec<Lease> = std::iter::repeat_with(|| budget.lease())
            .map_while(|mut lease| lease.set(SMALL_BYTES).ok().map(|()| lease))
            .collect();
        assert_eq!(others.len(), 7);
        assert_eq!(budget.taken(), 8 * MIB);
        assert_eq!(tiny.set(FREE_BYTES), Ok(()), "counted, and never refused");
        assert_eq!(tiny.set(FREE_BYTES + 1), Err(OverBudget::Node(8 * MIB)));
        assert_eq!(budget.taken(), 8 * MIB + FREE_BYTES);
        assert_eq!(greedy.set(5 * MIB), Ok(()), "what becomes smaller is never refused");
        drop((greedy, others, small, tiny));
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn threads_do_not_take_more_than_there_is() {
        let budget = budget(4 * MIB, 4 * MIB);
        let take_many = |budget: Arc<Budget>| {
            move || -> Vec<Lease> {
                let lease = |_| {
                    let mut lease = budget.lease();
                    lease.set(SMALL_BYTES).ok().map(|()| lease)
                };
                (0..100).filter_map(lease).collect()
            }
        };
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(take_many(budget.clone()))).collect();
        let leases: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("joined")).collect();
        assert!(budget.taken() <= 4 * MIB);
        drop(leases);
        assert_eq!(budget.taken(), 0);
    }
}
