//! Whether `replicated` was true when it was answered.
//!
//! A node counts for an answer if the answering node certainly took it for alive from the acceptance to the answer, and
//! its process lived on: then everything that is read there later must be at least as new.

use super::evidence::Evidence;
use super::observation::Level;
use super::promise::{Ledger, Promise, say};
use super::publishes::{Acked, Offered};
use super::version::Version;

/// Time before an answer within which a deadly fault makes it unsure which members counted, in microseconds, if nobody
/// asked the nodes for their members.
const UNSURE_US: u64 = 30_000_000;

/// Judges all answers at `replicated` by the reads that came after them, by the maps at the end, and by the number of
/// nodes that they name.
pub(super) fn judge(evidence: &Evidence, ledger: &mut Ledger) {
    for (offered, acked) in evidence.acked_until(u64::MAX) {
        if offered.level != Level::Replicated {
            continue;
        }
        let counted: Vec<u32> = evidence
            .nodes
            .iter()
            .map(|(node, _)| node)
            .filter(|node| counts(evidence, offered, acked, *node))
            .collect();
        judge_number(evidence, ledger, offered, acked, &counted);
        for node in counted {
            judge_holding(evidence, ledger, offered, acked, node);
        }
    }
}

/// Returns whether a node was certainly alive in the view of the answering node until the answer.
fn counts(evidence: &Evidence, offered: &Offered, acked: Acked, node: u32) -> bool {
    let (from_us, to_us) = (offered.at_us, acked.at_us);
    if !evidence.processes.is_same_life(node, from_us, to_us) {
        return false;
    }
    if evidence.views.knows(offered.node) {
        return evidence.views.is_sure(offered.node, node, from_us, to_us);
    }
    let since_us = from_us.saturating_sub(UNSURE_US);
    !evidence.processes.was_hit(node, since_us, to_us)
        && !evidence.processes.was_hit(offered.node, since_us, to_us)
}

/// Checks that the answer counts all nodes that were certainly alive.
fn judge_number(evidence: &Evidence, ledger: &mut Ledger, offered: &Offered, acked: Acked, counted: &[u32]) {
    let Some(nodes) = acked.nodes else { return };
    let is_short = (nodes as usize) < counted.len();
    let witness = is_short.then(|| {
        let detail = format!("it was answered with {nodes} nodes when {} were alive", counted.len());
        evidence.witness(acked.at_us, offered.source, acked.winner.ts, offered.node, detail)
    });
    ledger.check(Promise::ReplicatedTrue, witness);
}

/// Checks what was read at a node after the answer.
fn judge_holding(evidence: &Evidence, ledger: &mut Ledger, offered: &Offered, acked: Acked, node: u32) {
    let mut check = |at_us: u64, found: Option<Version>| {
        if at_us < acked.at_us || !evidence.processes.is_same_life(node, offered.at_us, at_us) {
            return;
        }
        let holds = found.is_some_and(|found| found >= acked.winner)
            || (found.is_none() && evidence.may_be_gone(at_us, offered.source, acked.winner));
        let witness = (!holds).then(|| {
            let detail = format!(
                "{} answered replicated for {}, and this node had {}",
                evidence.nodes.name(offered.node),
                say(Some(acked.winner)),
                say(found)
            );
            evidence.witness(at_us, offered.source, acked.winner.ts, node, detail)
        });
        ledger.check(Promise::ReplicatedTrue, witness);
    };
    for read in evidence.reads.get(&offered.source).into_iter().flatten().filter(|read| read.node == node) {
        check(read.begun_us, read.found);
    }
    if let Some(map) = evidence.maps.get(&node) {
        check(map.at_us, map.records.get(&offered.source).copied());
    }
}
