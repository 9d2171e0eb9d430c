//! The tables on a disk that can lose power, run full and fail to sync.

mod damage;
mod disk;
mod waiting;

use std::sync::Arc;

use proptest::prelude::*;

pub(in crate::store) use self::disk::{Faults, SYNCS_A_COMMIT, SimDisk};
use super::*;
use crate::record::{HistoryCursor, NodeName, Source};
use crate::store::testing::{deletion, record, shared};

fn life(boot_min: u64, name: Option<&str>) -> NewLife {
    NewLife {
        node_name: name.map(|name| NodeName::parse(name).expect("name")),
        made_up: NodeName::parse("made-up").expect("name"),
        boot_min,
    }
}

fn open(disk: &SimDisk, history: u32) -> Embedded {
    open_with(disk, history, JournalBounds::default())
}

fn open_with(disk: &SimDisk, history: u32, journal: JournalBounds) -> Embedded {
    let settings = Settings { history, cache_bytes: 1024 * 1024, journal };
    Embedded::open(Box::new(disk.clone()), settings, life(1, None)).expect("opens").0
}

/// Bounds with which every group goes into the journal, and one source is moved at a time.
const ALL_BY_JOURNAL: JournalBounds = JournalBounds {
    group_records_min: 0,
    waiting_bytes: 4_000,
    index_bytes: 4_000,
    idle_bytes: 1,
    sources_max: 1,
};
/// Bounds with which no group is written by the journal.
const NONE_BY_JOURNAL: JournalBounds = JournalBounds { group_records_min: usize::MAX, ..ALL_BY_JOURNAL };

fn commit(store: &Embedded, records: &[SharedRecord]) -> Result<(), StoreError> {
    store.commit(&WriteGroup::of_records(records), Marks::default())
}

fn loaded(store: &Embedded) -> Vec<Record> {
    let mut records = Vec::new();
    let report = store.load(&mut |record| records.push(record)).expect("loads");
    assert_eq!((report.records, report.damaged), (records.len() as u64, 0));
    records
}

fn all_of(source: &str) -> HistoryQuery {
    HistoryQuery { source: source.into(), from_us: 0, to_us: u64::MAX, after: None, limit: 1000 }
}

fn stamps(store: &Embedded, query: &HistoryQuery) -> Vec<u64> {
    stamps_beside(store, query, &[])
}

fn stamps_beside(store: &Embedded, query: &HistoryQuery, unwritten: &[Stamp]) -> Vec<u64> {
    store.history(query, unwritten).expect("reads").iter().map(|record| record.stamp.ts).collect()
}

#[test]
fn history_is_a_ring_and_a_page_is_a_range() {
    let disk = SimDisk::default();
    let store = open(&disk, 5);
    for ts in 1..=3 {
        commit(&store, &[shared("a", ts * 10)]).expect("commits");
    }
    assert_eq!(stamps(&store, &all_of("a")), [30, 20, 10]);
    let group: Vec<_> = [40, 50, 60].map(|ts| shared("a", ts)).into();
    commit(&store, &group).expect("commits");
    assert_eq!(stamps(&store, &all_of("a")), [60, 50, 40, 30, 20]);
    let part = HistoryQuery { from_us: 30, to_us: 50, ..all_of("a") };
    assert_eq!(stamps(&store, &part), [50, 40, 30]);
    assert_eq!(stamps(&store, &HistoryQuery { limit: 2, ..part.clone() }), [50, 40]);
    assert_eq!(
        stamps(&store, &HistoryQuery { after: Some(HistoryCursor(shared("a", 40).stamp)), ..part }),
        [30]
    );
    // What waits takes the places of the oldest.
    let waiting = [shared("a", 70).stamp, shared("a", 80).stamp];
    assert_eq!(stamps_beside(&store, &all_of("a"), &waiting), [60, 50, 40]);
    // A group longer than the ring, and neighbours that must not be touched.
    let group: Vec<_> = (7..=20).map(|n| shared("a", n * 10)).collect();
    commit(&store, &[shared("a/b", 1), shared("Z", 1)]).expect("commits");
    commit(&store, &group).expect("commits");
    assert_eq!(stamps(&store, &all_of("a")), [200, 190, 180, 170, 160]);
    assert_eq!(loaded(&store).len(), 3);
    // A shorter ring at the next start: trimmed by the next write.
    drop(store);
    let store = open(&disk, 2);
    commit(&store, &[shared("a", 210)]).expect("commits");
    assert_eq!(stamps(&store, &all_of("a")), [210, 200]);
}

#[test]
fn writes_compare_stamps_and_removals_reach_only_what_they_know() {
    let store = open(&SimDisk::default(), 4);
    commit(&store, &[shared("a", 10), shared("b", 10)]).expect("commits");
    commit(&store, &[shared("a", 5), shared("a", 10), shared("a", 7)]).expect("commits");
    assert_eq!(stamps(&store, &all_of("a")), [10]);
    commit(&store, &[Arc::new(deletion("a", 20))]).expect("commits");
    let stamp = Stamp::of_deletion(20);
    let older = WriteGroup::of_removals(vec![(Source::parse("a").expect("source"), Stamp::of_deletion(19))]);
    store.commit(&older, Marks::default()).expect("commits");
    assert_eq!(stamps(&store, &all_of("a")), [20, 10]);
    let same = WriteGroup::of_removals(vec![(Source::parse("a").expect("source"), stamp)]);
    store.commit(&same, Marks::default()).expect("commits");
    assert_eq!(stamps(&store, &all_of("a")), [0u64; 0]);
    let mut names = Vec::new();
    store.sources(None, 9, &mut |name, _| names.push(name.to_owned())).expect("reads");
    assert_eq!(names, ["b"]);
    commit(&store, &[shared("a", 3)]).expect("commits");
    assert_eq!(stamps(&store, &all_of("a")), [3]);
}

#[test]
fn the_node_is_born_anew_at_every_start() {
    let disk = SimDisk::default();
    let settings = || Settings { history: 1, cache_bytes: 1 << 20, journal: JournalBounds::default() };
    let open = |life| Embedded::open(Box::new(disk.clone()), settings(), life).expect("opens").1;
    let first = open(life(100, None));
    assert_eq!((first.boot, first.node_name.as_str(), first.agreed_us), (100, "made-up", None));
    // The clock was set back: the number rises all the same.
    assert_eq!(open(life(7, None)).boot, 101);
    assert_eq!(open(life(500, Some("n1"))).node_name.as_str(), "n1");
    let last = open(life(1, None));
    assert_eq!((last.boot, last.node_name.as_str()), (501, "n1"));
}

/// Jepsen, NATS 2.12.1: acknowledged writes were lost in a power cut, because the sync came later.
/// The power goes at every sync, with none, some or all but some of its pages on the platter: every
/// image opens, and holds every group whose commit had returned before, whole groups only.
#[test]
fn nothing_durable_is_lost_by_a_power_cut_at_any_sync() {
    for journal in
        [JournalBounds::default(), ALL_BY_JOURNAL, JournalBounds { sources_max: 20, ..ALL_BY_JOURNAL }]
    {
        cut_power_at_every_sync(journal);
    }
}

fn cut_power_at_every_sync(journal: JournalBounds) {
    let disk = SimDisk::default();
    let store = open_with(&disk, 3, journal);
    disk.keep_images();
    let mut images = Vec::new();
    for round in 1..=12u64 {
        let group: Vec<_> = (0..40).map(|n| shared(&format!("s/{}", n * round % 97), round)).collect();
        // Every source carries the round, and "round" tells which rounds a file holds.
        let group = [vec![shared("round", round)], group].concat();
        commit(&store, &group).expect("commits");
        images.extend(disk.images().into_iter().map(|image| (round - 1, image)));
        disk.keep_images();
        images.push((round, disk.platter()));
    }
    for (durable, image) in images {
        let store = open(&SimDisk::of_image(image), 3);
        let records = loaded(&store);
        let round = records.iter().find(|r| r.source.as_str() == "round").map_or(0, |r| r.stamp.ts);
        assert!((durable..=durable + 1).contains(&round), "{round} is there, {durable} was durable");
        for n in 0..97 {
            let name = format!("s/{n}");
            let last = (1..=round).rev().find(|r| (0..40).any(|k| k * r % 97 == n));
            let found = records.iter().find(|r| r.source.as_str() == name).map(|r| r.stamp.ts);
            assert_eq!(found, last, "{name} after round {round}");
        }
    }
}

/// PostgreSQL, 2018: the kernel forgets the pages of a failed sync, and the next one succeeds
/// without them. What is acknowledged after the failure must be on the platter.
#[test]
fn a_failed_sync_is_made_good_before_the_next_counts() {
    for (after, journal) in (0..12).flat_map(|after| [(after, NONE_BY_JOURNAL), (after, ALL_BY_JOURNAL)]) {
        let disk = SimDisk::default();
        let store = open_with(&disk, 3, journal);
        let group =
            |from: u64| (from..from + 300).map(|n| shared(&format!("s/{n}"), from + 1)).collect::<Vec<_>>();
        commit(&store, &group(0)).expect("commits");
        disk.set(Faults { sync_fails_after: Some(after), ..Faults::default() });
        for from in [100, 200, 300, 400] {
            while commit(&store, &group(from)).is_err() {
                while store.recover().is_err() {}
            }
            let survived = open(&disk.after_power_cut(), 3);
            assert_eq!(loaded(&survived).len() as u64, from + 300, "sync {after} failed");
            // To be read as a whole it moves what waits, and it may be that which fails.
            while store.settle().is_err() {
                while store.recover().is_err() {}
            }
            assert_eq!(loaded(&survived), loaded(&store));
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_and_works_again_with_room() {
    for (room, journal) in [0, 5_000, 30_000, 100_000]
        .into_iter()
        .flat_map(|room| [(room, NONE_BY_JOURNAL), (room, ALL_BY_JOURNAL)])
    {
        let disk = SimDisk::default();
        let store = open_with(&disk, 3, journal);
        commit(&store, &[shared("a", 1)]).expect("commits");
        let written = disk.written_bytes();
        disk.set(Faults { room_bytes: Some(written + room), ..Faults::default() });
        let group: Vec<_> = (0..2000).map(|n| shared(&format!("s/{n}"), 5)).collect();
        assert!(commit(&store, &group).is_err());
        // Whether or not it can be opened again, the power may go now.
        let _ = store.recover();
        assert_eq!(loaded(&open(&disk.after_power_cut(), 3)).len(), 1);
        disk.set(Faults::default());
        store.recover().expect("recovers");
        commit(&store, &group).expect("commits");
        assert_eq!(loaded(&open(&disk.after_power_cut(), 3)).len(), 2001);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Against a model: any groups, of any order, cut at any place, written twice or not.
    #[test]
    fn latest_and_history_are_those_of_a_model(
        changes in proptest::collection::vec((0u8..4, 1u64..30, any::<bool>()), 1..60),
        group_len in 1usize..9,
        again in any::<bool>(),
    ) {
        let store = open(&SimDisk::default(), 4);
        let mut model: std::collections::BTreeMap<String, Vec<Record>> = Default::default();
        let records: Vec<SharedRecord> = changes.iter().map(|&(source, ts, deleted)| {
            let name = format!("s/{source}");
            Arc::new(if deleted { deletion(&name, ts) } else { record(&name, ts, b"1") })
        }).collect();
        for group in records.chunks(group_len) {
            for _ in 0..=usize::from(again) {
                commit(&store, group).expect("commits");
            }
            for record in group {
                let ring = model.entry(record.source.to_string()).or_default();
                if ring.last().is_none_or(|last| last.stamp < record.stamp) {
                    ring.push((**record).clone());
                }
            }
        }
        for (source, ring) in &model {
            let kept: Vec<Record> = ring.iter().rev().take(4).cloned().collect();
            prop_assert_eq!(store.history(&all_of(source), &[]).expect("reads"), kept);
        }
        let latest: Vec<Record> = model.values().filter_map(|ring| ring.last().cloned()).collect();
        prop_assert_eq!(loaded(&store), latest);
    }
}

/// Earlier versions kept the greatest timestamp issued for any source. Their files are taken as they are.
#[test]
fn a_file_with_the_mark_of_the_clock_is_taken() {
    let disk = SimDisk::default();
    let store = open(&disk, 4);
    commit(&store, &[Arc::new(record("s", 7, b"1"))]).expect("commits");
    let kept = store.with_database(|database| {
        let transaction = begin(database)?;
        transaction.open_table(NUMBERS)?.insert("clock_high_water_us", u64::MAX)?;
        transaction.commit()?;
        Ok(())
    });
    kept.expect("commits");
    drop(store);
    let store = open(&disk, 4);
    assert_eq!(loaded(&store), [record("s", 7, b"1")]);
    assert_eq!(store.marks().expect("reads"), Marks::default());
}
