//! What the cluster needs: bytes on the wire and memory.

use std::collections::BTreeMap;

/// Bytes on the wire, and the memory of each node's process.
#[derive(Debug, Default)]
pub(super) struct Costs {
    wire_bytes: u64,
    memory: BTreeMap<u32, MemoryUse>,
}

/// Memory of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemoryUse {
    /// Greatest resident memory, in bytes.
    pub(super) bytes_max: u64,
    /// Time at which it was so, in microseconds.
    pub(super) at_us: u64,
}

impl Costs {
    /// Notes the bytes that all nodes have sent each other so far.
    pub(super) fn handle_wire(&mut self, bytes: u64) {
        self.wire_bytes = self.wire_bytes.max(bytes);
    }

    /// Notes the memory of a node.
    pub(super) fn handle_memory(&mut self, at_us: u64, node: u32, bytes: u64) {
        let memory = self.memory.entry(node).or_default();
        if bytes > memory.bytes_max {
            *memory = MemoryUse { bytes_max: bytes, at_us };
        }
    }

    /// Bytes on the wire.
    pub(super) fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }

    /// The memory of each node.
    pub(super) fn memory(&self) -> impl Iterator<Item = (u32, MemoryUse)> {
        self.memory.iter().map(|(node, memory)| (*node, *memory))
    }
}
