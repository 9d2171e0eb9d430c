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
    let bounds =
        JournalBounds { group_records_min: 64, waiting_bytes: 60_000, idle_bytes: 20_000, sources_max: 16 };
    let store = open_with(&SimDisk::default(), 3, bounds);
    let group = |round: u64| {
        (0..200).map(|n| shared(&format!("s/{}", (n * 7 + round) % 500), round)).collect::<Vec<_>>()
    };
    let group_bytes = WriteGroup::of_records(&group(1)).bytes();
    for round in 1..=60 {
        commit(&store, &group(round)).expect("commits");
        let waiting = store.journal.read().bytes();
        assert!(waiting <= 2 * bounds.waiting_bytes + group_bytes, "{waiting} after {round}");
        assert!(journal_rows(&store) <= 8, "a group is a row here, and a round takes few");
    }
    assert!(store.has_deferred_work() && store.journal.read().bytes() > bounds.waiting_bytes / 2);
    // While something waits, a small group takes its place behind it.
    commit(&store, &[shared("s/1", 99)]).expect("commits");
    assert_eq!(stamps(&store, &all_of("s/1"))[0], 99);
    let mut commits = 0;
    while store.has_deferred_work() {
        store.commit(&WriteGroup::default(), Marks::default()).expect("commits");
        commits += 1;
    }
    assert!((3..100).contains(&commits), "{commits}");
    assert_eq!((journal_rows(&store), store.journal.read().bytes()), (0, 0));
    commit(&store, &[shared("s/2", 99)]).expect("commits");
    assert!(!store.has_deferred_work(), "a small group goes right to its place");
}

#[test]
fn a_row_of_the_journal_that_is_damaged_costs_its_records_alone() {
    let disk = SimDisk::default();
    let store = open_with(&disk, 3, JournalBounds { waiting_bytes: 1 << 20, ..ALL_BY_JOURNAL });
    let data = b"\"find these bytes on the disk\"";
    commit(&store, &[Arc::new(record("bad", 1, data)), shared("good", 1)]).expect("commits");
    let mut image = disk.after_power_cut().disk.lock().platter.clone();
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
