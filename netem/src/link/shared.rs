//! What the threads of all devices share: the devices, the counters, and the shapes.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use super::counts::Counters;
use super::shape::Shape;

/// What the threads of the devices share.
pub struct Shared {
    /// The devices, by node.
    pub(super) devices: Vec<File>,
    /// The counters, by the node that sends.
    pub(super) counters: Vec<Counters>,
    /// Raised by one whenever a shape changes.
    pub(super) generation: AtomicU64,
    /// Whether the threads are to end.
    pub(super) is_over: AtomicBool,
    /// The instant from which times count.
    pub(super) begin: Instant,
    /// The shapes, by sender and receiver.
    pub(super) shapes: Mutex<Vec<Vec<Shape>>>,
    /// The nodes by the addresses under which others reach them.
    pub(super) nodes: BTreeMap<Ipv4Addr, usize>,
    /// These addresses, by node.
    pub(super) outside: Vec<Ipv4Addr>,
    /// The addresses that nodes have themselves, where a router rewrites their packets.
    pub(super) inside: Vec<Option<Ipv4Addr>>,
}

impl Shared {
    pub(super) fn shapes_from(&self, from: usize) -> Vec<Shape> {
        self.shapes
            .lock()
            .map_or_else(|poisoned| poisoned.into_inner()[from].clone(), |all| all[from].clone())
    }

    pub(super) fn node_at(&self, address: Ipv4Addr) -> Option<usize> {
        self.nodes.get(&address).copied()
    }

    /// Returns the address that must stand in a packet of `node` in place of `sender`, if another must.
    pub(super) fn outside_of(&self, node: usize, sender: Ipv4Addr) -> Option<Ipv4Addr> {
        (self.inside[node] == Some(sender)).then(|| self.outside[node])
    }

    pub(super) fn inside_of(&self, node: usize) -> Option<Ipv4Addr> {
        self.inside[node]
    }
}
