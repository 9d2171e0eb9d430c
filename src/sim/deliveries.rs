//! Keeps which records were accepted, where they arrived, and which arrivals broke a rule.
//!
//! Nodes that are called side by side read what was accepted ([`AcceptedRecords`]); their findings about
//! records that arrive ([`Noted`]) are written down here afterwards, in order. A delivery costs no more
//! memory than a count, unless the time of every delivery is asked for.

use std::sync::Arc;

use super::accepted::{AcceptedRecords, Noted, Rule};
use super::distribution::Distribution;
use super::place::NodeId;
use crate::cluster::Arrival;
use crate::record::SharedRecord;

/// Greatest number of hand-overs that is counted: deliveries that took more count as this many.
const HOPS_MAX: usize = 64;
/// Number of violations that are kept to be shown: the first ones.
const VIOLATIONS_MAX: usize = 100;

/// A delivery that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Time of the delivery, in microseconds of the world.
    pub at_us: u64,
    /// The node at which the record arrived.
    pub node: NodeId,
    /// The rule that was broken.
    pub rule: Rule,
    /// The record, as text: source, origin, boot and number.
    pub record: String,
}

/// The deliveries of one accepted record. Unless stated otherwise, times count from its acceptance.
#[derive(Clone, Debug)]
pub struct Publication {
    /// When the record was accepted, in microseconds of the world.
    pub accepted_us: u64,
    /// Whether a client published the record; otherwise a node held it when it was started.
    pub is_published: bool,
    /// Number of nodes at which the record became the latest of its source: by the tree, by repair, and by
    /// reconciliation. A node that restarted empty counts once for each life.
    pub applied: [u32; 3],
    /// Number of times that the record arrived at a node that held it, or a newer one, already.
    pub stale: u32,
    /// Time at which the record became the latest at the last node so far, in microseconds.
    pub last_us: u32,
    /// Most hand-overs on the way of the record to any node.
    pub hops_max: u32,
    /// Times at which the record became the latest at each node, in microseconds, ascending; empty unless the
    /// times of all deliveries are kept.
    pub times_us: Vec<u32>,
}

impl Publication {
    /// Returns the number of deliveries of all kinds.
    pub fn applied_total(&self) -> u32 {
        self.applied.iter().sum()
    }
}

/// All accepted records and their deliveries.
#[derive(Debug, Default)]
pub struct Deliveries {
    pub(super) accepted: Arc<AcceptedRecords>,
    publications: Vec<Publication>,
    times: [Distribution; 3],
    hops: Distribution,
    keeps_times: bool,
    violations: Vec<Violation>,
}

impl Deliveries {
    /// Sets whether the time of every single delivery is kept from now on: four bytes each.
    #[cfg(test)]
    pub fn keep_times(&mut self, keeps: bool) {
        self.keeps_times = keeps;
    }

    /// Returns all records, in the order in which they were accepted or loaded.
    pub fn publications(&self) -> &[Publication] {
        &self.publications
    }

    /// Returns the times of all deliveries, in microseconds since acceptance.
    pub fn all_times(&self) -> Distribution {
        let mut all = Distribution::default();
        self.times.iter().for_each(|times| all.merge(times));
        all
    }

    /// Returns the hand-overs that each delivery by the tree took.
    pub fn hops(&self) -> &Distribution {
        &self.hops
    }

    /// Returns the deliveries that broke a rule, the first hundred.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Notes a record that a node accepted from a client, or that it held when it was started.
    pub(super) fn accept(&mut self, at_us: u64, record: &SharedRecord, is_published: bool) {
        if self.accepted.find(record).is_some() {
            return;
        }
        Arc::make_mut(&mut self.accepted).add(record.clone(), at_us);
        self.publications.push(Publication {
            accepted_us: at_us,
            is_published,
            applied: [0; 3],
            stale: 0,
            last_us: 0,
            hops_max: 0,
            times_us: Vec::new(),
        });
    }

    /// Writes down the finding of a node about a record that arrived.
    pub(super) fn note(&mut self, node: NodeId, noted: Noted) {
        match noted {
            Noted::Applied { index, at_us, arrival } => self.applied(index as usize, at_us, arrival),
            Noted::Stale { index } => {
                if let Some(publication) = self.publications.get_mut(index as usize) {
                    publication.stale += 1;
                }
            }
            Noted::Broken { rule, at_us, record } => self.violate(at_us, node, rule, &record),
        }
    }

    fn violate(&mut self, at_us: u64, node: NodeId, rule: Rule, record: &SharedRecord) {
        if self.violations.len() < VIOLATIONS_MAX {
            let birth = &record.birth;
            let record = format!("{} of {} {} {}", record.source, birth.origin, birth.boot, birth.seq);
            self.violations.push(Violation { at_us, node, rule, record });
        }
    }

    /// Counts a delivery at a node where the record became the latest.
    fn applied(&mut self, index: usize, at_us: u64, arrival: Arrival) {
        let Some(publication) = self.publications.get_mut(index).filter(|it| it.is_published) else { return };
        let took_us = at_us.saturating_sub(publication.accepted_us);
        let took = u32::try_from(took_us).unwrap_or(u32::MAX);
        publication.applied[way(arrival)] += 1;
        publication.last_us = publication.last_us.max(took);
        if self.keeps_times {
            publication.times_us.push(took);
        }
        self.times[way(arrival)].add(took_us);
        if let Arrival::Tree { hops } = arrival {
            publication.hops_max = publication.hops_max.max(hops);
            self.hops.add(u64::from(hops).min(HOPS_MAX as u64));
        }
    }
}

fn way(arrival: Arrival) -> usize {
    match arrival {
        Arrival::Tree { .. } => 0,
        Arrival::Repair => 1,
        Arrival::Reconcile => 2,
    }
}
