//! Tests of files in which something is damaged.

use super::*;

/// S3, 2008-07-20: one flipped bit, unchecked, spread through the whole cluster.
#[test]
fn a_record_damaged_on_disk_is_counted_and_skipped() {
    let disk = SimDisk::default();
    let store = open(&disk, 1);
    let data = b"\"find these bytes on the disk\"";
    commit(&store, &[Arc::new(record("bad", 1, data)), shared("good", 1)]).expect("commits");
    store.close();
    let mut image = disk.platter();
    let places: Vec<_> = (0..image.len() - data.len()).filter(|&at| image[at..].starts_with(data)).collect();
    assert!(!places.is_empty());
    for at in places {
        image[at + 5] ^= 4;
    }
    let store = open(&SimDisk::of_image(image), 1);
    let mut names = Vec::new();
    let report = store.load(&mut |record| names.push(record.source.to_string())).expect("loads");
    assert_eq!(
        (report, names),
        (LoadReport { records: 1, damaged: 1, is_partial: false }, vec!["good".to_owned()])
    );
}

#[test]
fn garbage_is_no_store() {
    let disk = SimDisk::of_image(vec![7; 100_000]);
    let settings = Settings { history: 1, cache_bytes: 1 << 20, journal: JournalBounds::default() };
    let opened = Embedded::open(Box::new(disk), settings, life(1, None));
    assert!(matches!(opened, Err(OpenError::Database { .. })));
}

/// A node on a disk that forgot synced pages ended with a panic inside of redb ("entered unreachable code"), and not with
/// the name of the damaged file. Found by `netem/run disk-lies`, seed 1.
#[test]
fn a_file_with_a_page_that_the_disk_has_lost_is_named_as_damaged() {
    let disk = SimDisk::default();
    let store = open(&disk, 4);
    for number in 0..40 {
        commit(&store, &[Arc::new(record(&format!("s/{number}"), 7, b"1"))]).expect("commits");
    }
    let image = disk.platter();
    const PAGE_BYTES: usize = 4_096;
    let is_used = |page: &usize| image[page * PAGE_BYTES..][..PAGE_BYTES].iter().any(|byte| *byte != 0);
    let (mut damaged, mut panicked) = (0, 0);
    for page in (1..image.len() / PAGE_BYTES).filter(is_used) {
        let mut lost = image.clone();
        lost[page * PAGE_BYTES..][..PAGE_BYTES].fill(0x77);
        let settings = Settings { history: 4, cache_bytes: 1 << 20, journal: JournalBounds::default() };
        match Embedded::open(Box::new(SimDisk::of_image(lost)), settings, life(1, None)) {
            // It is not closed in order, because redb would write its own tables, which are not those of the file.
            Ok(opened) => std::mem::forget(opened),
            Err(OpenError::Database { reason: StoreError::Damaged(reason), .. }) => {
                damaged += 1;
                panicked += u32::from(reason.starts_with("the file is damaged: "));
            }
            Err(other) => assert!(!other.to_string().is_empty()),
        }
    }
    assert!(damaged > 0 && panicked > 0, "{damaged} damaged, {panicked} by a panic of redb");
}

/// A start panicked in a debug build, and in others wrote over rows of the journal, when a damaged number had no
/// successor. Found by fuzzing.
#[test]
fn numbers_without_a_successor_are_damage() {
    use super::super::schema::JOURNAL;
    let disk = SimDisk::default();
    {
        let database = builder(1024 * 1024).create_with_backend(disk.clone()).expect("new");
        let transaction = database.begin_write().expect("begun");
        {
            let mut journal = transaction.open_table(JOURNAL).expect("table");
            for number in [3, (1 << 44) - 1, 1 << 44, u64::MAX] {
                journal.insert(number, &[9u8, 0, 0, 0, 0][..]).expect("inserted");
            }
            transaction.open_table(NUMBERS).expect("table").insert(BOOT, u64::MAX).expect("inserted");
        }
        transaction.commit().expect("written");
    }
    let settings = Settings { history: 3, cache_bytes: 1024 * 1024, journal: JournalBounds::default() };
    let (store, identity) = Embedded::open(Box::new(disk.clone()), settings, life(70, None)).expect("opens");
    assert_eq!(identity.boot, 70, "the clock alone decides");
    assert_eq!(store.journal.read().row_bytes(), 5, "one row has a possible number");
}
