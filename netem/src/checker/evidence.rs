//! Everything that was seen, sorted by what it is about.

use std::collections::{BTreeMap, HashMap};

use super::convergence::Convergence;
use super::costs::Costs;
use super::names::Names;
use super::observation::Level;
use super::processes::Processes;
use super::promise::{Witness, say};
use super::publishes::{Acked, Offered, PublishState, Publishes};
use super::series::Series;
use super::subscribers::Subscribers;
use super::version::Version;
use super::views::Views;
use super::waits::Waits;

/// Time after an answer within which its record must be on its way to a subscriber at the same node, in microseconds.
/// Connections that end sooner prove nothing.
pub(super) const DELIVERY_US: u64 = 5_000_000;

/// The answer to a read of one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadSeen {
    /// Number of the node.
    pub(super) node: u32,
    /// Time at which the request was sent, in microseconds.
    pub(super) begun_us: u64,
    /// The record found.
    pub(super) found: Option<Version>,
}

/// A deletion that a node has answered as applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeletionSeen {
    node: u32,
    at_us: u64,
    version: Version,
}

/// The records of a node at the end, by the number of the source.
#[derive(Clone, Debug, Default)]
pub(super) struct FinalMap {
    /// Time at which they were read, in microseconds.
    pub(super) at_us: u64,
    /// The latest record of each source.
    pub(super) records: HashMap<u32, Version>,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) sources: Names,
    pub(super) nodes: Names,
    pub(super) processes: Processes,
    pub(super) publishes: Publishes,
    pub(super) subscribers: Subscribers,
    pub(super) views: Views,
    pub(super) convergence: Convergence,
    pub(super) series: Series,
    pub(super) costs: Costs,
    pub(super) waits: Waits,
    /// Reads by the number of the source.
    pub(super) reads: HashMap<u32, Vec<ReadSeen>>,
    /// Deletions by the number of the source.
    pub(super) deletions: HashMap<u32, Vec<DeletionSeen>>,
    /// The last complete map of each node.
    pub(super) maps: BTreeMap<u32, FinalMap>,
    /// Wall clock at the beginning of the run, in microseconds.
    pub(super) began_wall_us: u64,
    /// Greatest difference between wall clocks that is no fault, in microseconds.
    pub(super) clock_slack_us: u64,
    /// Time of the last observation, in microseconds.
    pub(super) last_us: u64,
}

impl Evidence {
    /// A witness of a broken promise about a source.
    pub(super) fn witness(&self, at_us: u64, source: u32, ts: u64, node: u32, detail: String) -> Witness {
        let (source, node) = (self.sources.name(source).to_owned(), self.nodes.name(node).to_owned());
        Witness { at_us, source, ts, node, detail }
    }

    /// Notes that a node has answered a deletion as applied.
    pub(super) fn handle_deletion(&mut self, at_us: u64, source: u32, node: u32, version: Version) {
        self.deletions.entry(source).or_default().push(DeletionSeen { node, at_us, version });
    }

    /// Returns the deletion that a node had answered before `begun_us`, and that is newer than what it shows at
    /// `at_us`, if there is one. `None` if nothing was deleted there; `Some(None)` if what it shows is right.
    pub(super) fn returned(
        &self,
        (node, begun_us, at_us): (u32, u64, u64),
        source: u32,
        shown: Version,
    ) -> Option<Option<Version>> {
        let deletions = self.deletions.get(&source)?;
        let applies = |deletion: &&DeletionSeen| {
            deletion.node == node
                && deletion.at_us <= begun_us
                && self.processes.is_same_life(node, deletion.at_us, at_us)
        };
        let newest = deletions.iter().filter(applies).map(|deletion| deletion.version).max()?;
        Some((shown < newest).then_some(newest))
    }

    /// The wall clock at a time of the run.
    pub(super) fn wall_us(&self, at_us: u64) -> u64 {
        self.began_wall_us.saturating_add(at_us)
    }

    /// Time at which a record with a time to live ends, as a wall clock in microseconds.
    pub(super) fn ends_us(&self, offered: &Offered, ts: u64) -> Option<u64> {
        offered.ends_us(ts, self.wall_us(offered.at_us))
    }

    /// Returns whether a source may rightly be empty although this version was acknowledged: it has ended or will
    /// about now, or somebody may have deleted it since.
    pub(super) fn may_be_gone(&self, at_us: u64, source: u32, version: Version) -> bool {
        let now_us = self.wall_us(at_us).saturating_add(self.clock_slack_us);
        let may_end = |offered: &Offered| {
            let ts = offered.known_ts().unwrap_or(u64::MAX);
            let ends = self.ends_us(offered, ts.min(now_us)).is_some_and(|end_us| end_us <= now_us);
            let deletes = offered.version(ts).deleted;
            ts >= version.ts && (deletes || ends) && offered.state != PublishState::Refused
        };
        version.deleted || self.publishes.emptying(source).any(may_end)
    }

    /// The records that were acknowledged until `at_us`.
    pub(super) fn acked_until(&self, at_us: u64) -> impl Iterator<Item = (&Offered, Acked)> {
        self.publishes.iter().filter_map(move |offered| match offered.state {
            PublishState::Done(acked) if acked.at_us <= at_us => Some((offered, acked)),
            _ => None,
        })
    }

    /// Returns whether a record that was acknowledged must be kept by a cluster until `at_us`: it was stored by a node
    /// that runs again, or the node that accepted it has lived on.
    pub(super) fn must_last(&self, offered: &Offered, acked: Acked, at_us: u64) -> bool {
        let lives_on = self.processes.is_same_life(offered.node, acked.at_us, at_us);
        lives_on || (offered.level == Level::Stored && self.processes.runs_at_end(offered.node))
    }

    /// The newest version of each source that a cluster must have kept until `at_us`.
    pub(super) fn newest_owed(&self, at_us: u64) -> HashMap<u32, Version> {
        let mut newest: HashMap<u32, Version> = HashMap::new();
        for (offered, acked) in self.acked_until(at_us) {
            if self.must_last(offered, acked, at_us) {
                let version = newest.entry(offered.source).or_insert(acked.winner);
                *version = acked.winner.max(*version);
            }
        }
        newest
    }

    /// What the subscribers that are connected lack of what was acknowledged until `at_us`, by the numbers of the
    /// subscriber and the source.
    pub(super) fn lacking(&self, at_us: u64) -> HashMap<(u32, u32), Version> {
        let mut lacking = HashMap::new();
        for (source, version) in self.newest_owed(at_us) {
            if self.may_be_gone(at_us, source, version) {
                continue;
            }
            for (id, subscriber) in self.subscribers.iter() {
                let lacks = subscriber.newest(source).is_none_or(|newest| newest < version);
                if lacks && subscriber.wants(self.sources.name(source)) {
                    lacking.insert((id, source), version);
                }
            }
        }
        lacking
    }

    /// A sentence about what a place should hold.
    pub(super) fn mismatch(&self, owed: Version, by: u32, found: Option<Version>) -> String {
        format!("{} answered {}, and this place has {}", self.nodes.name(by), say(Some(owed)), say(found))
    }
}
