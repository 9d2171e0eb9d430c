//! Counters and histograms, kept by each thread for itself and joined at the end.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest time that is told apart, ten minutes.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// A histogram of nanoseconds, exact to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds that are in range")
}

/// Notes a time, at most the longest.
#[inline]
pub fn note(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record(ns.max(1));
}

/// What went wrong, or may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Deliveries of what had come already.
    pub duplicates: u64,
    /// Deliveries after a newer one of their source.
    pub out_of_order: u64,
    /// Payloads that are not what was published.
    pub wrong: u64,
    /// Frames without a header of this run.
    pub foreign: u64,
    /// Messages that were due but could not be sent before the end, nor while missing ones were waited for.
    pub unsent: u64,
    /// Refused messages by code.
    pub refused: BTreeMap<String, u64>,
    /// Connections lost while running, by reason.
    pub closed: BTreeMap<String, u64>,
}

impl Faults {
    /// Adds another thread's.
    pub fn add(&mut self, other: Faults) {
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.wrong += other.wrong;
        self.foreign += other.foreign;
        self.unsent += other.unsent;
        for (code, count) in other.refused {
            *self.refused.entry(code).or_default() += count;
        }
        for (reason, count) in other.closed {
            *self.closed.entry(reason).or_default() += count;
        }
    }

    /// Why messages were refused and connections lost, for people.
    pub fn reasons(&self) -> impl Iterator<Item = String> {
        [("connections lost", &self.closed), ("refused", &self.refused)].into_iter().flat_map(
            |(what, counts)| counts.iter().map(move |(why, count)| format!("{what}: {count} × {why}")),
        )
    }
}

/// What one thread measured.
pub struct Tally {
    /// Deliveries in all.
    pub delivered: u64,
    /// Bytes that came.
    pub received_bytes: u64,
    /// Answers in all.
    pub acked: u64,
    /// From due to delivered, of the current second.
    pub latency: Histogram<u64>,
    /// From due to answered.
    pub ack_latency: Histogram<u64>,
    /// From due to written, where nothing but the generator can be to blame.
    pub send_lag: Histogram<u64>,
    /// What went wrong.
    pub faults: Faults,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            delivered: 0,
            received_bytes: 0,
            acked: 0,
            latency: histogram(),
            ack_latency: histogram(),
            send_lag: histogram(),
            faults: Faults::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A search said that nothing was delivered, and not that the node had closed its subscriber.
    #[test]
    fn a_lost_connection_is_told_before_what_it_explains() {
        let closed = BTreeMap::from([("closed 4202".to_owned(), 1)]);
        let refused = BTreeMap::from([("overloaded".to_owned(), 7)]);
        let faults = Faults { closed, refused, ..Faults::default() };
        let reasons: Vec<String> = faults.reasons().collect();
        assert_eq!(reasons, ["connections lost: 1 × closed 4202", "refused: 7 × overloaded"]);
        assert_eq!(Faults::default().reasons().next(), None);
    }
}
