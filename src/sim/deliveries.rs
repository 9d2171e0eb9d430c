//! The book of what was accepted and where it arrived, which also sees at once when something arrives
//! that must not.
//!
//! It keeps one copy of every record, which all replicas share. A delivery costs it nothing but a
//! count, unless times are asked for record by record.
//!
//! What was accepted ([`Accepted`]) is read by nodes that may be called side by side; what they find of a record
//! that arrives ([`Noted`]) is written down afterwards, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashTable;

use super::histogram::Histogram;
use super::nodes::NodeId;
use super::process::Act;
use super::replica::{Merged, SimReplica, order};
use crate::cluster::{Arrival, Replica};
use crate::limits::SHARDS;
use crate::record::{Now, SharedRecord};

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

/// What must hold at every delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What arrives was accepted somewhere, and is what was accepted.
    OnlyAccepted,
    /// Nothing arrives before it was accepted.
    AfterAcceptance,
    /// A source never goes back.
    NeverBack,
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
    pub(super) accepted: Arc<Accepted>,
    publications: Vec<Publication>,
    times: [Histogram; 3],
    hops: Histogram,
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
    pub fn times(&self, arrival: Arrival) -> &Histogram {
        &self.times[way(arrival)]
    }

    /// Times of all deliveries, in microseconds since acceptance.
    pub fn all_times(&self) -> Histogram {
        let mut all = Histogram::default();
        self.times.iter().for_each(|times| all.merge(times));
        all
    }

    /// Hand-overs of deliveries by the tree.
    pub fn hops(&self) -> &Histogram {
        &self.hops
    }

    /// What was accepted so far stays known, but its deliveries are counted and timed no more: for
    /// the time in which a world gets going.
    pub fn forget_counts(&mut self) {
        self.times = Default::default();
        self.hops = Histogram::default();
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

/// What was accepted, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Accepted {
    index: HashTable<u32>,
    /// In the order of [`Deliveries::publications`].
    records: Vec<(SharedRecord, u64)>,
}

impl Accepted {
    fn add(&mut self, record: SharedRecord, at_us: u64) {
        let (index, checksum) = (self.records.len() as u32, record.checksum);
        self.records.push((record, at_us));
        let records = &self.records;
        self.index.insert_unique(checksum, index, |&index| {
            records.get(index as usize).map_or(0, |(record, _)| record.checksum)
        });
    }

    /// The number of this very record, it, and when it was accepted. The checksum is over every field, and
    /// a decoder has verified it; so what it and the data's hash agree on is the same to the byte.
    fn find(&self, record: &SharedRecord) -> Option<(u32, &SharedRecord, u64)> {
        let is_same = |it: &SharedRecord| it.checksum == record.checksum && it.stamp == record.stamp;
        let is_it = |&index: &u32| self.records.get(index as usize).is_some_and(|(it, _)| is_same(it));
        let &index = self.index.find(record.checksum, is_it)?;
        self.records.get(index as usize).map(|(record, at_us)| (index, record, *at_us))
    }
}

/// What a node found of a record that arrived.
#[derive(Debug)]
pub(super) enum Noted {
    /// It is the latest there now.
    Applied { index: u32, at_us: u64, arrival: Arrival },
    /// It, or a newer one, was there already.
    Stale { index: u32 },
    /// It must not have arrived.
    Broken { rule: Rule, at_us: u64, record: SharedRecord },
}

/// A node's replica while its machine is called, with what was accepted beside it.
pub(super) struct Applying<'a> {
    pub replica: &'a mut SimReplica,
    pub accepted: &'a Accepted,
    pub at_us: u64,
    pub acts: &'a mut VecDeque<Act>,
}

impl Applying<'_> {
    fn note(&mut self, noted: Noted) {
        self.acts.push_back(Act::Noted(noted));
    }

    fn violate(&mut self, rule: Rule, record: &SharedRecord) {
        self.note(Noted::Broken { rule, at_us: self.at_us, record: record.clone() });
    }
}

impl Replica for Applying<'_> {
    fn apply(&mut self, _now: Now, record: SharedRecord, arrival: Arrival) -> bool {
        let at_us = self.at_us;
        let Some((index, known, accepted_us)) = self.accepted.find(&record) else {
            self.violate(Rule::OnlyAccepted, &record);
            return self.replica.merge(record) != Merged::Stale;
        };
        if accepted_us > at_us {
            self.violate(Rule::AfterAcceptance, &record);
            return self.replica.merge(record) != Merged::Stale;
        }
        match self.replica.merge(known.clone()) {
            Merged::Stale => {
                self.note(Noted::Stale { index });
                false
            }
            Merged::Latest(before) => {
                if before.is_some_and(|before| order(&before, known).is_ge()) {
                    self.violate(Rule::NeverBack, known);
                }
                self.note(Noted::Applied { index, at_us, arrival });
                true
            }
        }
    }

    fn discard(&mut self, record: &SharedRecord) {
        self.replica.discard(record);
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.replica.get(source)
    }

    fn fingerprints(&self) -> [u64; SHARDS] {
        self.replica.fingerprints()
    }

    fn visit_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord)) {
        self.replica.visit_shard(shard, visit);
    }
}
