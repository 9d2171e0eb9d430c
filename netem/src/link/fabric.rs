//! The links between all nodes of a run, in user space.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use anode_loadgen::Outcome;

use super::counts::{Counters, Totals};
use super::pump::Pump;
use super::shape::Shape;

/// A place at which packets enter and leave the links: a node, or the clients.
pub struct Endpoint {
    /// The TUN device.
    pub device: File,
    /// The address under which others reach it.
    pub address: Ipv4Addr,
    /// The address that it has itself, if a router rewrites its packets.
    pub inside: Option<Ipv4Addr>,
}

/// What the threads of the devices share.
pub struct Shared {
    /// The devices, by node.
    pub(super) devices: Vec<File>,
    /// The counters, by the node that sends.
    pub(super) counters: Vec<Counters>,
    /// Raised by one whenever a shape changes.
    pub(super) generation: AtomicU64,
    pub(super) is_over: AtomicBool,
    pub(super) begin: Instant,
    /// The shapes, by sender and receiver.
    shapes: Mutex<Vec<Vec<Shape>>>,
    nodes: BTreeMap<Ipv4Addr, usize>,
    outside: Vec<Ipv4Addr>,
    inside: Vec<Option<Ipv4Addr>>,
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

/// The links, with a thread for each device. They end when this is dropped.
pub struct Fabric {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Fabric {
    /// Starts links that are perfect until [`Fabric::set`] is called.
    pub fn start(endpoints: Vec<Endpoint>, seed: u64) -> Outcome<Fabric> {
        let count = endpoints.len();
        let outside: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        let shared = Arc::new(Shared {
            nodes: outside.iter().copied().zip(0..).collect(),
            inside: endpoints.iter().map(|endpoint| endpoint.inside).collect(),
            devices: endpoints.into_iter().map(|endpoint| endpoint.device).collect(),
            outside,
            counters: (0..count).map(|_| Counters::default()).collect(),
            generation: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            begin: Instant::now(),
            shapes: Mutex::new(vec![vec![Shape::default(); count]; count]),
        });
        let mut fabric = Fabric { shared: shared.clone(), threads: Vec::new() };
        for from in 0..count {
            let pump = Pump::new(shared.clone(), from, seed);
            fabric
                .threads
                .push(std::thread::Builder::new().name(format!("link-{from}")).spawn(|| pump.run())?);
        }
        Ok(fabric)
    }

    /// Gives the links new shapes, by sender and receiver. Packets on their way keep their fate.
    pub fn set(&self, shapes: Vec<Vec<Shape>>) {
        if let Ok(mut all) = self.shared.shapes.lock()
            && *all != shapes
        {
            *all = shapes;
            self.shared.generation.fetch_add(1, Release);
        }
    }

    /// Returns the counts of all links so far.
    pub fn totals(&self) -> Totals {
        let ran_ns = self.shared.begin.elapsed().as_nanos() as u64;
        let mut totals = Totals::default();
        self.shared.counters.iter().for_each(|counters| totals.add(counters, ran_ns));
        totals
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so, and the others must still end.
            let _ = thread.join();
        }
    }
}
