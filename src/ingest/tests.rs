use std::borrow::Cow;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::limits::{FUTURE_US_MAX, TS_MAX};
use crate::protocol::AckLevel;
use crate::protocol::draft::DraftPayload;
use crate::record::{Birth, NodeName, Payload};

/// A downstream that remembers every call.
#[derive(Default)]
pub(super) struct Told {
    changes: Mutex<Vec<Change>>,
    stored: Mutex<Vec<SharedRecord>>,
    forgotten: Mutex<Vec<SharedRecord>>,
    sick: AtomicBool,
}

impl Downstream for Told {
    fn deliver(&self, change: Change) {
        self.changes.lock().push(change);
    }

    fn store(&self, record: &SharedRecord) -> u64 {
        let mut stored = self.stored.lock();
        stored.push(record.clone());
        stored.len() as u64
    }

    fn store_winner(&self, _: &SharedRecord) -> u64 {
        self.stored.lock().len() as u64
    }

    fn forget(&self, _now: Now, record: &SharedRecord) {
        self.forgotten.lock().push(record.clone());
    }

    fn store_health(&self) -> Result<(), String> {
        if self.sick.load(Relaxed) { Err("disk full".into()) } else { Ok(()) }
    }
}

const DAY_US: u64 = 86_400_000_000;
pub(super) const NOW: Now = Now { mono_us: 0, wall_us: 1_000_000_000_000 };

pub(super) fn node(name: &str) -> Ingest<Told> {
    let bounds = Bounds { record_bytes_max: 1_000, map_bytes_max: 1 << 20, tombstones_us: DAY_US };
    let outbox = Outbox::new(NodeName::parse(name).expect("name"), 1);
    Ingest::new(bounds, outbox, Arc::default(), Told::default(), 5)
}

pub(super) fn draft(source: &str, ts: Option<u64>, payload: DraftPayload<'static>) -> Draft<'static> {
    Draft { source: Cow::Owned(source.into()), ts, payload, ttl_ms: 0, ack: Some(AckLevel::Accepted) }
}

pub(super) fn json(data: &'static str) -> DraftPayload<'static> {
    DraftPayload::Json(data.as_bytes())
}

fn outcome(node: &Ingest<Told>, draft: &Draft<'_>) -> Outcome {
    node.publish(NOW, draft).expect("accepted").outcome
}

fn refused(node: &Ingest<Told>, draft: &Draft<'_>) -> Code {
    node.publish(NOW, draft).expect_err("refused").code
}

#[test]
fn applied_duplicate_stale_and_tie() {
    let node = node("a");
    assert_eq!(outcome(&node, &draft("s", Some(5), json("1"))), Outcome::Applied);
    assert_eq!(outcome(&node, &draft("s", Some(5), json("1"))), Outcome::Duplicate);
    assert_eq!(outcome(&node, &draft("s", Some(4), json("9"))), Outcome::Stale { current_ts: 5 });
    assert_eq!(outcome(&node, &draft("s", Some(5), DraftPayload::Deleted)), Outcome::Applied);
    assert_eq!(outcome(&node, &draft("s", Some(5), json("2"))), Outcome::Stale { current_ts: 5 });
    assert_eq!(node.downstream.changes.lock().len(), 2);
    assert_eq!(node.outbox.lock().last_seq(), 2);
}

#[test]
fn an_unstamped_publish_wins_over_what_the_node_has_seen() {
    let node = node("a");
    let ahead = NOW.wall_us + 9_000_000;
    assert_eq!(outcome(&node, &draft("s", Some(ahead), json("1"))), Outcome::Applied);
    let accepted = node.publish(NOW, &draft("s", None, json("2"))).expect("accepted");
    assert_eq!((accepted.ts, accepted.outcome), (ahead + 1, Outcome::Applied));
}

/// Three publishes to one node: the stamp of the third, to another source, was 9.9 s ahead, and so was the end
/// of its life.
#[test]
fn each_source_has_stamps_of_its_own() {
    let node = node("a");
    let ahead = NOW.wall_us + 9_900_000;
    assert_eq!(outcome(&node, &draft("fast", Some(ahead), json("1"))), Outcome::Applied);
    assert_eq!(node.publish(NOW, &draft("fast", None, json("2"))).map(|accepted| accepted.ts), Ok(ahead + 1));
    let mut brief = draft("x", None, json("1"));
    brief.ttl_ms = 1_000;
    assert_eq!(node.publish(NOW, &brief).map(|accepted| accepted.ts), Ok(NOW.wall_us));
    assert_eq!(node.sweep(NOW, true, 100), Some(NOW.wall_us + 1_000_000));
    // A stamp that is ahead of the clock lengthens no life.
    let brief = Draft { source: Cow::Borrowed("y"), ts: Some(ahead), ..brief };
    assert_eq!(outcome(&node, &brief), Outcome::Applied);
    assert_eq!(node.sweep(NOW, true, 100), Some(NOW.wall_us + 1_000_000));
}

/// A node that had seen the greatest stamp issued one more, acknowledged it as stored, and could not read it
/// back.
#[test]
fn a_source_without_a_stamp_left_refuses_unstamped_publishes() {
    let node = node("a");
    node.load(NOW, Record::clone(&record("s", TS_MAX - 1, "x", Some("1"), 0)));
    assert_eq!(node.publish(NOW, &draft("s", None, json("1"))).map(|accepted| accepted.ts), Ok(TS_MAX));
    assert_eq!(refused(&node, &draft("s", None, json("1"))), Code::FutureTimestamp);
    assert_eq!(node.outbox.lock().last_seq(), 1);
    assert_eq!(node.publish(NOW, &draft("t", None, json("1"))).map(|accepted| accepted.ts), Ok(NOW.wall_us));
}

/// A peer's record with the greatest stamp there is made this node issue stamps that could not be read back.
#[test]
fn a_peers_record_that_is_far_ahead_is_refused_and_one_of_the_store_is_not() {
    let node = node("a");
    let limit = NOW.wall_us + DAY_US;
    for (ts, is_taken) in [(TS_MAX, false), (limit + 1, false), (limit, true)] {
        for arrival in [Arrival::Tree { hops: 1 }, Arrival::Repair, Arrival::Reconcile] {
            let source = format!("{ts}/{arrival:?}");
            assert_eq!(node.apply(NOW, record(&source, ts, "x", Some("1"), 0), arrival), is_taken);
            assert_eq!(node.latest.get(&source).is_some(), is_taken);
        }
    }
    assert_eq!(node.metrics.records_far_ahead.get(), 6);
    assert_eq!(node.publish(NOW, &draft("y", None, json("1"))).map(|accepted| accepted.ts), Ok(NOW.wall_us));
    // What was acknowledged once is served again, whenever the store shows it.
    node.load(NOW, Record::clone(&record("early", TS_MAX, "x", Some("1"), 0)));
    node.load_late(NOW, Record::clone(&record("late", TS_MAX, "x", Some("1"), 0)));
    assert!(node.latest.get("early").is_some() && node.latest.get("late").is_some());
    assert_eq!(node.metrics.records_far_ahead.get(), 6);
}

#[test]
fn refused_records_of_peers_are_logged_once_a_minute() {
    let log = FarAheadLog::default();
    let far = record("s", TS_MAX, "x", Some("1"), 0);
    let noted = |seconds: u64| log.note(NOW.plus_us(seconds * 1_000_000), &far, 1);
    assert_eq!([0, 1, 59, 60, 61, 119, 120].map(noted), [true, false, false, true, false, false, true]);
}

/// A record stamped far in the future wins for ever (Jepsen: Riak, Cassandra): bound it where it
/// enters.
#[test]
fn refusals() {
    let node = node("a");
    let future = NOW.wall_us + FUTURE_US_MAX + 1;
    assert_eq!(refused(&node, &draft("s", Some(future), json("1"))), Code::FutureTimestamp);
    assert_eq!(refused(&node, &draft("$s", None, json("1"))), Code::Forbidden);
    let big: &'static str = Box::leak("1".repeat(1_001).into_boxed_str());
    assert_eq!(refused(&node, &draft("s", None, json(big))), Code::TooLarge);
    node.downstream.sick.store(true, Relaxed);
    assert_eq!(refused(&node, &draft("s", None, json("1"))), Code::StoreUnavailable);
    node.set_skewed(true);
    assert_eq!(refused(&node, &draft("s", None, json("1"))), Code::ClockSkew);
    node.set_clock_compared(false);
    node.set_skewed(false);
    assert_eq!(refused(&node, &draft("s", None, json("1"))), Code::ClockSkew);
    node.set_clock_compared(true);
    node.set_skewed(true);
    node.set_draining();
    node.set_skewed(false);
    assert_eq!(refused(&node, &draft("s", None, json("1"))), Code::Overloaded);
    assert!(node.latest.is_empty() && node.outbox.lock().last_seq() == 0);
}

#[test]
fn what_the_gate_refuses_changes_nothing_and_the_first_guard_answers() {
    let node = node("a");
    node.set_draining();
    node.downstream.sick.store(true, Relaxed);
    let big: &'static str = Box::leak("1".repeat(1_001).into_boxed_str());
    assert_eq!(refused(&node, &draft("$s", None, json(big))), Code::TooLarge);
    assert_eq!(refused(&node, &draft("$s", None, json("1"))), Code::Forbidden);
    assert_eq!(refused(&node, &draft("s", None, json("1"))), Code::Overloaded);
    assert!(node.latest.is_empty() && node.outbox.lock().last_seq() == 0);
    // Records that the node publishes about itself do not pass the gate.
    assert_eq!(node.tell(NOW, &draft("$s", None, json("1"))).expect("told").outcome, Outcome::Applied);
}

#[test]
fn a_full_map_refuses_new_sources_from_clients_only() {
    let node = node("a");
    let data: &'static str = Box::leak(format!("\"{}\"", "x".repeat(900)).into_boxed_str());
    let mut n = 0;
    while node.latest.bytes() <= 1 << 20 {
        assert_eq!(outcome(&node, &draft(&format!("s/{n}"), None, json(data))), Outcome::Applied);
        n += 1;
    }
    assert_eq!(refused(&node, &draft("new", None, json("1"))), Code::Overloaded);
    assert_eq!(outcome(&node, &draft("s/0", None, json("1"))), Outcome::Applied);
    assert!(node.apply(NOW, record("peer", 5, "x", Some("1"), 0), Arrival::Tree { hops: 1 }));
}

/// Expired sources filled the map for a day, and new ones were refused.
#[test]
fn a_map_full_of_expired_sources_takes_new_ones() {
    let node = node("a");
    let mut now = NOW;
    for number in 0..20_000 {
        now = now.plus_us(1_000);
        let source = format!("brief/{number}");
        let brief = Draft { ttl_ms: 100, ..draft(&source, None, json("1")) };
        node.publish(now, &brief).unwrap_or_else(|refusal| panic!("{number}: {refusal:?}"));
        if number % 50 == 0 {
            node.sweep(now, false, 100);
        }
    }
    assert!(node.latest.bytes() < 1 << 20 | 1 << 17, "{}", node.latest.bytes());
    assert!(node.latest.guards() > 2_000, "what is let go becomes a guard first");
    assert_eq!(outcome(&node, &draft("lasting", None, json("1"))), Outcome::Applied);
}

/// A source whose value has long expired, so that only a guard is left of it, and the time.
fn guarded(name: &str) -> (Ingest<Told>, Now) {
    let node = node(name);
    let brief = Draft { ttl_ms: 10, ..draft("s", Some(NOW.wall_us), json("1")) };
    node.publish(NOW, &brief).expect("accepted");
    node.sweep(NOW.plus_us(10_000), true, 100);
    let now = NOW.plus_us(DAY_US / 2);
    node.sweep(now, true, 100);
    assert_eq!((node.latest.len(), node.latest.guards()), (0, 1));
    assert_eq!(node.downstream.forgotten.lock().len(), 1);
    node.downstream.changes.lock().clear();
    (node, now)
}

#[test]
fn a_guard_answers_publishes_as_the_value_did() {
    let (node, now) = guarded("a");
    let published =
        |ts, data| node.publish(now, &draft("s", ts, json(data))).map(|accepted| accepted.outcome);
    assert_eq!(published(Some(NOW.wall_us), "1"), Ok(Outcome::Duplicate));
    assert_eq!(published(Some(NOW.wall_us - 1), "9"), Ok(Outcome::Stale { current_ts: NOW.wall_us }));
    assert_eq!((node.latest.len(), node.downstream.changes.lock().len()), (0, 0));
    // That every member holds it can be asked only of a record, so one is published: the end of the value.
    let old = draft("s", Some(NOW.wall_us - 1), json("9"));
    let accepted = node.publish_awaited(now, &old, None, 7).expect("answered");
    assert_eq!(accepted.outcome, Outcome::Stale { current_ts: NOW.wall_us });
    assert_eq!(node.outbox.lock().take_awaited().len(), 1);
    assert_eq!(node.latest.get("s").map(|record| record.stamp), Some(Stamp::of_deletion(NOW.wall_us)));
    assert_eq!((node.latest.guards(), node.downstream.changes.lock().len()), (0, 0), "told long ago");
    assert_eq!(published(None, "2"), Ok(Outcome::Applied));
    assert_eq!(node.downstream.changes.lock().len(), 1);
}

/// A peer was away while a value came and ended, and still shows the value before it.
#[test]
fn a_peer_that_missed_a_value_and_its_end_is_corrected() {
    let (node, now) = guarded("a");
    let (peer, older) = (self::node("b"), record("s", NOW.wall_us - 5, "x", Some("0"), 0));
    assert!(peer.apply(now, older.clone(), Arrival::Reconcile));
    assert!(!node.apply(now, older.clone(), Arrival::Repair));
    assert_eq!(node.outbox.lock().last_seq(), 1, "what comes late by other ways is no sign of that");
    assert!(!node.apply(now, older, Arrival::Reconcile));
    let mut told = Vec::new();
    node.outbox.lock().take(usize::MAX, &mut told);
    let end = told.pop().expect("a record");
    assert_eq!((end.stamp, node.downstream.changes.lock().len()), (Stamp::of_deletion(NOW.wall_us), 0));
    assert!(peer.apply(now, end.clone(), Arrival::Tree { hops: 1 }));
    assert!(peer.latest.get("s").is_some_and(|record| record.stamp.deleted));
    // Another node with a guard takes the deletion, and does not tell it again.
    let (third, _) = guarded("c");
    assert!(third.apply(now, end, Arrival::Tree { hops: 1 }));
    assert!(third.downstream.changes.lock().is_empty());
    assert_eq!(third.latest.fingerprints(), peer.latest.fingerprints());
}

#[test]
fn a_time_to_live_ends_in_a_deletion_of_the_same_ts() {
    let node = node("a");
    let mut brief = draft("s", Some(NOW.wall_us), json("1"));
    brief.ttl_ms = 10;
    assert_eq!(outcome(&node, &brief), Outcome::Applied);
    assert_eq!(node.sweep(NOW, true, 100), Some(NOW.wall_us + 10_000));
    let later = NOW.plus_us(10_000);
    assert_eq!(node.sweep(later, true, 100), Some(later.wall_us + DAY_US / crate::limits::EXPIRED_PART));
    let changes = node.downstream.changes.lock();
    assert!(changes.len() == 2 && changes[1].is_expiry && changes[1].record.stamp.ts == NOW.wall_us);
}

/// Deleted data comes back, or tombstones never go: cortexproject/cortex#4420, #4010.
#[test]
fn tombstones_go_on_time_and_are_not_taken_back() {
    let node = node("a");
    outcome(&node, &draft("s", None, DraftPayload::Deleted));
    let tombstone = node.latest.get("s").expect("tombstone");
    let later = NOW.plus_us(DAY_US);
    assert!(node.sweep(later, false, 100).is_some() && node.latest.len() == 1, "a member is away");
    node.sweep(later.plus_us(60_000_000), true, 100);
    assert!(node.latest.is_empty() && node.latest.bytes() == 0);
    assert_eq!(node.latest.fingerprints(), [0; SHARDS]);
    assert_eq!(node.downstream.forgotten.lock().len(), 1);
    assert!(!node.apply(later, tombstone, Arrival::Reconcile));
}

/// Tombstones that wait for a member that never comes back must not grow for ever.
#[test]
fn tombstones_kept_past_their_time_have_a_bound() {
    let node = node("a");
    let bound = crate::limits::TOMBSTONE_BYTES_MAX / SHARDS;
    let (mut number, mut held) = (0, 0);
    while held <= 2 * bound {
        let tombstone = record(&format!("s/{number}"), 1, "x", None, 0);
        number += 1;
        if crate::latest::shard_of(tombstone.source.as_str()) == 7 {
            held += tombstone.cost_bytes();
            node.apply(NOW, tombstone, Arrival::Tree { hops: 1 });
        }
    }
    node.sweep(NOW.plus_us(DAY_US), false, usize::MAX);
    held = 0;
    node.latest.scan_shard(7, &mut |tombstone| held += tombstone.cost_bytes());
    assert!(held <= bound && held > bound / 2, "{held}");
}

#[test]
fn what_the_cluster_forgot_is_discarded_unless_something_newer_came() {
    let node = node("a");
    let (old, new) = (record("s", 1, "x", Some("1"), 5), record("s", 2, "x", Some("1"), 5));
    node.apply(NOW, old.clone(), Arrival::Tree { hops: 1 });
    node.apply(NOW, new.clone(), Arrival::Tree { hops: 1 });
    let mut replica = &node;
    replica.discard(NOW, &old);
    assert_eq!(node.latest.get("s"), Some(new.clone()));
    replica.discard(NOW, &new);
    assert!(node.latest.is_empty() && node.latest.fingerprints() == [0; SHARDS]);
    assert_eq!(node.sweep(NOW.plus_us(DAY_US), true, 9), None, "nothing is due any more");
    assert_eq!(node.downstream.forgotten.lock().len(), 1);
}

fn record(source: &str, ts: u64, origin: &str, data: Option<&str>, ttl_ms: u64) -> SharedRecord {
    let (stamp, payload) = match data {
        Some(data) => {
            (Stamp::of_data(ts, data.as_bytes()), Payload::Json(Bytes::copy_from_slice(data.as_bytes())))
        }
        None => (Stamp::of_deletion(ts), Payload::Deleted),
    };
    let birth = Birth { origin: NodeName::parse(origin).expect("name"), boot: 1, seq: ts };
    let source = Source::parse(source).expect("source");
    Arc::new(Record::new(source, stamp, payload, birth, NOW.wall_us, ttl_ms))
}

fn any_record() -> impl Strategy<Value = SharedRecord> {
    ("[a-c]", 0u64..4, "[xyz]", proptest::option::of("[01]"), 0u64..2).prop_map(
        |(source, ts, origin, data, ttl)| {
            record(&source, ts, &origin, data.as_deref(), if data.is_some() { ttl } else { 0 })
        },
    )
}

proptest! {
    /// Values of a retained topic differ from node to node: emqx#11711, vernemq#507.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        (records, shuffled) in proptest::collection::vec(any_record(), 0..40)
            .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle())),
    ) {
        let (one, two) = (node("a"), node("b"));
        records.iter().for_each(|record| { one.apply(NOW, record.clone(), Arrival::Tree { hops: 1 }); });
        shuffled.iter().for_each(|record| { two.apply(NOW, record.clone(), Arrival::Reconcile); });
        prop_assert_eq!(one.latest.fingerprints(), two.latest.fingerprints());
        for source in ["a", "b", "c"] {
            prop_assert_eq!(one.latest.get(source), two.latest.get(source));
        }
        prop_assert_eq!(one.latest.len(), two.latest.len());
    }

    #[test]
    fn what_subscribers_are_told_only_gets_newer(records in proptest::collection::vec(any_record(), 0..60)) {
        let node = node("a");
        records.into_iter().for_each(|record| { node.apply(NOW, record, Arrival::Tree { hops: 1 }); });
        let changes = node.downstream.changes.lock();
        for source in ["a", "b", "c"] {
            let told: Vec<_> = changes.iter().filter(|c| c.record.source.as_str() == source).collect();
            prop_assert!(told.windows(2).all(|w| w[0].record.stamp < w[1].record.stamp && w[0].version < w[1].version));
            let last = told.last().map(|change| change.record.stamp);
            prop_assert_eq!(last, node.latest.get(source).map(|record| record.stamp));
        }
    }
}

#[test]
fn lists_in_the_order_of_names() {
    let node = node("a");
    for n in (0..50).rev() {
        outcome(&node, &draft(&format!("s/{n:02}"), None, json("1")));
    }
    outcome(&node, &draft("s/07", None, DraftPayload::Deleted));
    let pattern = crate::record::Pattern::parse("s/*").expect("pattern");
    let names = |after| -> Vec<String> {
        let mut listing = crate::latest::Listing::new(pattern.clone(), after, 3);
        while !listing.advance(&node.latest, NOW.wall_us, &mut 7) {}
        let page = listing.into_records();
        page.iter().map(|record| record.source.to_string()).collect()
    };
    assert_eq!(names(None), ["s/00", "s/01", "s/02"]);
    assert_eq!(names(Some("s/05")), ["s/06", "s/08", "s/09"]);
}
