//! The outcome of a run: figures computed from what the world counted.

use crate::sim::{Account, Distribution, NodeId, World};

/// Some quantiles of a distribution; all are 0 if it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Number of values.
    pub count: u64,
    /// The median: half of the values are at most this.
    pub p50: u64,
    /// Nine tenths of the values are at most this.
    pub p90: u64,
    /// 99 % of the values are at most this.
    pub p99: u64,
    /// 99.9 % of the values are at most this.
    pub p999: u64,
    /// The greatest value.
    pub max: u64,
}

impl Quantiles {
    /// Computes the quantiles of a distribution, to a hundredth.
    pub fn of(histogram: &Distribution) -> Quantiles {
        Quantiles {
            count: histogram.count(),
            p50: histogram.quantile(0.5),
            p90: histogram.quantile(0.9),
            p99: histogram.quantile(0.99),
            p999: histogram.quantile(0.999),
            max: histogram.max(),
        }
    }

    /// Computes the quantiles of sorted numbers, exactly. The q-quantile is the least number that at least
    /// the share q does not exceed.
    pub fn of_sorted(sorted: &[u32]) -> Quantiles {
        let at = |per_thousand: usize| quantile(sorted, per_thousand, 1_000);
        Quantiles {
            count: sorted.len() as u64,
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: at(1_000),
        }
    }
}

/// Returns the `part / of`-quantile of sorted numbers.
fn quantile(sorted: &[u32], part: usize, of: usize) -> u64 {
    let rank = (sorted.len() * part).div_ceil(of).max(1);
    sorted.get(rank - 1).map_or(0, |number| u64::from(*number))
}

/// The figures that were measured in a run, and the checks that failed. Two runs of a scenario with the same
/// seed have equal outcomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunOutcome {
    /// The scenario's name.
    pub scenario: String,
    /// The seed of the run.
    pub seed: u64,
    /// Number of nodes at the beginning.
    pub nodes: usize,
    /// Number of zones.
    pub zones: usize,
    /// Part of the datagrams that links lose without any fault, 0 to 1.
    pub loss: f64,
    /// Whether datagrams were lost in bursts.
    pub is_bursty: bool,
    /// Number of records that nodes accepted.
    pub records: u64,
    /// Number of records that were not accepted, because the node stood still or was too busy.
    pub refused: u64,
    /// Hand-overs that it took until a record reached a node down the tree.
    pub hops: Quantiles,
    /// Time from acceptance until a record was applied, at each node but the origin, in microseconds.
    pub time_us: Quantiles,
    /// Time from acceptance until a record was applied at the last node that it reached, in microseconds.
    pub last_us: Quantiles,
    /// Time by which each percent of all deliveries was done, in microseconds since acceptance.
    pub curve_us: Vec<u64>,
    /// Mean number of copies of a record that a node received which was to get it; 1 is the least.
    pub copies_mean: f64,
    /// Part of the bytes of records that were sent again, 0 to 1.
    pub resent_share: f64,
    /// Number of deliveries that a node had to ask for.
    pub repaired: u64,
    /// Number of deliveries by reconciliation.
    pub reconciled: u64,
    /// Bytes of records that the busiest node sent, divided by the mean over all nodes.
    pub busiest_over_mean: f64,
    /// Number of copies of each of its records that the only origin sent; 0 if there were several origins.
    pub origin_copies: f64,
    /// Mean number of copies of a record that datagrams brought into each other zone: 1 is the least, 0 if
    /// there is one zone.
    pub crossings_mean: f64,
    /// Number of pairs of a source and a node, running at the end, that lacks its newest accepted record.
    pub missing: u64,
    /// Part of `missing`: the record was accepted or once held by a node that runs at the end.
    pub unexplained_missing: u64,
    /// How long after the last record and fault all nodes were equal, in microseconds; `None`: not in time.
    pub converged_us: Option<u64>,
    /// Bytes sent in datagrams that are not records, per node and second, headers included.
    pub control_bytes_per_node_per_s: f64,
    /// Bytes sent in datagrams that are not records, per delivery.
    pub control_bytes_per_delivery: f64,
    /// All bytes sent, per node and second, headers of datagrams included.
    pub bytes_per_node_per_s: f64,
    /// Number of datagrams sent.
    pub datagrams: u64,
    /// The checks that failed, in words: the first few cases.
    pub violations: Vec<String>,
    /// Mean part of the members that a node did not know when the last record was published, 0 to 1.
    pub unknown_share: f64,
    /// Hash over everything that was delivered, and when.
    pub digest: u64,
    /// Length of the run, in virtual microseconds.
    pub virtual_us: u64,
}

impl RunOutcome {
    /// Returns whether no check failed.
    pub fn has_passed(&self) -> bool {
        self.unexplained_missing == 0 && self.violations.is_empty() && self.converged_us.is_some()
    }

    /// Returns the checks that failed, in one line; `None` if none did.
    pub fn failure(&self) -> Option<String> {
        let mut reasons = self.violations.clone();
        if self.unexplained_missing > 0 {
            reasons.push(format!("{} records are missing without a reason", self.unexplained_missing));
        }
        if self.converged_us.is_none() {
            reasons.push("the nodes were not equal in time".into());
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// The counts of a run that the world does not keep.
#[derive(Debug, Default)]
pub(super) struct RunCounts {
    /// Number of records accepted.
    pub records: u64,
    /// Number of records that were not accepted.
    pub refused: u64,
    /// Number of deliveries that were to be: for every record, the nodes that ran except its origin.
    pub wanted: u64,
    /// Part of all pairs of nodes of which one did not know the other at the last record.
    pub unknown_share: f64,
    /// The only node that accepted records, if there was only one.
    pub origin: Option<NodeId>,
}

/// Completes an outcome by what the world counted since `start_us`, when the nodes' account was `before`.
pub(super) fn measure(
    outcome: RunOutcome,
    world: &World,
    tally: &RunCounts,
    before: &Account,
    start_us: u64,
) -> RunOutcome {
    let deliveries = &world.deliveries;
    let times = deliveries.all_times();
    let account = world.accounts().since(before);
    let lasts = deliveries.publications().iter().filter(|it| it.is_published && it.applied_total() > 0);
    let mut lasts: Vec<u32> = lasts.map(|it| it.last_us).collect();
    lasts.sort_unstable();
    let count = |way: usize| deliveries.publications().iter().map(|it| u64::from(it.applied[way])).sum();
    let node_seconds = (world.now_us() - start_us).max(1) as f64 / 1e6 * outcome.nodes.max(1) as f64;
    RunOutcome {
        records: tally.records,
        refused: tally.refused,
        hops: Quantiles::of(deliveries.hops()),
        time_us: Quantiles::of(&times),
        last_us: Quantiles::of_sorted(&lasts),
        curve_us: (1..=100).map(|percent| times.quantile(f64::from(percent) / 100.0)).collect(),
        copies_mean: ratio(account.copies_received, tally.wanted),
        resent_share: ratio(account.resent_bytes, account.record_bytes()),
        repaired: count(1),
        reconciled: count(2),
        busiest_over_mean: busiest_over_mean(world, tally.origin),
        origin_copies: origin_copies(world, tally),
        crossings_mean: ratio(world.crossings(), tally.records * (outcome.zones.max(1) as u64 - 1)),
        control_bytes_per_node_per_s: account.control_bytes() as f64 / node_seconds,
        control_bytes_per_delivery: ratio(account.control_bytes(), times.count()),
        bytes_per_node_per_s: (account.bytes_sent + account.stream_bytes) as f64 / node_seconds,
        datagrams: account.datagrams_sent,
        unknown_share: tally.unknown_share,
        digest: world.digest(),
        virtual_us: world.now_us(),
        ..outcome
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn record_bytes(world: &World, node: usize) -> u64 {
    world.account(NodeId(node)).record_bytes()
}

/// Returns the bytes of records that the busiest node sent, divided by the mean over all nodes. An only
/// origin does not count as the busiest.
fn busiest_over_mean(world: &World, origin: Option<NodeId>) -> f64 {
    let nodes = world.nodes();
    let sum: u64 = (0..nodes).map(|node| record_bytes(world, node)).sum();
    let relays = (0..nodes).filter(|node| Some(NodeId(*node)) != origin);
    let most = relays.map(|node| record_bytes(world, node)).max().unwrap_or(0);
    ratio(most * nodes as u64, sum)
}

/// Returns how many copies of each of its records the only origin sent; 0 if there are several origins. A
/// copy is taken to be as large as the mean copy.
fn origin_copies(world: &World, tally: &RunCounts) -> f64 {
    let Some(origin) = tally.origin else { return 0.0 };
    let accounts = world.accounts();
    let copy_bytes = ratio(accounts.data_bytes + accounts.body_bytes, tally.wanted);
    record_bytes(world, origin.0) as f64 / (copy_bytes * tally.records.max(1) as f64).max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_members_of_what_they_are_of() {
        assert_eq!(Quantiles::of_sorted(&[]), Quantiles::default());
        let hundred: Vec<u32> = (1..=100).collect();
        let of = Quantiles::of_sorted(&hundred);
        assert_eq!((of.p50, of.p90, of.p99, of.p999, of.max), (50, 90, 99, 100, 100));
        assert_eq!(Quantiles::of_sorted(&[7]).p50, 7);
    }
}
