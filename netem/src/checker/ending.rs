//! Whether subscribers ended with what they should have.

use super::evidence::{DELIVERY_US, Evidence};
use super::observation::Mode;
use super::promise::{Ledger, Promise, say};
use super::subscribers::Subscriber;
use super::version::Version;

/// Judges every subscriber that was connected at the end, and what `all` subscribers got.
pub(super) fn judge(evidence: &Evidence, ledger: &mut Ledger) {
    let owed = evidence.newest_owed(evidence.last_us);
    for (id, subscriber) in evidence.subscribers.iter() {
        if subscriber.is_connected && subscriber.is_caught_up {
            for (source, name) in evidence.sources.iter().filter(|(_, name)| subscriber.wants(name)) {
                let newest = owed.get(&source).copied();
                judge_newest(evidence, ledger, (id, subscriber), (source, name), newest);
            }
        }
    }
    judge_all_complete(evidence, ledger);
}

/// Checks that a subscriber ended with the record that its node holds, or without a map of that node with the newest that
/// must have been kept. It may hold a newer one that nobody owes: a node that was killed had delivered it to its own
/// subscribers, and it was lost with the node.
fn judge_newest(
    evidence: &Evidence,
    ledger: &mut Ledger,
    (id, subscriber): (u32, &Subscriber),
    (source, name): (u32, &str),
    owed: Option<Version>,
) {
    let at_us = evidence.last_us;
    let seen = subscriber.newest(source);
    let map = evidence.maps.get(&subscriber.node);
    let held = map.map(|map| map.records.get(&source).copied());
    let (is_right, expected) = match held {
        Some(Some(held)) => {
            let has_ended = |seen: Version| seen.deleted && evidence.may_be_gone(at_us, source, held);
            (seen >= Some(held) || seen.is_some_and(has_ended), Some(held))
        }
        Some(None) => {
            let is_gone = |seen: Version| {
                let is_owed = owed.is_some_and(|owed| owed >= seen);
                seen.deleted || !is_owed || evidence.may_be_gone(at_us, source, seen)
            };
            (seen.is_none_or(is_gone), None)
        }
        None => {
            let Some(owed) = owed else { return };
            let is_gone = seen.is_none() && evidence.may_be_gone(at_us, source, owed);
            (seen.is_some_and(|seen| seen >= owed) || is_gone, Some(owed))
        }
    };
    let witness = (!is_right).then(|| {
        let detail =
            format!("subscriber {id} ends with {} of {name}, and there is {}", say(seen), say(expected));
        let ts = expected.or(seen).map_or(0, |version| version.ts);
        evidence.witness(at_us, source, ts, subscriber.node, detail)
    });
    ledger.check(Promise::LatestEndsNewest, witness);
}

/// Checks that `all` subscribers got every record that their node answered as applied while they were connected.
fn judge_all_complete(evidence: &Evidence, ledger: &mut Ledger) {
    for (id, subscriber) in evidence.subscribers.iter().filter(|(_, subscriber)| subscriber.mode == Mode::All)
    {
        for attendance in subscriber.attendances.iter().filter(|attendance| subscriber.remembers(attendance))
        {
            let until_us = attendance.until_us.unwrap_or(evidence.last_us).saturating_sub(DELIVERY_US);
            for (offered, acked) in evidence.acked_until(until_us) {
                let is_owed = acked.is_applied
                    && offered.node == attendance.node
                    && offered.at_us >= attendance.from_us
                    && subscriber.wants(evidence.sources.name(offered.source));
                if is_owed {
                    // A record that ended on its way comes as a deletion with its timestamp.
                    let end = Version::of_deletion(acked.winner.ts);
                    let has_ended = offered.has_ttl() && subscriber.has_got(offered.source, end);
                    let is_missing = !has_ended && !subscriber.has_got(offered.source, acked.winner);
                    let witness = is_missing.then(|| {
                        let detail = format!("subscriber {id} never got it, although its node applied it");
                        evidence.witness(acked.at_us, offered.source, acked.winner.ts, offered.node, detail)
                    });
                    ledger.check(Promise::AllComplete, witness);
                }
            }
        }
    }
}

/// Checks that nothing is lacking that was lacking when the last fault ended, and that it came in time.
pub(super) fn judge_convergence(evidence: &Evidence, ledger: &mut Ledger, took_us_max: Option<u64>) {
    if evidence.convergence.lacked().is_none() {
        return;
    }
    let owed = evidence.newest_owed(evidence.last_us);
    let still = evidence.convergence.lacking().filter(|(_, source, version)| {
        owed.get(source).is_some_and(|owed| owed >= version)
            && !evidence.may_be_gone(evidence.last_us, *source, *version)
    });
    let mut still: Vec<(u32, u32, Version)> = still.collect();
    still.sort_unstable();
    for (id, source, version) in &still {
        let node = evidence.subscribers.iter().find(|(other, _)| other == id).map_or(0, |(_, who)| who.node);
        let detail = format!("subscriber {id} still lacks it at the end of the run");
        let witness = evidence.witness(evidence.last_us, *source, version.ts, node, detail);
        ledger.check(Promise::Converges, Some(witness));
    }
    if !still.is_empty() {
        return;
    }
    let took_us = evidence.convergence.took_us().unwrap_or(0);
    let is_late = took_us_max.is_some_and(|most_us| took_us > most_us);
    let witness = is_late.then(|| {
        let most_ms = took_us_max.unwrap_or(0) / 1_000;
        let detail =
            format!("it took {} ms after the last fault, and {most_ms} ms are allowed", took_us / 1_000);
        evidence.witness(evidence.last_us, u32::MAX, 0, u32::MAX, detail)
    });
    let healed_us = evidence.convergence.healed_us().unwrap_or(0);
    let is_scarce = is_late && evidence.waits.is_scarce(healed_us, healed_us.saturating_add(took_us));
    ledger.check_time(Promise::Converges, is_scarce, witness);
}
