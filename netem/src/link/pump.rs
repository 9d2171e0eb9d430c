//! The thread of one TUN device: reads what its node sends, keeps packets until they are due, and writes them to the
//! devices of their receivers. It shares nothing with the other threads but the shapes and the devices.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::counts::{Counters, LATE_NS, count};
use super::packet;
use super::path::{Copy, Fate, Path};
use super::shape::Shape;
use super::shared::Shared;

/// Largest packet that is read; the devices' largest packets are smaller.
const PACKET_BYTES_MAX: usize = 2_048;
/// Packets that are read before those that are due are delivered.
const READ_PER_TURN: usize = 64;
/// Most packets of one node that are on their way. Further ones are dropped, as a full queue does.
const WAITING_MAX: usize = 50_000;
/// How long the thread sleeps at most, so that it sees that it is to end.
const SLEEP_NS_MAX: u64 = 50_000_000;

/// A packet on its way: due time, order of arrival, receiver, bytes.
type Waiting = Reverse<(u64, u64, usize, Vec<u8>)>;

/// The state of the thread of one device.
pub struct Pump {
    shared: Arc<Shared>,
    from: usize,
    paths: Vec<Path>,
    shapes: Vec<Shape>,
    generation: u64,
    waiting: BinaryHeap<Waiting>,
    spare: Vec<Vec<u8>>,
    order: u64,
    begin: Instant,
}

impl Pump {
    /// Makes the pump of node `from`.
    pub fn new(shared: Arc<Shared>, from: usize, seed: u64) -> Pump {
        let nodes = shared.devices.len();
        Pump {
            paths: (0..nodes).map(|to| Path::new(seed, from, to)).collect(),
            shapes: shared.shapes_from(from),
            generation: 0,
            waiting: BinaryHeap::new(),
            spare: Vec::new(),
            order: 0,
            begin: shared.begin,
            shared,
            from,
        }
    }

    /// Carries packets until the fabric ends.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        let device = &shared.devices[self.from];
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while !shared.is_over.load(Relaxed) {
            self.sleep(device);
            let woke = Instant::now();
            self.refresh();
            for _ in 0..READ_PER_TURN {
                let Some(bytes) = read(device, &mut buffer) else { break };
                self.take(&mut buffer[..bytes]);
            }
            self.deliver_due();
            let busy = woke.elapsed().as_nanos() as u64;
            self.counters().busy_ns.fetch_add(busy, Relaxed);
        }
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters[self.from]
    }

    fn now_ns(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn sleep(&self, device: &File) {
        let due = self.waiting.peek().map_or(u64::MAX, |Reverse((at_ns, ..))| *at_ns);
        let left_ns = due.saturating_sub(self.now_ns()).min(SLEEP_NS_MAX);
        let time = Timespec { tv_sec: 0, tv_nsec: left_ns as _ };
        // A failed wait, such as one that a signal ended, only means that the thread looks earlier.
        let _ = poll(&mut [PollFd::new(device, PollFlags::IN)], Some(&time));
    }

    fn refresh(&mut self) {
        let generation = self.shared.generation.load(Acquire);
        if generation != self.generation {
            self.generation = generation;
            self.shapes = self.shared.shapes_from(self.from);
        }
    }

    fn take(&mut self, bytes: &mut [u8]) {
        let counters = &self.shared.counters[self.from];
        let Some((sender, receiver)) = packet::addresses(bytes) else { return };
        let Some(to) = self.shared.node_at(receiver).filter(|to| *to != self.from) else {
            return count(&counters.strange);
        };
        // Behind a router that rewrites addresses, nobody may see the address inside.
        let outside = self.shared.outside_of(self.from, sender);
        let inside = self.shared.inside_of(to);
        if outside.is_some() || inside.is_some() {
            packet::rewrite(bytes, outside, inside);
        }
        count(&counters.packets);
        counters.bytes.fetch_add(bytes.len() as u64, Relaxed);
        let now_ns = self.begin.elapsed().as_nanos() as u64;
        match self.paths[to].judge(&self.shapes[to], now_ns, bytes.len()) {
            Fate::Cut => count(&counters.cut),
            Fate::Lost => count(&counters.lost),
            Fate::QueueFull => count(&counters.queue_full),
            Fate::Arrives(first, twin) => {
                if let Some(twin) = twin {
                    count(&counters.duplicated);
                    self.pass(to, twin, now_ns, &mut bytes.to_vec());
                }
                self.pass(to, first, now_ns, bytes);
            }
        }
    }

    fn pass(&mut self, to: usize, copy: Copy, now_ns: u64, bytes: &mut [u8]) {
        let counters = &self.shared.counters[self.from];
        if copy.is_corrupt && packet::corrupt(bytes, self.paths[to].random()) {
            count(&counters.corrupted);
        }
        if copy.at_ns <= now_ns {
            return self.write(to, bytes);
        }
        if self.waiting.len() >= WAITING_MAX {
            return count(&counters.queue_full);
        }
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(bytes);
        self.order += 1;
        self.waiting.push(Reverse((copy.at_ns, self.order, to, kept)));
    }

    fn deliver_due(&mut self) {
        let now_ns = self.now_ns();
        while self.waiting.peek().is_some_and(|Reverse((at_ns, ..))| *at_ns <= now_ns) {
            let Some(Reverse((at_ns, _, to, bytes))) = self.waiting.pop() else { return };
            if now_ns - at_ns > LATE_NS {
                count(&self.counters().late);
            }
            self.write(to, &bytes);
            self.spare.push(bytes);
        }
    }

    fn write(&self, to: usize, bytes: &[u8]) {
        let counters = self.counters();
        match (&self.shared.devices[to]).write(bytes) {
            // The device takes a packet as a whole or not at all.
            Ok(written) if written == bytes.len() => count(&counters.delivered),
            Ok(_) | Err(_) => count(&counters.refused),
        }
    }
}

/// Reads one packet, if there is one.
fn read(mut device: &File, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match device.read(buffer) {
            Ok(bytes) => return Some(bytes).filter(|bytes| *bytes > 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}
