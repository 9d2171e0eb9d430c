//! Counters and histograms, which each thread keeps for itself, and which are put together at the end.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest time that a histogram tells apart: ten minutes, in nanoseconds.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Makes an empty histogram of nanoseconds, exact to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds that are in range")
}

/// Adds a time to a histogram. Times beyond its range count as the longest.
#[inline]
pub fn note(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record(ns.max(1));
}

/// Counts of faults, and of events that may be faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Number of deliveries of records that had arrived already.
    pub duplicates: u64,
    /// Number of deliveries that arrived after a newer record of their source.
    pub out_of_order: u64,
    /// Number of payloads that differ from what was published.
    pub wrong: u64,
    /// Number of frames without a header of this run.
    pub foreign: u64,
    /// Number of messages that were due but could not be sent, not even while the run waited for missing
    /// deliveries.
    pub unsent: u64,
    /// Numbers of refused messages, by code.
    pub refused: BTreeMap<String, u64>,
    /// Numbers of connections lost during the run, by reason.
    pub closed: BTreeMap<String, u64>,
}

impl Faults {
    /// Adds the counts of another thread.
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

    /// Returns why connections were lost and messages refused, as text.
    pub fn reasons(&self) -> impl Iterator<Item = String> {
        [("connections lost", &self.closed), ("refused", &self.refused)].into_iter().flat_map(
            |(what, counts)| counts.iter().map(move |(why, count)| format!("{what}: {count} × {why}")),
        )
    }
}

/// The measurements of one thread.
pub struct Tally {
    /// Number of deliveries in all.
    pub delivered: u64,
    /// Number of bytes received.
    pub received_bytes: u64,
    /// Number of answers in all.
    pub acked: u64,
    /// Times from when a message was due until it was delivered, in nanoseconds, of the current second.
    pub latency: Histogram<u64>,
    /// Times from when a message was due until it was answered, in nanoseconds.
    pub ack_latency: Histogram<u64>,
    /// Times from when a message was due until it was written, in nanoseconds, where only the generator can be
    /// the cause.
    pub send_lag: Histogram<u64>,
    /// Counts of faults, and of events that may be faults.
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
