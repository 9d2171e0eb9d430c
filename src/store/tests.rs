//! The store as its users see it, on a disk that can fail.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use parking_lot::{Mutex, RwLock};

use super::data_dir::FILE_NAME;
use super::embedded::open_medium;
use super::embedded::tests::{Faults, SYNCS_A_COMMIT, SimDisk};
use super::testing::{deletion, shared};
use super::*;
use crate::cluster::Heads;
use crate::limits::SHARDS;
use crate::record::{HistoryCursor, HistoryQuery, NodeName, Now, SharedRecord};

const PATIENCE: Duration = Duration::from_secs(30);

fn options(wall_us: u64) -> StoreOptions {
    let time = AtomicU64::new(1);
    let clock = move || Now { mono_us: time.fetch_add(10, Ordering::Relaxed), wall_us };
    StoreOptions { cache_bytes: 1 << 20, history: 4, ..StoreOptions::new(Arc::new(clock), 7) }
}

fn open_sim(disk: &SimDisk, options: StoreOptions) -> (StoreHandle, NodeIdentity) {
    open_medium(Box::new(disk.clone()), options, None).and_then(StoreHandle::start).expect("opens")
}

fn loaded(store: &StoreHandle) -> BTreeMap<String, u64> {
    let mut records = BTreeMap::new();
    let report = store.load(&mut |record| {
        records.insert(record.source.to_string(), record.stamp.ts);
    });
    assert_eq!(report.expect("loads").damaged, 0);
    records
}

/// One message for every call of the store's subscriber that finds room.
fn changes(store: &StoreHandle) -> Receiver<()> {
    let (tell, told) = bounded(1);
    store.subscribe(Box::new(move || {
        let _ = tell.try_send(());
    }));
    told
}

fn wait_until(told: &Receiver<()>, mut done: impl FnMut() -> bool) {
    while !done() {
        told.recv_timeout(PATIENCE).expect("the store says that something changed");
    }
}

fn history(
    store: &StoreHandle,
    source: &str,
    limit: usize,
    after: Option<HistoryCursor>,
) -> (Vec<u64>, Option<HistoryCursor>) {
    let query = HistoryQuery { source: source.into(), from_us: 0, to_us: u64::MAX, limit, after };
    let page = store.history(&query).expect("reads");
    (page.records.iter().map(|record| record.stamp.ts).collect(), page.after)
}

#[test]
fn a_directory_is_for_one_process_and_keeps_everything() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("not/yet/there");
    let (store, first) = StoreHandle::open(BackendKind::Embedded, &path, options(1_000_000)).expect("opens");
    let second = StoreHandle::open(BackendKind::Embedded, &path, options(1_000_000));
    let error = second.err().expect("refused");
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    store.push(&shared("a", 1));
    store.push(&shared("b", 2));
    store.set_agreed(77);
    assert!(store.close(PATIENCE));
    assert!(store.close(PATIENCE), "closing twice is closing once");
    drop(store);
    let (store, again) = StoreHandle::open(BackendKind::Embedded, &path, options(1_000_000)).expect("opens");
    assert_eq!(loaded(&store), [("a".to_owned(), 1), ("b".to_owned(), 2)].into());
    assert_eq!((again.boot, again.agreed_us), (first.boot + 1, Some(77)));
    assert_eq!(again.node_name, first.node_name);
    drop(store);
    let named = StoreOptions { node_name: NodeName::parse("n1").ok(), ..options(9_000_000) };
    let (_, named) = StoreHandle::open(BackendKind::Embedded, &path, named).expect("opens");
    assert_eq!((named.node_name.as_str(), named.boot), ("n1", 9_000));
}

// Replicas of one service share a volume, and those that come later must find what others left: the
// newest of it, since a directory that was left long ago lacks what the others stored since.
#[test]
fn nodes_that_share_a_volume_take_the_directory_that_was_written_last() {
    let volume = tempfile::tempdir().expect("directory");
    let path = volume.path().join("pool/*");
    let open =
        || StoreHandle::open(BackendKind::Embedded, &path, StoreOptions { seed: 0, ..options(1_000_000) });
    let place = |number: u32| volume.path().join(format!("pool/{number}"));
    let stores: Vec<StoreHandle> = (0..3).map(|_| open().expect("opens").0).collect();
    for (number, store) in (1..).zip(&stores) {
        store.push(&shared(&format!("of/{number}"), 1));
        assert!(store.close(PATIENCE));
    }
    std::fs::create_dir(volume.path().join("pool/04")).expect("no number of ours");
    drop(stores);
    // The second was the last to stop, the third the first.
    for (number, hours) in [(1, 2), (2, 3), (3, 1)] {
        let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(hours * 3_600);
        for name in [FILE_NAME, "anode.lock"] {
            let file = std::fs::File::options().append(true).open(place(number).join(name));
            file.expect("a file of the store").set_modified(at).expect("a date");
        }
    }
    let again: Vec<StoreHandle> = (0..3).map(|_| open().expect("opens").0).collect();
    let found: Vec<String> = again.iter().flat_map(|store| loaded(store).into_keys()).collect();
    assert_eq!(found, ["of/2", "of/1", "of/3"]);
    let fourth = open().expect("a new one");
    assert!(loaded(&fourth.0).is_empty() && place(4).exists());
}

#[test]
fn the_file_is_closed_cleanly_when_the_last_handle_goes() {
    let disk = SimDisk::default();
    let (store, _) = open_sim(&disk, options(0));
    let other = store.clone();
    drop(store);
    other.push(&shared("a", 1));
    drop(other);
    assert_eq!(loaded(&open_sim(&disk.after_power_cut(), options(0)).0).len(), 1);
}

/// Jepsen, NATS 2.12.1: acknowledged writes were lost in a power cut, because the sync came later.
/// Whatever was durable before the power went is there after it, from whichever thread it came.
#[test]
fn what_is_durable_survives_a_power_cut_at_any_moment() {
    let disk = SimDisk::default();
    let (store, _) = open_sim(&disk, options(0));
    let pushed: Vec<_> = (0..4).map(|_| Mutex::new(Vec::new())).collect();
    let cuts = std::thread::scope(|scope| {
        for (thread, pushed) in pushed.iter().enumerate() {
            let store = &store;
            scope.spawn(move || {
                for ts in 1..=300 {
                    let name = format!("{thread}/{}", ts % 50);
                    pushed.lock().push((store.push(&shared(&name, ts)), name, ts));
                    if ts % 20 == 0 {
                        store.flush(PATIENCE);
                    }
                }
            });
        }
        (0..30)
            .map(|_| {
                store.flush(PATIENCE);
                let durable = store.durable();
                (durable, disk.after_power_cut())
            })
            .collect::<Vec<_>>()
    });
    assert!(store.flush(PATIENCE));
    let cuts = cuts.into_iter().chain([(store.durable(), disk.after_power_cut())]);
    for (durable, disk) in cuts {
        let found = loaded(&open_sim(&disk, options(0)).0);
        for (ticket, name, ts) in pushed.iter().flat_map(|pushed| pushed.lock().clone()) {
            if ticket <= durable {
                assert!(
                    found.get(&name).is_some_and(|&there| there >= ts),
                    "{name} {ts} {ticket:?} {durable:?}"
                );
            }
        }
    }
}

#[test]
fn a_full_disk_is_told_of_waited_for_and_made_good() {
    let disk = SimDisk::default();
    let (store, _) = open_sim(&disk, options(0));
    let told = changes(&store);
    disk.set(Faults { room_bytes: Some(0), ..Faults::default() });
    let ticket = store.push(&shared("a", 1));
    wait_until(&told, || store.health() != StoreHealth::Open);
    store.push(&shared("a", 2));
    store.push(&shared("b", 1));
    assert!(store.durable() < ticket);
    assert_eq!(store.stats().pending_records, 3);
    disk.set(Faults::default());
    wait_until(&told, || store.health() == StoreHealth::Open);
    assert!(store.flush(PATIENCE));
    assert_eq!(store.stats().pending_records, 0);
    let (after, _) = open_sim(&disk.after_power_cut(), options(0));
    assert_eq!(loaded(&after), [("a".to_owned(), 2), ("b".to_owned(), 1)].into());
    assert_eq!(history(&after, "a", 9, None).0, [2, 1]);
}

/// What a flood left in the journal goes to its place as soon as there is time, and not only with the
/// next flood: a start after a kill would have to do it.
#[test]
fn an_idle_store_moves_what_waits() {
    let disk = SimDisk::default();
    let (store, _) = open_sim(&disk, options(0));
    let told = changes(&store);
    // The flood comes as one group.
    disk.set(Faults { room_bytes: Some(0), ..Faults::default() });
    store.push(&shared("first", 1));
    wait_until(&told, || store.health() != StoreHealth::Open);
    for n in 0..2_000 {
        store.push(&shared(&format!("s/{n}"), 1));
    }
    disk.set(Faults::default());
    let mended = disk.syncs();
    assert!(store.flush(PATIENCE));
    // Two groups, and at most 96 sources with each commit that has nothing else to do.
    wait_until(&told, || disk.syncs() >= mended + 22 * SYNCS_A_COMMIT);
    assert_eq!(loaded(&open_sim(&disk.after_power_cut(), options(0)).0).len(), 2_001);
}

#[test]
fn a_dead_disk_does_not_hold_up_the_end() {
    let disk = SimDisk::default();
    let (store, _) = open_sim(&disk, options(0));
    disk.set(Faults { off: true, ..Faults::default() });
    store.push(&shared("a", 1));
    assert!(!store.close(Duration::from_millis(50)));
    assert!(!store.flush(Duration::from_millis(1)));
}

/// A map to catch up from.
#[derive(Default)]
struct Map(RwLock<BTreeMap<String, SharedRecord>>);

impl Map {
    fn push(&self, store: &StoreHandle, record: SharedRecord) -> Ticket {
        let mut map = self.0.write();
        map.insert(record.source.to_string(), record.clone());
        store.push(&record)
    }

    fn remove(&self, store: &StoreHandle, source: &str) {
        let mut map = self.0.write();
        let record = map.remove(source).expect("held");
        store.remove(&record.source, record.stamp);
    }
}

impl LatestRecords for Map {
    fn visit(&self, shard: usize, each: &mut dyn FnMut(&SharedRecord)) {
        let map = self.0.read();
        map.values().filter(|record| record.source.as_str().len() % SHARDS == shard).for_each(each);
    }

    fn holds(&self, source: &str) -> bool {
        self.0.read().contains_key(source)
    }
}

/// A store that is dead for long must not eat the memory, and must be whole when it comes back:
/// nothing that was dropped is missing, nothing that was removed is left, no ticket was too early.
#[test]
fn what_was_dropped_is_read_from_the_map_again() {
    let disk = SimDisk::default();
    let (store, _) = open_sim(&disk, StoreOptions { queue_bytes_max: 256 * 1024, ..options(0) });
    let (map, told) = (Arc::new(Map::default()), changes(&store));
    for n in 0..50 {
        map.push(&store, shared(&format!("old/{n}"), 1));
    }
    assert!(store.flush(PATIENCE));
    disk.set(Faults { off: true, ..Faults::default() });
    let lost: Vec<Ticket> = (0..3000).map(|n| map.push(&store, shared(&format!("new/{n}"), 5))).collect();
    for n in 0..20 {
        map.remove(&store, &format!("old/{n}"));
    }
    assert!(store.needs_resync());
    assert!(matches!(store.health(), StoreHealth::Failing { .. }));
    disk.set(Faults::default());
    // Without the map it writes what it has, and promises nothing of the rest.
    let waits_for_map =
        |health| matches!(health, StoreHealth::Failing { reason } if reason.starts_with("catching up"));
    wait_until(&told, || waits_for_map(store.health()));
    assert!(store.needs_resync() && store.durable() < lost[lost.len() - 1]);
    store.attach(map.clone());
    wait_until(&told, || !store.needs_resync() && store.health() == StoreHealth::Open);
    map.push(&store, shared("new/0", 6));
    assert!(store.flush(PATIENCE));
    assert!(store.durable() >= lost[lost.len() - 1]);
    let expected: BTreeMap<String, u64> =
        map.0.read().iter().map(|(name, record)| (name.clone(), record.stamp.ts)).collect();
    assert_eq!(expected.len(), 3030);
    assert_eq!(loaded(&open_sim(&disk.after_power_cut(), options(0)).0), expected);
}

#[test]
fn the_time_of_agreement_is_kept_without_a_sync_a_second() {
    let disk = SimDisk::default();
    let (store, _) = open_sim(&disk, options(0));
    let opened = disk.syncs();
    for second in 1..=130 {
        store.set_agreed(second * 1_000_000);
        assert!(store.flush(PATIENCE));
    }
    let syncs = disk.syncs() - opened;
    assert!((2..=4).contains(&(syncs / SYNCS_A_COMMIT)), "{syncs} syncs");
    let (_, again) = open_sim(&disk.after_power_cut(), options(0));
    assert!(again.agreed_us.is_some_and(|us| us >= 70_000_000));
}

#[test]
fn history_sees_what_waits() {
    let disk = SimDisk::default();
    let (store, _) = open_sim(&disk, options(0));
    for ts in 1..=3 {
        store.push(&shared("a", ts));
    }
    assert!(store.flush(PATIENCE));
    disk.set(Faults { syncs_fail: true, ..Faults::default() });
    let told = changes(&store);
    store.push(&Arc::new(deletion("a", 4)));
    wait_until(&told, || store.health() != StoreHealth::Open);
    store.push(&shared("a", 5));
    disk.set(Faults::default());
    let (page, next) = history(&store, "a", 2, None);
    assert_eq!(page, [5, 4]);
    wait_until(&told, || store.health() == StoreHealth::Open);
    assert_eq!(history(&store, "a", 9, next), (vec![3, 2], None));
    let source = shared("a", 5).source.clone();
    store.remove(&source, shared("a", 5).stamp);
    assert_eq!(history(&store, "a", 9, None), (Vec::new(), None));
    assert!(store.flush(PATIENCE));
    assert_eq!(history(&store, "a", 9, None), (Vec::new(), None));
}

#[test]
fn memory_keeps_histories_and_nothing_else() {
    let (store, identity) =
        StoreHandle::open(BackendKind::Memory, Path::new("/nowhere/at/all"), options(3_000_000))
            .expect("opens");
    assert_eq!(identity.boot, 3_000);
    for ts in 1..=6 {
        let ticket = store.push(&shared("a", ts));
        assert!(store.durable() >= ticket && store.flush(Duration::ZERO));
    }
    assert_eq!(history(&store, "a", 9, None), (vec![6, 5, 4, 3], None));
    let (page, next) = history(&store, "a", 3, None);
    assert_eq!((page, history(&store, "a", 3, next)), (vec![6, 5, 4], (vec![3], None)));
    assert!(loaded(&store).is_empty());
    store.remove(&shared("a", 5).source, shared("a", 5).stamp);
    assert_eq!(history(&store, "a", 1, None).0, [6]);
    store.remove(&shared("a", 6).source, shared("a", 6).stamp);
    assert!(history(&store, "a", 1, None).0.is_empty());
}

/// A node's clean restart is no reason for its clients to start over; a crash is, since what the
/// heads count may not have been written.
#[test]
fn heads_are_found_once_after_an_orderly_end_and_never_after_a_crash() {
    let disk = SimDisk::default();
    let heads = Heads::from([
        ((NodeName::parse("n1").expect("name"), 5), 7),
        ((NodeName::parse("n2").expect("name"), 9), 1),
    ]);
    let (store, first) = open_sim(&disk, options(1_000_000));
    assert!(first.heads.is_empty());
    store.push(&shared("a", 7));
    store.keep_heads(heads.clone());
    assert!(store.close(PATIENCE));
    drop(store);
    let (store, again) = open_sim(&disk, options(1_000_000));
    assert_eq!(again.heads, heads);
    // No heads are kept this time.
    assert!(store.close(PATIENCE));
    drop(store);
    let (store, third) = open_sim(&disk, options(1_000_000));
    assert!(third.heads.is_empty());
    store.keep_heads(heads);
    assert!(store.flush(PATIENCE), "written, but the end is not orderly");
    let after = disk.after_power_cut();
    drop(store);
    assert!(open_sim(&after, options(1_000_000)).1.heads.is_empty());
}

/// A node that takes boot numbers while it runs must not take one of them again at its next start, where the clock
/// is behind them.
#[test]
fn a_boot_number_that_was_taken_while_the_node_ran_is_kept() {
    let dir = tempfile::tempdir().expect("directory");
    let open = || StoreHandle::open(BackendKind::Embedded, dir.path(), options(1_000_000));
    let (store, first) = open().expect("opens");
    store.set_boot(first.boot + 7);
    store.set_boot(first.boot + 6);
    assert!(store.close(PATIENCE));
    drop(store);
    let (store, again) = open().expect("opens");
    assert_eq!(again.boot, first.boot + 8);
    assert!(store.close(PATIENCE));
    drop(store);
    assert_eq!(open().expect("opens").1.boot, first.boot + 9);
}
