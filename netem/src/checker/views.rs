//! Which members the nodes named, and whether they were right.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::Evidence;
use super::names::Names;
use super::observation::{MemberSeen, MemberState};
use super::promise::{Ledger, Promise, Witness};

/// Time after a deadly fault or a start for which members may still be taken for dead, in microseconds.
const GRACE_US: u64 = 20_000_000;

/// The list of a node, which it named at some time between the question and its answer.
#[derive(Debug)]
struct Sample {
    /// Time of the question, in microseconds.
    begun_us: u64,
    /// Time of the answer, in microseconds.
    at_us: u64,
    /// The members by their numbers.
    members: BTreeMap<u32, MemberSeen>,
}

/// The lists of members, as nodes named them over time.
#[derive(Debug, Default)]
pub(super) struct Views {
    samples: BTreeMap<u32, Vec<Sample>>,
}

/// Times that a member was suspected or declared dead although nothing had hit it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FalseSuspicions {
    /// Number of times that a healthy member became suspect.
    pub suspected: u64,
    /// Number of times that a healthy member was declared dead.
    pub declared_dead: u64,
}

impl Views {
    /// Notes the list of a node, which was asked and answered at these times.
    pub(super) fn handle_list(
        &mut self,
        (begun_us, at_us): (u64, u64),
        seen_by: u32,
        list: Vec<(u32, MemberSeen)>,
    ) {
        let members = list.into_iter().collect();
        self.samples.entry(seen_by).or_default().push(Sample { begun_us, at_us, members });
    }

    /// For each node the number of members that it took for alive, with the time in microseconds.
    pub(super) fn alive_counts(&self, nodes: &Names) -> BTreeMap<String, Vec<(u64, usize)>> {
        let is_alive = |seen: &&MemberSeen| seen.state == MemberState::Alive;
        let alive = |sample: &Sample| (sample.at_us, sample.members.values().filter(is_alive).count());
        let of = |samples: &Vec<Sample>| samples.iter().map(alive).collect();
        self.samples.iter().map(|(node, samples)| (nodes.name(*node).to_owned(), of(samples))).collect()
    }

    /// Returns whether a node was asked at all for its members.
    pub(super) fn knows(&self, node: u32) -> bool {
        self.samples.contains_key(&node)
    }

    /// Returns whether a node certainly took a member for alive from one time to another: the samples before,
    /// between and after show it as a member that has taken part since the same moment. The one before was answered before
    /// the first time, and the one after was asked for after the second.
    pub(super) fn is_sure(&self, seen_by: u32, member: u32, from_us: u64, to_us: u64) -> bool {
        if seen_by == member {
            return true;
        }
        let Some(samples) = self.samples.get(&seen_by) else { return false };
        let Some(first) = samples.partition_point(|sample| sample.at_us <= from_us).checked_sub(1) else {
            return false;
        };
        let last = samples.partition_point(|sample| sample.begun_us < to_us);
        let of = |sample: &Sample| {
            let (asked, seen) = (sample.members.get(&seen_by)?, sample.members.get(&member)?);
            let takes_part = matches!(seen.state, MemberState::Alive | MemberState::Suspect);
            // Where a program does not tell when the member began to take part, its incarnation stands for that: a member
            // that was given up and came back has another one, unless it only did not answer for a while.
            takes_part.then_some((asked.boot, seen.boot, seen.joined.unwrap_or(seen.incarnation)))
        };
        let Some(between) = samples.get(first..=last) else { return false };
        let before = between.first().and_then(of);
        before.is_some() && between.iter().all(|sample| of(sample) == before)
    }

    /// Counts members that were suspected or declared dead although they ran and no deadly fault hit them or the node
    /// that says so.
    pub(super) fn judge(&self, evidence: &Evidence, ledger: &mut Ledger) -> FalseSuspicions {
        let (processes, nodes) = (&evidence.processes, &evidence.nodes);
        let mut found = FalseSuspicions::default();
        for (seen_by, samples) in &self.samples {
            let mut down: BTreeSet<(u32, bool)> = BTreeSet::new();
            for Sample { at_us, members, .. } in samples {
                let from_us = at_us.saturating_sub(GRACE_US);
                let is_healthy = |node: u32| !processes.was_disturbed(node, from_us, *at_us);
                if !is_healthy(*seen_by) {
                    down.clear();
                    continue;
                }
                for (member, seen) in members.iter().filter(|(member, _)| is_healthy(**member)) {
                    let is_dead = matches!(seen.state, MemberState::Dead | MemberState::Left);
                    let is_suspect = seen.state == MemberState::Suspect;
                    found.suspected += u64::from(is_suspect && down.insert((*member, false)));
                    found.declared_dead += u64::from(is_dead && down.insert((*member, true)));
                    if seen.state == MemberState::Alive {
                        down.remove(&(*member, false));
                        down.remove(&(*member, true));
                    }
                    let witness = is_dead.then(|| Witness {
                        at_us: *at_us,
                        source: String::new(),
                        ts: 0,
                        node: nodes.name(*seen_by).to_owned(),
                        detail: format!(
                            "{} is {:?} there, although it runs",
                            nodes.name(*member),
                            seen.state
                        ),
                    });
                    let is_scarce = witness.is_some() && evidence.waits.is_scarce(from_us, *at_us);
                    ledger.check_time(Promise::HealthyNotDead, is_scarce, witness);
                }
            }
        }
        found
    }
}
