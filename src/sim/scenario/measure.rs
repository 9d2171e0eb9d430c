//! What a run comes to.

use crate::sim::{Account, Distribution, NodeId, World};

/// A distribution: some of its quantiles. Of nothing, all are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// How many there were.
    pub count: u64,
    /// Half are at most this.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// 99 of a hundred.
    pub p99: u64,
    /// 999 of a thousand.
    pub p999: u64,
    /// All.
    pub max: u64,
}

impl Quantiles {
    /// Of what was counted, to a hundredth.
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

    /// Of sorted numbers. The q-quantile is the least one that at least the share q does not exceed.
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

/// The `part / of`-quantile of sorted numbers.
fn quantile(sorted: &[u32], part: usize, of: usize) -> u64 {
    let rank = (sorted.len() * part).div_ceil(of).max(1);
    sorted.get(rank - 1).map_or(0, |number| u64::from(*number))
}

/// What was measured in a run, and what did not hold.
///
/// Two outcomes of the same scenario and seed are equal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunOutcome {
    /// Which scenario.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Zones.
    pub zones: usize,
    /// Datagrams lost by the links' nature, 0 to 1.
    pub loss: f64,
    /// Whether they were lost in bursts.
    pub is_bursty: bool,
    /// Records that nodes accepted.
    pub records: u64,
    /// Records that the node which was to accept them did not: it stood still, or was too busy.
    pub refused: u64,
    /// Hand-overs to each node that a record reached down the tree.
    pub hops: Quantiles,
    /// Accepted to applied, at each node but the origin, in microseconds.
    pub time_us: Quantiles,
    /// Accepted to applied at the last of the nodes that it reached, a record, in microseconds.
    pub last_us: Quantiles,
    /// How the share of nodes reached grows: the time by which each percent of all deliveries was done.
    pub curve_us: Vec<u64>,
    /// Copies of a record that a node which was to get it received: 1 is the least.
    pub copies_mean: f64,
    /// Of the bytes of records sent, the part sent again.
    pub resent_share: f64,
    /// Deliveries that a node had to ask for.
    pub repaired: u64,
    /// Deliveries by reconciliation.
    pub reconciled: u64,
    /// What the node that sent most sent, of what nodes sent in the mean.
    pub busiest_over_mean: f64,
    /// Bytes of records the origin that published most sent, in copies of what it published.
    pub origin_copies: f64,
    /// Copies of a record that datagrams brought from one zone into another, for every other zone: 1 is
    /// the least, 0 if there is one zone.
    pub crossings_mean: f64,
    /// Newest records of their source that a node which runs at the end does not hold.
    pub missing: u64,
    /// The same, of those that a node which runs at the end accepted or once held.
    pub unexplained_missing: u64,
    /// How long after the last record and fault all were equal, in microseconds; `None`: not in time.
    pub converged_us: Option<u64>,
    /// Bytes that are no records, a node and second, headers of datagrams included.
    pub control_bytes_per_node_per_s: f64,
    /// The same for each delivery, in bytes.
    pub control_bytes_per_delivery: f64,
    /// All bytes sent, a node and second, headers of datagrams included.
    pub bytes_per_node_per_s: f64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// What did not hold, in words; the first few.
    pub violations: Vec<String>,
    /// Members that a node does not know of when the last record is published, of all, in the mean.
    pub unknown_share: f64,
    /// Hash of everything that was delivered, and when.
    pub digest: u64,
    /// How long the run was, in virtual microseconds.
    pub virtual_us: u64,
}

impl RunOutcome {
    /// Whether everything held.
    pub fn has_passed(&self) -> bool {
        self.unexplained_missing == 0 && self.violations.is_empty() && self.converged_us.is_some()
    }

    /// Why it has not, in a line.
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

/// What the run itself counted.
#[derive(Debug, Default)]
pub(super) struct RunCounts {
    /// Records accepted.
    pub records: u64,
    /// Records that a node was too busy for.
    pub refused: u64,
    /// Deliveries there were to be: for every record, the nodes that ran but its origin.
    pub wanted: u64,
    /// Members unknown to nodes at the last record, in parts of all pairs.
    pub unknown_share: f64,
    /// The only node that published, if there was only one.
    pub origin: Option<NodeId>,
}

/// Fills in what the world counted since `start_us`, when what was sent was `before`.
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
    let data_bytes = account.data_bytes + account.resent_bytes;
    RunOutcome {
        records: tally.records,
        refused: tally.refused,
        hops: Quantiles::of(deliveries.hops()),
        time_us: Quantiles::of(&times),
        last_us: Quantiles::of_sorted(&lasts),
        curve_us: (1..=100).map(|percent| times.quantile(f64::from(percent) / 100.0)).collect(),
        copies_mean: ratio(account.copies_received, tally.wanted),
        resent_share: ratio(account.resent_bytes, data_bytes),
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

fn data_bytes(world: &World, node: usize) -> u64 {
    let account = world.account(NodeId(node));
    account.data_bytes + account.resent_bytes
}

/// Bytes of records that the busiest node sent, but for the only origin if there is one; of what all
/// sent in the mean.
fn busiest_over_mean(world: &World, origin: Option<NodeId>) -> f64 {
    let nodes = world.nodes();
    let sum: u64 = (0..nodes).map(|node| data_bytes(world, node)).sum();
    let relays = (0..nodes).filter(|node| Some(NodeId(*node)) != origin);
    let most = relays.map(|node| data_bytes(world, node)).max().unwrap_or(0);
    ratio(most * nodes as u64, sum)
}

/// How many copies of each of its records the only origin sent; 0 if there are several. A copy is as
/// large as copies are in the mean.
fn origin_copies(world: &World, tally: &RunCounts) -> f64 {
    let Some(origin) = tally.origin else { return 0.0 };
    let copy_bytes = ratio(world.accounts().data_bytes, tally.wanted);
    data_bytes(world, origin.0) as f64 / (copy_bytes * tally.records.max(1) as f64).max(1e-9)
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
