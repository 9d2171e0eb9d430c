use std::sync::Arc;

use super::*;
use crate::cluster::outbox::Outbox;
use crate::ingest::{Bounds, Change, Downstream, Ingest};
use crate::record::{Birth, NodeName, Payload, Record, Source};

/// Keeps what was delivered, in order.
#[derive(Default)]
struct Delivered(parking_lot::Mutex<Vec<SharedRecord>>);

impl Downstream for Delivered {
    fn deliver(&self, change: Change) {
        self.0.lock().push(change.record);
    }
    fn store(&self, _: &SharedRecord) -> u64 {
        0
    }
    fn store_winner(&self, _: &SharedRecord) -> u64 {
        0
    }
    fn forget(&self, _: Now, _: &SharedRecord) {}
    fn store_health(&self) -> Result<(), String> {
        Ok(())
    }
}

fn ingest() -> Ingest<Delivered> {
    let bounds = Bounds { record_bytes_max: 1 << 20, map_bytes_max: 1 << 30, tombstones_us: 1 };
    let outbox = Outbox::new(NodeName::parse("me").expect("name"), 1);
    Ingest::new(bounds, outbox, Arc::default(), Delivered::default(), 0)
}

/// The batch of the record number `seq` of an origin, with `len` bytes of data.
fn batch(origin: &str, seq: u64, len: usize) -> ReceivedBatch {
    let birth = Birth { origin: NodeName::parse(origin).expect("name"), boot: 1, seq };
    let data = vec![b'1'; len];
    let stamp = Stamp::of_data(seq, &data);
    let source = Source::parse(&format!("s/{origin}")).expect("source");
    let record = Record::new(source, stamp, Payload::Json(data.into()), birth, seq, 0);
    ReceivedBatch::of_one(origin, 1, &Arc::new(record))
}

/// Offers a batch as the cluster machine does. Returns the worker that it was handed to.
fn offer(sharing: &mut MergeSharing, batch: ReceivedBatch) -> Option<usize> {
    let worker = sharing.choose(&batch)?;
    sharing.hand(worker, batch);
    Some(worker)
}

/// Worker 0's end with this number of workers, after turns in which much came.
fn busy(workers: usize) -> MergeSharing {
    let mut sharing = MergeSharing::new(workers);
    for _ in 0..LOAD_TURNS {
        sharing.load = 10 * SHARED_FROM;
        sharing.end_turn(&Metrics::default());
    }
    sharing
}

/// Puts everything into the queues, lets every worker merge it, and takes the outcomes.
fn merge_all(sharing: &mut MergeSharing, queues: &MergeQueues, ingest: &Ingest<Delivered>) -> usize {
    for (worker, share) in sharing.workers.iter_mut().enumerate() {
        queues.put(worker, &mut share.staged);
        while queues.work(worker, ingest) == Some(true) {}
    }
    sharing.take_applied(queues).len()
}

/// A node with one worker, and one that gets a record now and then, would have paid for a second thread without
/// any gain.
#[test]
fn worker_0_merges_what_is_little_and_all_where_it_is_alone() {
    let mut sharing = busy(1);
    assert!((1..500).all(|seq| offer(&mut sharing, batch("a", seq, 1)).is_none()));
    let mut sharing = MergeSharing::new(4);
    for seq in 1..500 {
        assert_eq!(offer(&mut sharing, batch("a", seq, 1)), None);
        sharing.end_turn(&Metrics::default());
    }
    let in_burst = (500..700).filter(|seq| offer(&mut sharing, batch("a", *seq, 1)).is_some()).count();
    assert_eq!(in_burst, 200 - BURST + 1, "the rest of a large turn");
}

/// A subscriber that wants every record misses those that are overtaken.
#[test]
fn what_waits_of_an_origin_is_not_overtaken() {
    let (queues, ingest, mut sharing) = (MergeQueues::new(3), ingest(), busy(3));
    let first = offer(&mut sharing, batch("a", 1, 5_000)).expect("handed over");
    let other = offer(&mut sharing, batch("b", 1, 1)).expect("handed over");
    assert_ne!(first, other, "the least busy");
    assert_eq!(offer(&mut sharing, batch("a", 2, 1)), Some(first), "behind the other, however busy it is");
    for _ in 0..100 {
        sharing.load = 1;
        sharing.end_turn(&Metrics::default());
    }
    assert!(!sharing.is_sharing);
    assert_eq!(offer(&mut sharing, batch("a", 3, 1)), Some(first), "behind the others, however little comes");
    assert_eq!(offer(&mut sharing, batch("c", 1, 1)), None);
    assert_eq!(merge_all(&mut sharing, &queues, &ingest), 4);
    let delivered = ingest.downstream().0.lock();
    let of_a: Vec<u64> =
        delivered.iter().filter(|it| it.source.as_str() == "s/a").map(|it| it.birth.seq).collect();
    assert_eq!(of_a, [1, 2, 3]);
    drop(delivered);
    assert_eq!(offer(&mut sharing, batch("a", 4, 1)), None, "nothing waits any more");
}

/// A worker that stood still would have had everything that came queued for it, without end.
#[test]
fn a_full_queue_leaves_the_work_to_worker_0() {
    let (queues, ingest, mut sharing) = (MergeQueues::new(2), ingest(), busy(2));
    let handed = (1..=2_000).take_while(|seq| offer(&mut sharing, batch("a", *seq, 1)).is_some()).count();
    assert_eq!(handed, MERGE_QUEUE_BATCHES_MAX);
    assert_eq!(merge_all(&mut sharing, &queues, &ingest), handed);
    let handed =
        (1..=2_000).take_while(|seq| offer(&mut sharing, batch("a", *seq, 60_000)).is_some()).count();
    assert!((10..=MERGE_QUEUE_BYTES_MAX / 60_000).contains(&handed), "{handed}");
    assert_eq!(merge_all(&mut sharing, &queues, &ingest), handed);
    let (large, small) = (batch("b", 1, 2 * MERGE_QUEUE_BYTES_MAX), batch("c", 1, 1));
    assert!(offer(&mut sharing, large).is_some(), "a large one may wait alone");
    assert_eq!(offer(&mut sharing, small), None);
    assert_eq!(merge_all(&mut sharing, &queues, &ingest), 1);
    let left = &sharing.workers[1];
    assert_eq!((left.batches, left.bytes, sharing.lines.values().map(|line| line.batches).sum()), (0, 0, 0));
}
