use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::record::merge::Verdict;
use crate::record::{Birth, NodeName, Payload, Record, Source};

const DAY_US: u64 = 86_400_000_000;
/// Part of a day for which an expired value is kept whole.
const KEPT_US: u64 = DAY_US / crate::limits::EXPIRED_PART;
const WALL_US: u64 = 1_000_000_000_000;

fn record(source: &str, ts: u64, data: Option<&str>, ttl_ms: u64) -> SharedRecord {
    let (stamp, payload) = match data {
        Some(data) => (Stamp::of_data(ts, data.as_bytes()), Payload::Json(data.to_owned().into())),
        None => (Stamp::of_deletion(ts), Payload::Deleted),
    };
    let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: ts };
    let source = Source::parse(source).expect("source");
    Arc::new(Record::new(source, stamp, payload, birth, ts, ttl_ms))
}

/// Merges a record as a peer's. Returns the verdict.
fn put(latest: &Latest, record: &SharedRecord, wall_us: u64) -> Verdict {
    latest.update(record.source.as_str(), |slot| {
        let verdict = slot.judge(record);
        if verdict.replaces() {
            slot.replace(record.clone(), wall_us, DAY_US);
        }
        verdict
    })
}

fn due(wall_us: u64) -> Due {
    Due { wall_us, tombstones_us: DAY_US, may_collect: true, budget: 1_000 }
}

/// Sweeps all shards. Returns how many values expired and how many records were collected.
fn sweep(latest: &Latest, wall_us: u64) -> (usize, usize) {
    let (mut expired, mut collected) = (0, 0);
    for shard in 0..SHARDS {
        latest.sweep_shard(shard, due(wall_us), &mut |swept| match swept {
            Swept::Expired(_) => expired += 1,
            Swept::Collected(_) => collected += 1,
        });
    }
    (expired, collected)
}

fn list(latest: &Latest, pattern: &str, after: Option<&str>, limit: usize, slice: usize) -> Vec<String> {
    let pattern = Pattern::parse(pattern).expect("pattern");
    let mut listing = Listing::new(pattern, after, limit);
    while !listing.advance(latest, WALL_US, &mut { slice }) {}
    listing.into_records().iter().map(|record| record.source.to_string()).collect()
}

proptest! {
    #[test]
    fn a_page_is_what_sorting_all_visible_records_gives(
        texts in proptest::collection::btree_map("([ab]{1,2}/){0,2}[ab$]{1,2}", any::<bool>(), 0..40),
        pattern in "(([ab]{1,2}|\\*)/){0,2}([ab]{1,2}|\\*|\\*\\*)",
        after in proptest::option::of("[ab/]{1,3}"),
        (limit, slice) in (1usize..9, 1usize..50),
    ) {
        let latest = Latest::seeded(7);
        for (text, is_deleted) in &texts {
            put(&latest, &record(text, 5, (!is_deleted).then_some("1"), 0), WALL_US);
        }
        let parsed = Pattern::parse(&pattern).expect("pattern");
        let wanted: Vec<String> = texts
            .iter()
            .filter(|(text, is_deleted)| !**is_deleted && parsed.matches(text))
            .map(|(text, _)| text.clone())
            .filter(|text| after.as_ref().is_none_or(|after| text > after))
            .take(limit)
            .collect();
        prop_assert_eq!(list(&latest, &pattern, after.as_deref(), limit, slice), wanted);
    }

    /// Nodes that hold expired values whole and nodes that have only guards left of them agree.
    #[test]
    fn guards_judge_as_the_records_did_and_count_in_the_fingerprint(
        (first, second) in ((0u64..3, 0u8..3), (0u64..3, 0u8..4)),
    ) {
        let data = |number: u8| ["1", "2", "3"].get(usize::from(number)).copied();
        let held = record("s", first.0, data(first.1), 1);
        let other = record("s", second.0, data(second.1), 0);
        let (whole, guarded) = (Latest::seeded(1), Latest::seeded(2));
        for latest in [&whole, &guarded] {
            put(latest, &held, 0);
            sweep(latest, 2_000);
        }
        guarded.relieve(0, Due { budget: 1, ..due(2_000) }, &mut |_| {});
        prop_assert_eq!((guarded.len(), guarded.guards()), (0, 1));
        prop_assert_eq!(whole.fingerprints(), guarded.fingerprints());
        let stamp = other.stamp;
        prop_assert_eq!(guarded.holds("s", stamp), whole.holds("s", stamp));
        let before = guarded.fingerprints();
        let verdicts = [&whole, &guarded].map(|latest| put(latest, &other, 2_000).replaces());
        prop_assert!(verdicts[0] == verdicts[1] || held.stamp == stamp, "{:?}", verdicts);
        match verdicts[1] {
            true => prop_assert_eq!(whole.fingerprints(), guarded.fingerprints()),
            false => prop_assert_eq!(guarded.fingerprints(), before),
        }
    }

    #[test]
    fn the_sums_are_those_of_what_is_held(
        acts in proptest::collection::vec((0u8..8, 0u64..6, 0u64..3), 1..80),
    ) {
        let latest = Latest::seeded(3);
        let mut wall_us = 1_000;
        for (source, kind, ttl) in acts {
            wall_us += 1_000;
            let name = format!("s/{source}");
            match kind {
                0..3 => _ = put(&latest, &record(&name, wall_us, Some("1"), ttl), wall_us),
                3 => _ = put(&latest, &record(&name, wall_us, None, 0), wall_us),
                4 => _ = sweep(&latest, wall_us),
                _ => latest.relieve(0, Due { budget: 1, ..due(wall_us) }, &mut |_| {}),
            }
            let (mut names, mut print) = (Vec::new(), [0; SHARDS]);
            for (shard, print) in print.iter_mut().enumerate() {
                latest.scan_shard(shard, &mut |record| {
                    names.push(record.source.to_string());
                    *print ^= record.checksum;
                });
            }
            names.sort();
            prop_assert_eq!(names.len(), latest.len());
            prop_assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "each source once");
            if latest.guards() == 0 {
                prop_assert_eq!(print, latest.fingerprints());
            }
        }
        sweep(&latest, wall_us + 2 * DAY_US);
        sweep(&latest, wall_us + 2 * DAY_US);
        let for_ever = latest.len();
        for shard in 0..SHARDS {
            let mut held = Vec::new();
            latest.scan_shard(shard, &mut |record| held.push(record.clone()));
            for record in held {
                latest.update(record.source.as_str(), |slot| slot.remove(&record));
            }
        }
        prop_assert!(for_ever <= 8);
        prop_assert_eq!((latest.len(), latest.guards(), latest.bytes()), (0, 0, 0));
        prop_assert_eq!(latest.fingerprints(), [0; SHARDS]);
    }
}

/// Expired sources filled the map for the time of deletions, each with its whole record.
#[test]
fn a_value_is_whole_then_a_guard_then_gone() {
    let latest = Latest::seeded(1);
    let value = record("s", WALL_US, Some("1"), 1_000);
    let older = record("s", WALL_US - 1, Some("2"), 0);
    assert_eq!(put(&latest, &value, WALL_US), Verdict::Newer);
    let end_us = WALL_US + 1_000_000;
    assert_eq!(sweep(&latest, end_us - 1), (0, 0));
    assert_eq!(sweep(&latest, end_us), (1, 0));
    let whole_bytes = latest.bytes();
    let print = latest.fingerprints();
    assert_eq!(sweep(&latest, end_us + KEPT_US - 1), (0, 0));
    assert_eq!((latest.len(), latest.fingerprints()), (1, print));
    assert_eq!(sweep(&latest, end_us + KEPT_US), (0, 1));
    assert_eq!((latest.len(), latest.guards(), latest.fingerprints()), (0, 1, [0; SHARDS]));
    // Most of the tables' memory is their smallest size.
    assert!(latest.bytes() < whole_bytes);
    assert_eq!(put(&latest, &older, end_us + KEPT_US), Verdict::Older);
    assert_eq!(latest.names_lost_us(), 0, "the name was kept for its time");
    sweep(&latest, end_us + DAY_US - 1);
    assert_eq!(latest.guards(), 1);
    sweep(&latest, end_us + DAY_US);
    assert_eq!((latest.guards(), latest.bytes()), (0, 0));
    assert_eq!(put(&latest, &older, end_us + DAY_US), Verdict::Newer);
}

#[test]
fn a_full_map_lets_go_of_the_expired_first_and_of_guards_then_and_of_nothing_else() {
    let latest = Latest::seeded(1);
    let ends_us = |number: u64| WALL_US + 1_000 * (number + 1);
    for number in 0..1_000 {
        put(&latest, &record(&format!("brief/{number}"), WALL_US, Some("1"), number + 1), WALL_US);
        put(&latest, &record(&format!("gone/{number}"), WALL_US, None, 0), WALL_US);
        put(&latest, &record(&format!("kept/{number}"), WALL_US, Some("1"), 0), WALL_US);
    }
    let wall_us = ends_us(499);
    assert_eq!(sweep(&latest, wall_us), (500, 0));
    let full = latest.bytes();
    latest.relieve(full, due(wall_us), &mut |_| {});
    assert_eq!((latest.len(), latest.guards()), (3_000, 0), "nothing has to go");
    let mut gone = Vec::new();
    latest.relieve(full - 1, due(wall_us), &mut |swept| {
        if let Swept::Collected(record) = swept {
            gone.push(record);
        }
    });
    assert!(latest.bytes() < full && (1..=RELIEVED_PER_LOCK).contains(&gone.len()));
    assert_eq!((latest.len(), latest.guards()), (3_000 - gone.len(), gone.len()));
    assert!(latest.names_lost_us() >= ends_us(0) && latest.names_lost_us() <= wall_us);
    latest.relieve(0, due(wall_us), &mut |_| {});
    assert_eq!(latest.guards(), 0);
    assert_eq!(latest.len(), 2_500, "what has not expired stays, and so do deletions");
    assert_eq!(latest.names_lost_us(), wall_us);
}

/// A snapshot of `zz/*/N` looked at every source of the map, under the locks of its shards.
#[test]
fn a_scan_costs_what_it_finds_and_holds_no_lock_for_long() {
    let latest = Latest::seeded(1);
    for number in 0..20_000 {
        put(&latest, &record(&format!("sensors/{number}/temp"), 5, Some("1"), 0), WALL_US);
    }
    let steps = |pattern: &str| {
        let pattern = Pattern::parse(pattern).expect("pattern");
        let (mut used, mut found) = (0, 0);
        for shard in 0..SHARDS {
            let mut cursor = Cursor::default();
            while !cursor.is_over() {
                let mut steps = usize::MAX;
                let mut in_part = 0;
                latest.scan(shard, &pattern, &mut cursor, &mut steps, &mut |_, _| {
                    in_part += 1;
                    true
                });
                assert!(in_part <= STEPS_PER_LOCK && usize::MAX - steps <= STEPS_PER_LOCK);
                used += usize::MAX - steps;
                found += in_part;
            }
        }
        (used, found)
    };
    for (pattern, most, wanted) in
        [("zz/*/N", 6, 0), ("*/nomatch", 12, 0), ("sensors/7/*", 12, 1), ("sensors/7/temp", 12, 1)]
    {
        let (used, found) = steps(pattern);
        assert!(used <= most * SHARDS, "{pattern}: {used} steps");
        assert_eq!(found, wanted, "{pattern}");
    }
    assert_eq!(steps("sensors/*/temp").1, 20_000);
    assert_eq!(list(&latest, "sensors/**", Some("sensors/9998/"), 3, 1_000_000)[0], "sensors/9998/temp");
    let mut left = usize::MAX;
    let mut listing = Listing::new(Pattern::parse("**").expect("pattern"), Some("sensors/5"), 100);
    assert!(listing.advance(&latest, WALL_US, &mut left));
    assert!(usize::MAX - left < 12 * (SHARDS + 100), "a page costs as much as its records and the shards");
}

/// What changed while a shard was asked in parts is left out.
#[test]
fn changes_are_those_up_to_the_first_look() {
    let latest = Latest::seeded(1);
    let names: Vec<String> =
        (0..).map(|n| format!("s/{n:05}")).filter(|name| shard_of(name) == 9).take(20).collect();
    for name in &names {
        put(&latest, &record(name, 5, Some("1"), 0), WALL_US);
    }
    let (mut cursor, mut upto, mut changes) = (Cursor::default(), None, Vec::new());
    assert_eq!(latest.changes_since(9, (4, &mut upto), &mut cursor, &mut changes), 20);
    assert!(!cursor.is_over() && changes.len() < 16);
    put(&latest, &record(&names[19], 6, Some("2"), 0), WALL_US);
    put(&latest, &record("a", 6, Some("2"), 0), WALL_US);
    while !cursor.is_over() {
        assert_eq!(latest.changes_since(9, (4, &mut upto), &mut cursor, &mut changes), 20);
    }
    let versions: Vec<u64> = changes.iter().map(|change| change.version).collect();
    assert_eq!(versions, (5..20).collect::<Vec<_>>(), "the last one changed again");
}
