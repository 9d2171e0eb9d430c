//! Counters of what the links did, and the judgement whether the links themselves were too slow.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// How late a packet may arrive after its due time before it counts as late.
pub const LATE_NS: u64 = 5_000_000;
/// Part of the packets that may be late until the link is called the bottleneck.
const LATE_PART_MAX: f64 = 0.01;
/// Part of the time that a thread may work until it is called the bottleneck.
const BUSY_PART_MAX: f64 = 0.9;

/// Counters of everything that left one node, written by the thread of its device.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets that came from the node.
    pub packets: AtomicU64,
    /// Bytes of these packets.
    pub bytes: AtomicU64,
    /// Packets that were dropped because the link was cut.
    pub cut: AtomicU64,
    /// Packets that were lost by chance.
    pub lost: AtomicU64,
    /// Packets that were dropped because too much waited for the rate.
    pub queue_full: AtomicU64,
    /// Packets that came twice.
    pub duplicated: AtomicU64,
    /// Packets that were changed.
    pub corrupted: AtomicU64,
    /// Packets to addresses that no node has.
    pub strange: AtomicU64,
    /// Packets that were delivered.
    pub delivered: AtomicU64,
    /// Packets that the device of the receiver did not take.
    pub refused: AtomicU64,
    /// Packets that were delivered later than they were due by more than [`LATE_NS`].
    pub late: AtomicU64,
    /// Nanoseconds in which the thread worked.
    pub busy_ns: AtomicU64,
}

/// The counts of all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Totals {
    /// Packets that came from nodes.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
    /// Packets that were dropped at cut links.
    pub cut: u64,
    /// Packets that were lost by chance.
    pub lost: u64,
    /// Packets for which the queue of a link with a rate was full.
    pub queue_full: u64,
    /// Packets that came twice.
    pub duplicated: u64,
    /// Packets that were changed.
    pub corrupted: u64,
    /// Packets that were delivered.
    pub delivered: u64,
    /// Packets that devices of receivers did not take.
    pub refused: u64,
    /// Packets that were delivered too late.
    pub late: u64,
    /// Greatest part of the time in which a thread worked, 0 to 1.
    pub busiest: f64,
}

/// Adds one to a counter.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Totals {
    /// Adds the counters of one node, whose thread ran for `ran_ns`.
    pub fn add(&mut self, of: &Counters, ran_ns: u64) {
        self.packets += of.packets.load(Relaxed);
        self.bytes += of.bytes.load(Relaxed);
        self.cut += of.cut.load(Relaxed);
        self.lost += of.lost.load(Relaxed);
        self.queue_full += of.queue_full.load(Relaxed);
        self.duplicated += of.duplicated.load(Relaxed);
        self.corrupted += of.corrupted.load(Relaxed);
        self.delivered += of.delivered.load(Relaxed);
        self.refused += of.refused.load(Relaxed);
        self.late += of.late.load(Relaxed);
        let busy = of.busy_ns.load(Relaxed) as f64 / ran_ns.max(1) as f64;
        self.busiest = self.busiest.max(busy);
    }

    /// Says why the links were slower than the profile wants, if they were.
    pub fn bottleneck(&self) -> Option<String> {
        let late = self.late as f64 / self.delivered.max(1) as f64;
        if self.busiest > BUSY_PART_MAX {
            return Some(format!("a thread of the links worked {:.0} % of the time", self.busiest * 100.0));
        }
        (late > LATE_PART_MAX).then(|| {
            format!("{:.1} % of the packets arrived more than {} ms late", late * 100.0, LATE_NS / 1_000_000)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_and_late_packets_are_told() {
        let counters = Counters::default();
        counters.delivered.store(1_000, Relaxed);
        counters.late.store(5, Relaxed);
        counters.busy_ns.store(500, Relaxed);
        let mut totals = Totals::default();
        totals.add(&counters, 1_000);
        assert_eq!(totals.bottleneck(), None);
        totals.add(&counters, 520);
        assert!(totals.bottleneck().is_some_and(|why| why.contains("96 %")));
        let late = Totals { late: 20, delivered: 1_000, ..Totals::default() };
        assert!(late.bottleneck().is_some_and(|why| why.contains("2.0 %")));
    }
}
