//! Tests of the changes that wait in the journal.

use super::super::schema::{FORMAT, FORMAT_VERSION, FORMAT_WITHOUT_JOURNAL};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// A store that moves records later is the same store to everyone who asks, whenever they ask,
    /// and after the power went.
    #[test]
    fn what_waits_in_the_journal_is_as_good_as_moved(
        changes in proptest::collection::vec((0u8..5, 1u64..30, 0u8..6), 1..80),
        group_len in 1usize..9,
        sources_max in 1usize..4,
        again in any::<bool>(),
        idle in 0usize..3,
    ) {
        let disk = SimDisk::default();
        let late = open_with(&disk, 4, JournalBounds { sources_max, ..ALL_BY_JOURNAL });
        let plain = open_with(&SimDisk::default(), 4, NONE_BY_JOURNAL);
        for part in changes.chunks(group_len) {
            let records: Vec<SharedRecord> = part.iter().map(|&(source, ts, what)| {
                let name = format!("s/{source}");
                Arc::new(if what == 1 { deletion(&name, ts) } else { record(&name, ts, b"1") })
            }).collect();
            let group = match part[0].2 {
                0 => WriteGroup::of_removals(records.iter().map(|r| (r.source.clone(), r.stamp)).collect()),
                _ => WriteGroup::of_records(&records),
            };
            for _ in 0..=usize::from(again) {
                late.commit(&group, Marks::default()).expect("commits");
                plain.commit(&group, Marks::default()).expect("commits");
            }
            for _ in 0..idle {
                late.commit(&WriteGroup::default(), Marks::default()).expect("commits");
            }
            prop_assert_eq!(loaded(&late), loaded(&plain));
            for source in 0..5 {
                let name = format!("s/{source}");
                let unwritten = [Stamp::of_data(40, b"1")];
                let few = HistoryQuery { limit: 2, to_us: 20, ..all_of(&name) };
                for (query, unwritten) in [(all_of(&name), &[][..]), (all_of(&name), &unwritten), (few, &[])] {
                    let of = |store: &Embedded| store.history(&query, unwritten).expect("reads");
                    prop_assert_eq!(of(&late), of(&plain));
                }
            }
        }
        let survived = open(&disk.after_power_cut(), 4);
        prop_assert_eq!(loaded(&survived), loaded(&plain));
        for source in 0..5 {
            let name = format!("s/{source}");
            let of = |store: &Embedded| store.history(&all_of(&name), &[]).expect("reads");
            prop_assert_eq!(of(&survived), of(&plain));
        }
        while late.has_deferred_work() {
            late.commit(&WriteGroup::default(), Marks::default()).expect("commits");
        }
        prop_assert_eq!(journal_rows(&late), 0);
        prop_assert_eq!(loaded(&late), loaded(&plain));
    }
}

fn journal_rows(store: &Embedded) -> usize {
    let rows =
        store.with_database(|database| Ok(database.begin_read()?.open_table(JOURNAL)?.iter()?.count()));
    rows.expect("reads")
}

/// The journal does not grow with what is written, only with what waits, and its rows go.
#[test]
fn the_journal_is_bounded_and_emptied_by_idle_commits() {
    let bounds = JournalBounds {
        group_records_min: 64,
        waiting_bytes: 60_000,
        index_bytes: usize::MAX,
        idle_bytes: 20_000,
        sources_max: 16,
    };
    let store = open_with(&SimDisk::default(), 3, bounds);
    let group = |round: u64| {
        (0..200).map(|n| shared(&format!("s/{}", (n * 7 + round) % 500), round)).collect::<Vec<_>>()
    };
    let group_bytes = WriteGroup::of_records(&group(1)).bytes();
    for round in 1..=60 {
        commit(&store, &group(round)).expect("commits");
        let waiting = store.journal.read().row_bytes();
        assert!(waiting <= 2 * bounds.waiting_bytes + group_bytes, "{waiting} after {round}");
        assert!(journal_rows(&store) <= 20, "a group is a row here, and two rounds take few");
    }
    assert!(store.has_deferred_work() && store.journal.read().row_bytes() > bounds.waiting_bytes / 2);
    // While something waits, a small group takes its place behind it.
    commit(&store, &[shared("s/1", 99)]).expect("commits");
    assert_eq!(stamps(&store, &all_of("s/1"))[0], 99);
    let mut commits = 0;
    while store.has_deferred_work() {
        store.commit(&WriteGroup::default(), Marks::default()).expect("commits");
        commits += 1;
    }
    assert!((3..100).contains(&commits), "{commits}");
    assert_eq!((journal_rows(&store), store.journal.read().row_bytes()), (0, 0));
    commit(&store, &[shared("s/2", 99)]).expect("commits");
    assert!(!store.has_deferred_work(), "a small group goes right to its place");
}

/// A thousand sources of 200 bytes, each written 300 times, took 202 MiB of memory: the records that waited, and as
/// much again that was free and not given back. Only their places in the file are in memory now.
#[test]
fn waiting_records_take_little_memory() {
    let bounds = JournalBounds { sources_max: 0, ..JournalBounds::of(64 << 20) };
    let store = open_with(&SimDisk::default(), 256, bounds);
    for ts in 1..=300 {
        let group: Vec<_> = (0..100).map(|n| Arc::new(record(&format!("s/{n}"), ts, &[b'1'; 200]))).collect();
        commit(&store, &group).expect("commits");
    }
    let (row_bytes, index_bytes) = (store.journal.read().row_bytes(), store.journal.read().index_bytes());
    assert!(row_bytes > 100 * 300 * 200, "all of them wait: {row_bytes} bytes");
    assert!(index_bytes < 100 * 256 * 12, "{index_bytes} bytes of memory for {row_bytes} bytes that wait");
    let newest: Vec<u64> = (45..=300).rev().collect();
    assert_eq!(stamps(&store, &all_of("s/7")), newest);
    store.settle().expect("moves");
    assert_eq!((journal_rows(&store), store.journal.read().index_bytes()), (0, 0));
    assert_eq!(stamps(&store, &all_of("s/7")), newest);
}

/// Of many sources with one record each, the index takes nearly as much as the records. So memory has a bound of
/// its own, and the index a gauge.
#[test]
fn the_index_of_the_journal_is_bounded() {
    let bounds = JournalBounds { index_bytes: 100_000, sources_max: 1, ..JournalBounds::of(1 << 30) };
    let store = open_with(&SimDisk::default(), 3, bounds);
    for round in 0..40 {
        let group: Vec<_> = (0..200).map(|n| shared(&format!("s/{}", round * 200 + n), 1)).collect();
        commit(&store, &group).expect("commits");
        let index_bytes = store.journal.read().index_bytes();
        assert!(index_bytes < 2 * bounds.index_bytes + 200 * 400, "{index_bytes} after {round}");
    }
    assert_eq!(loaded(&store).len(), 8_000);
}

/// The rows of one source that is written all the time leave the file, although few of its records are kept.
#[test]
fn the_rows_of_one_busy_source_are_removed() {
    let bounds = JournalBounds { group_records_min: 0, ..JournalBounds::of(60_000) };
    let store = open_with(&SimDisk::default(), 2, bounds);
    for group in 0..100u64 {
        let records: Vec<_> = (1..=50).map(|n| shared("busy", group * 50 + n)).collect();
        commit(&store, &records).expect("commits");
        let row_bytes = store.journal.read().row_bytes();
        assert!(row_bytes < 3 * bounds.waiting_bytes, "{row_bytes} after {group}");
    }
    assert_eq!(stamps(&store, &all_of("busy")), [5_000, 4_999]);
}

/// The records of the journal are read from rows that a commit may remove meanwhile. A reader must find every
/// record that was durable when it began, wherever the record is by then.
#[test]
fn readers_find_what_is_moved_while_they_read() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let store = open_with(&SimDisk::default(), 4, JournalBounds { sources_max: 3, ..ALL_BY_JOURNAL });
    let durable = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for ts in 1..=400 {
                let group: Vec<_> = (0..9).map(|n| shared(&format!("s/{n}"), ts)).collect();
                commit(&store, &group).expect("commits");
                durable.store(ts, Ordering::SeqCst);
            }
        });
        while durable.load(Ordering::SeqCst) < 400 {
            let before = durable.load(Ordering::SeqCst);
            let history = stamps(&store, &all_of("s/4"));
            let wanted = before.saturating_sub(3).max(1);
            assert!(history.first().is_none_or(|&newest| newest >= before), "{history:?} after {before}");
            assert!(
                (wanted..=before)
                    .all(|ts| ts < history.first().map_or(0, |&n| n.saturating_sub(3))
                        || history.contains(&ts))
            );
            assert!(loaded(&store).iter().all(|record| record.stamp.ts >= before));
        }
    });
}

#[test]
fn a_row_of_the_journal_that_is_damaged_costs_its_records_alone() {
    let disk = SimDisk::default();
    let store = open_with(&disk, 3, JournalBounds { waiting_bytes: 1 << 20, ..ALL_BY_JOURNAL });
    let data = b"\"find these bytes on the disk\"";
    commit(&store, &[Arc::new(record("bad", 1, data)), shared("good", 1)]).expect("commits");
    let mut image = disk.platter();
    let places: Vec<_> = (0..image.len() - data.len()).filter(|&at| image[at..].starts_with(data)).collect();
    assert!(!places.is_empty());
    for at in places {
        image[at + 5] ^= 4;
    }
    let store = open(&SimDisk::of_image(image), 3);
    assert_eq!(loaded(&store), [(*shared("good", 1)).clone()]);
}

/// Files of the version before have no journal; those of a later one are not guessed at.
#[test]
fn a_file_without_a_journal_is_taken_as_it_is() {
    let disk = SimDisk::default();
    let store = open(&disk, 3);
    commit(&store, &[shared("a", 1)]).expect("commits");
    store.close();
    let set_format = |format: u64, journal: bool| {
        let database = disk.open(&Database::builder()).expect("opens");
        let transaction = begin(&database).expect("begins");
        transaction.open_table(NUMBERS).expect("table").insert(FORMAT, format).expect("inserts");
        if !journal {
            assert!(transaction.delete_table(JOURNAL).expect("deletes"));
        }
        transaction.commit().expect("commits");
    };
    set_format(FORMAT_WITHOUT_JOURNAL, false);
    let store = open(&disk, 3);
    assert_eq!(loaded(&store).len(), 1);
    store.close();
    set_format(FORMAT_VERSION + 1, true);
    let settings = Settings { history: 3, cache_bytes: 1 << 20, journal: JournalBounds::default() };
    let opened = Embedded::open(Box::new(disk.clone()), settings, life(1, None));
    assert!(matches!(opened, Err(OpenError::Format { found: 3, known: 2 })));
}
