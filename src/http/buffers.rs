//! The memory that one connection holds in hyper, and that of the bytes which came with it.
//!
//! hyper reads into a buffer that it makes larger when a read fills it, and copies what it is to send into another,
//! unless it can hand several pieces to the socket at once. [`super::stream`] gives it at most [`READ_BYTES_MAX`] at
//! a time and takes several pieces at once, so the buffers stay as small as they are at first. Only a long head, which
//! is kept whole, makes the buffer larger.
//!
//! This memory is counted and never refused, because it is bounded by the number of connections, which together may
//! hold no more than a quarter of the memory for clients ([`connections_max`]).

use crate::limits::REQUEST_HEAD_BYTES_MAX;
use crate::memory::{Budget, Lease};

/// Number of connections that are served at a time, whatever memory there is.
const CONNECTIONS_CEILING: u32 = 1_024;
/// Number of connections that are served at a time even if they may use up more than a quarter of a small memory.
const CONNECTIONS_FLOOR: u32 = 32;
/// Most bytes that hyper is given at a time: one less than its first buffer has. When a read fills its buffer, it
/// makes the buffer larger.
pub(super) const READ_BYTES_MAX: usize = 8 * 1024 - 1;
/// Memory of every connection, in bytes: hyper's buffers for reading and for heads of answers and a piece of a body that
/// it passes on, of 8 KiB each, and the objects of the connection, which are less than 4 KiB.
const CONNECTION_BYTES: usize = 28 * 1024;
/// Memory that a head needs in addition if it does not come in one read, in bytes: hyper doubles its buffer until the head
/// fits.
const LONG_HEAD_BYTES: usize = 2 * REQUEST_HEAD_BYTES_MAX;
/// Most memory of one connection, in bytes, with the head that came with it.
const CONNECTION_BYTES_MAX: usize = CONNECTION_BYTES + LONG_HEAD_BYTES + REQUEST_HEAD_BYTES_MAX;

/// Returns how many connections may be served at a time: as many as find room in a quarter of the memory for clients,
/// with layers of at most `layer_bytes_max` bytes each.
pub(super) fn connections_max(memory: &Budget, layer_bytes_max: usize) -> u32 {
    let room = memory.limit() / 4 / (CONNECTION_BYTES_MAX + layer_bytes_max);
    u32::try_from(room).unwrap_or(u32::MAX).clamp(CONNECTIONS_FLOOR, CONNECTIONS_CEILING)
}

/// The count of one connection's memory.
#[derive(Debug)]
pub(super) struct ConnectionMemory {
    lease: Lease,
    /// Bytes that came with the connection and were not taken yet, with the memory around them.
    handed: usize,
    /// Bytes that were read of the head of the present request.
    head: usize,
    /// Most bytes of the layer below.
    layer: usize,
}

impl ConnectionMemory {
    /// Begins to count a connection that comes with `handed` bytes of memory in which its first request stands, and
    /// whose layer needs at most `layer` bytes.
    pub(super) fn new(lease: Lease, handed: usize, layer: usize) -> ConnectionMemory {
        let mut memory = ConnectionMemory { lease, handed, head: 0, layer };
        memory.count();
        memory
    }

    /// Notes that hyper was given bytes of a head.
    pub(super) fn handle_head(&mut self, bytes: usize) {
        let was_long = self.is_long();
        self.head = self.head.saturating_add(bytes);
        if self.is_long() != was_long {
            self.count();
        }
    }

    /// Notes that what came with the connection was taken.
    pub(super) fn handle_handed_taken(&mut self) {
        self.handed = 0;
        self.count();
    }

    /// Notes that the answer to the request has left.
    pub(super) fn handle_answered(&mut self) {
        let was_long = self.is_long();
        self.head = 0;
        if was_long {
            self.count();
        }
    }

    fn is_long(&self) -> bool {
        self.head > READ_BYTES_MAX
    }

    fn count(&mut self) {
        let long = if self.is_long() { LONG_HEAD_BYTES } else { 0 };
        // A holder of nothing is never refused: the memory is held already.
        let _ = self.lease.resize(CONNECTION_BYTES + self.layer + self.handed + long, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn connections_get_a_quarter_of_the_memory() {
        let most = |mib: usize| connections_max(&Budget::new(mib * MIB, MIB), 0);
        assert_eq!([0, 8, 64, 256, 512, 4096].map(most), [32, 32, 215, 862, 1_024, 1_024]);
        assert_eq!(connections_max(&Budget::new(256 * MIB, MIB), CONNECTION_BYTES_MAX), 431);
    }

    #[test]
    fn a_long_head_counts_until_its_request_is_answered() {
        let budget = Arc::new(Budget::new(MIB, MIB));
        let mut memory = ConnectionMemory::new(budget.lease(), 1_000, 0);
        assert_eq!(budget.taken(), 29_672);
        memory.handle_handed_taken();
        memory.handle_head(8_191);
        assert_eq!(budget.taken(), 28_672);
        memory.handle_head(1);
        assert_eq!(budget.taken(), 61_440);
        memory.handle_answered();
        assert_eq!(budget.taken(), 28_672);
        drop(memory);
        assert_eq!(budget.taken(), 0);
        assert_eq!(ConnectionMemory::new(budget.lease(), 0, 7).lease.bytes(), 28_679);
    }
}
