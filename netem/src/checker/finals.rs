//! Whether what a node holds at the end is what was acknowledged.

use std::collections::HashMap;

use super::evidence::Evidence;
use super::observation::{Level, Place};
use super::promise::{Ledger, Promise, say};
use super::publishes::PublishState;
use super::version::Version;

/// The newest version of a source that a place must hold, and the number of the node that acknowledged it.
#[derive(Clone, Copy, Debug)]
struct Owed {
    version: Version,
    by: u32,
}

/// The versions of one source of which a node or a store must show one at the end of a run.
#[derive(Clone, Copy, Debug, Default)]
struct OwedOfSource {
    stored: Option<Owed>,
    accepted: Option<Owed>,
}

impl OwedOfSource {
    fn newest(&self) -> Option<Owed> {
        [self.stored, self.accepted].into_iter().flatten().max_by_key(|owed| owed.version)
    }
}

/// Collects what a place owes: its own store what the node acknowledged at `stored`, anything else what the cluster
/// must have kept.
fn owed(evidence: &Evidence, at_us: u64, node: u32, place: Place) -> HashMap<u32, OwedOfSource> {
    let mut all: HashMap<u32, OwedOfSource> = HashMap::new();
    for (offered, acked) in evidence.acked_until(at_us) {
        let is_stored = offered.level == Level::Stored;
        let is_owed = match place {
            Place::OwnStore => is_stored && offered.node == node,
            Place::Map | Place::WholeStore => evidence.must_last(offered, acked, at_us),
        };
        if is_owed {
            let of_source = all.entry(offered.source).or_default();
            let slot = if is_stored { &mut of_source.stored } else { &mut of_source.accepted };
            if slot.is_none_or(|owed| owed.version < acked.winner) {
                *slot = Some(Owed { version: acked.winner, by: offered.node });
            }
        }
    }
    all
}

/// Judges the records of a place that was read at `at_us`.
pub(super) fn judge(
    evidence: &mut Evidence,
    ledger: &mut Ledger,
    (at_us, node, place): (u64, u32, Place),
    records: &HashMap<u32, Version>,
) {
    for (source, owed) in owed(evidence, at_us, node, place) {
        let found = records.get(&source).copied();
        let kinds = [(Promise::StoredKept, owed.stored), (Promise::AcceptedKept, owed.accepted)];
        for (promise, owed) in kinds.into_iter().filter_map(|(promise, owed)| Some((promise, owed?))) {
            let is_kept = found.is_some_and(|found| found >= owed.version)
                || (found.is_none() && evidence.may_be_gone(at_us, source, owed.version))
                || owed.version.deleted;
            let witness = (!is_kept).then(|| {
                let detail = evidence.mismatch(owed.version, owed.by, found);
                evidence.witness(at_us, source, owed.version.ts, node, format!("{detail} ({place:?})"))
            });
            ledger.check(promise, witness);
        }
        if let Some(newest) = owed.newest().filter(|newest| newest.version.deleted) {
            let returned = found.filter(|found| *found < newest.version);
            let witness = returned.map(|found| {
                let detail = evidence.mismatch(newest.version, newest.by, Some(found));
                evidence.witness(at_us, source, found.ts, node, format!("{detail} ({place:?})"))
            });
            ledger.check(Promise::NothingReturns, witness);
        }
    }
    for (source, version) in records {
        judge_shown(evidence, ledger, (at_us, node), *source, *version);
    }
}

/// Judges a record that somebody sees: it was offered and not refused, and has not ended long ago.
pub(super) fn judge_shown(
    evidence: &mut Evidence,
    ledger: &mut Ledger,
    (at_us, node): (u64, u32),
    source: u32,
    version: Version,
) {
    let began_wall_us = evidence.began_wall_us;
    let explained = evidence.publishes.explain(source, version, (at_us, node)).map(|offered| {
        let accepted_us = began_wall_us.saturating_add(offered.at_us);
        offered.ends_us(version.ts, accepted_us).filter(|_| !version.deleted)
    });
    let witness = explained
        .is_none()
        .then(|| evidence.witness(at_us, source, version.ts, node, "nobody offered this record".to_owned()));
    ledger.check(Promise::OnlyAccepted, witness);
    if let Some(end_us) = explained.flatten() {
        let late_us = evidence.wall_us(at_us).saturating_sub(end_us);
        let witness = (late_us > evidence.clock_slack_us).then(|| {
            let detail = format!("it is shown {} ms after the end of its time to live", late_us / 1_000);
            evidence.witness(at_us, source, version.ts, node, detail)
        });
        // The end of a value is told by a thread that needs a processor for it.
        let is_scarce = witness.is_some() && evidence.waits.is_scarce(at_us.saturating_sub(late_us), at_us);
        ledger.check_time(Promise::NothingReturns, is_scarce, witness);
    }
}

/// Judges records that were refused: nobody has seen them.
pub(super) fn judge_refused(evidence: &Evidence, ledger: &mut Ledger) {
    for offered in evidence.publishes.iter().filter(|offered| offered.state == PublishState::Refused) {
        let witness = offered.shown.map(|(at_us, node, version)| {
            let code = offered.code.as_deref().unwrap_or("no code");
            let by = evidence.nodes.name(offered.node);
            let offered_s = offered.at_us as f64 / 1e6;
            let detail = format!(
                "{by} refused this record with {code} at {offered_s:.3} s, and {} is there",
                say(Some(version))
            );
            evidence.witness(at_us, offered.source, version.ts, node, detail)
        });
        ledger.check(Promise::OnlyAccepted, witness);
    }
}
