//! The links between all nodes of a run, in user space.

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
use super::shared::Shared;

/// A place at which packets enter and leave the links: a node, or the clients.
pub struct Endpoint {
    /// The TUN device.
    pub device: File,
    /// The address under which others reach it.
    pub address: Ipv4Addr,
    /// The address that it has itself, if a router rewrites its packets.
    pub inside: Option<Ipv4Addr>,
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
