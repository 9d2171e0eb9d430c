//! The book of what was accepted and where it arrived, which also sees at once when something arrives
//! that must not.
//!
//! It keeps one copy of every record, which all replicas share. A delivery costs it nothing but a
//! count, unless times are asked for record by record.
//!
//! What was accepted ([`Accepted`]) is read by nodes that may be called side by side; what they find of a record
//! that arrives ([`Noted`]) is written down afterwards, in order.

use std::sync::Arc;

use super::accepted::{AcceptedRecords, Noted, Rule};
use super::distribution::Distribution;
use super::place::NodeId;
use crate::cluster::Arrival;
use crate::record::SharedRecord;

/// Hand-overs counted one by one; what took more counts as so many.
const HOPS_MAX: usize = 64;
/// Violations kept to be shown. All are counted.
const VIOLATIONS_MAX: usize = 100;

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in microseconds of the world.
    pub at_us: u64,
    /// Where.
    pub node: NodeId,
    /// What.
    pub rule: Rule,
    /// Which record: source, origin, boot and number.
    pub record: String,
}

/// One record and what became of it. Times are since it was accepted.
#[derive(Clone, Debug)]
pub struct Publication {
    /// What was accepted.
    pub record: SharedRecord,
    /// Where.
    pub node: NodeId,
    /// When, in microseconds of the world.
    pub accepted_us: u64,
    /// Whether it was published, and not loaded at a start.
    pub is_published: bool,
    /// How many nodes it became the latest at first by the tree, by repair, and by reconciliation; of
    /// nodes that restarted empty every life counts.
    pub applied: [u32; 3],
    /// How often it came where it, or a newer one, was already.
    pub stale: u32,
    /// When it became the latest at the last node so far, in microseconds.
    pub last_us: u32,
    /// Most hand-overs on its way to a node.
    pub hops_max: u32,
    /// When it became the latest at each node, in microseconds and in that order; empty unless
    /// [`Deliveries::keep_times`] was asked for.
    pub times_us: Vec<u32>,
}

impl Publication {
    /// Deliveries of all kinds.
    pub fn applied_total(&self) -> u32 {
        self.applied.iter().sum()
    }
}

/// What was accepted, and where it arrived.
#[derive(Debug, Default)]
pub struct Deliveries {
    pub(super) accepted: Arc<AcceptedRecords>,
    publications: Vec<Publication>,
    times: [Distribution; 3],
    hops: Distribution,
    keeps_times: bool,
    violations: Vec<Violation>,
    violations_count: u64,
}

impl Deliveries {
    /// Whether the time of every single delivery is kept from now on: four bytes each.
    pub fn keep_times(&mut self, keeps: bool) {
        self.keeps_times = keeps;
    }

    /// All records, in the order in which they were accepted or loaded.
    pub fn publications(&self) -> &[Publication] {
        &self.publications
    }

    /// Times of deliveries by this way, in microseconds since acceptance; the hops in `Tree` do not
    /// matter.
    pub fn times(&self, arrival: Arrival) -> &Distribution {
        &self.times[way(arrival)]
    }

    /// Times of all deliveries, in microseconds since acceptance.
    pub fn all_times(&self) -> Distribution {
        let mut all = Distribution::default();
        self.times.iter().for_each(|times| all.merge(times));
        all
    }

    /// Hand-overs of deliveries by the tree.
    pub fn hops(&self) -> &Distribution {
        &self.hops
    }

    /// What was accepted so far stays known, but its deliveries are counted and timed no more: for
    /// the time in which a world gets going.
    pub fn forget_counts(&mut self) {
        self.times = Default::default();
        self.hops = Distribution::default();
        self.publications.iter_mut().for_each(|publication| publication.is_published = false);
    }

    /// What went against the rules, the first hundred.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How often something went against the rules.
    pub fn violations_count(&self) -> u64 {
        self.violations_count
    }

    /// Notes a record that a node accepted, or had when it was started.
    pub(super) fn accept(&mut self, at_us: u64, node: NodeId, record: &SharedRecord, is_published: bool) {
        if self.accepted.find(record).is_some() {
            return;
        }
        Arc::make_mut(&mut self.accepted).add(record.clone(), at_us);
        self.publications.push(Publication {
            record: record.clone(),
            node,
            accepted_us: at_us,
            is_published,
            applied: [0; 3],
            stale: 0,
            last_us: 0,
            hops_max: 0,
            times_us: Vec::new(),
        });
    }

    /// Writes down what a node found of a record that arrived.
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
        self.violations_count += 1;
        if self.violations.len() < VIOLATIONS_MAX {
            let birth = &record.birth;
            let record = format!("{} of {} {} {}", record.source, birth.origin, birth.boot, birth.seq);
            self.violations.push(Violation { at_us, node, rule, record });
        }
    }

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
