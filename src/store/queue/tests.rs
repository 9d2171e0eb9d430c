//! Tests of the queue: which changes it keeps, merges and drops.

use std::sync::Arc;

use super::*;
use crate::record::Record;
use crate::store::testing::{record, shared};

fn written(group: &WriteGroup) -> Vec<Record> {
    let mut all = Vec::new();
    let read: Result<(), ()> = group.each_source(|_, _, records| {
        all.extend(records.iter().map(|&record| (**record).clone()));
        Ok(())
    });
    assert_eq!(read, Ok(()));
    all
}

#[test]
fn a_ticket_is_covered_by_the_take_that_follows() {
    let queue = WriteQueue::new(1 << 20);
    let first = queue.push(&shared("a", 1));
    let (taken, group) = queue.take();
    assert!(first <= taken && group.records() == 1);
    let second = queue.push(&shared("a", 2));
    assert!(second > taken);
    assert_eq!((queue.records(), queue.unwritten("a").records.len()), (2, 2));
    queue.handle_written();
    assert_eq!((queue.records(), queue.unwritten("a").records.len()), (1, 1));
}

/// hashicorp/consul#9927, prometheus/alertmanager#1409: queues without a bound under load. Here
/// the bytes are bounded whatever is pushed, the newest of a source is kept, and what does not
/// fit holds its tickets back.
#[test]
fn bytes_are_bounded_and_the_newest_stays() {
    let queue = WriteQueue::new(64 * 1024);
    for ts in 1..=5_000 {
        for source in 0..8 {
            queue.push(&shared(&format!("s/{source}"), ts));
            assert!(queue.bytes() <= 32 * 1024);
        }
    }
    assert!(!queue.is_full());
    assert_eq!(queue.lost_from(), None);
    let waiting = queue.records();
    assert!(waiting < 8 * 5_000, "older records of a source are merged away");
    let (_, group) = queue.take();
    assert_eq!(group.records(), waiting);
    let records = written(&group);
    for source in 0..8 {
        let name = format!("s/{source}");
        let last = records.iter().rfind(|record| record.source.as_str() == name);
        assert_eq!(last.map(|record| record.stamp.ts), Some(5_000));
    }
    queue.handle_written();
    assert_eq!((queue.bytes(), queue.records()), (0, 0));
}

#[test]
fn what_does_not_fit_holds_its_tickets_back() {
    let queue = WriteQueue::new(64 * 1024);
    // Chains first, then so many sources that even the newest of each is too much.
    for ts in 1..=40 {
        queue.push(&shared("chain", ts));
    }
    let sources: Vec<String> = (0..300).map(|n| format!("s/{n}")).collect();
    let tickets: Vec<Ticket> = sources.iter().map(|name| queue.push(&shared(name, 1))).collect();
    assert!(queue.bytes() <= 32 * 1024 && queue.is_full());
    assert!(queue.records() < 300);
    assert_eq!(queue.take_lost(), Some(tickets[0]));
    // A record too large for what is left is dropped; the older one of its source still waits.
    let large = Arc::new(record("chain", 99, &vec![b'1'; 20_000]));
    let ticket = queue.push(&large);
    assert_eq!(queue.lost_from(), Some(ticket));
    assert_eq!(queue.unwritten("chain").records.last().map(|record| record.stamp.ts), Some(40));
    assert_eq!(queue.take_lost(), Some(ticket));
    assert_eq!(queue.lost_from(), None);
}

#[test]
fn a_removal_takes_what_waits_but_not_what_is_newer() {
    let queue = WriteQueue::new(1 << 20);
    let (old, new) = (shared("a", 1), shared("a", 2));
    queue.push(&old);
    queue.push(&new);
    queue.remove(&old.source, old.stamp);
    assert_eq!(
        queue.unwritten("a"),
        Unwritten { is_removed: false, records: vec![old.clone(), new.clone()] }
    );
    queue.remove(&new.source, new.stamp);
    assert_eq!(queue.unwritten("a"), Unwritten { is_removed: true, records: Vec::new() });
    queue.push(&old);
    assert_eq!(queue.unwritten("a"), Unwritten { is_removed: true, records: vec![old] });
    assert_eq!(queue.records(), 1);
}

/// A survivor writes the records of a node that is gone, and does so without their shards' locks: a newer
/// record of the source may be in the queue already. A queue that merges would have kept the older one
/// alone, and the newer one, which was promised with the same ticket, would have been lost.
#[test]
fn a_merged_source_keeps_its_newest_record() {
    let queue = WriteQueue::new(8 * 1024);
    queue.push(&shared("s", 1));
    for n in 0.. {
        if queue.is_lagging() {
            break;
        }
        queue.push(&shared(&format!("other/{n}"), 1));
    }
    queue.push(&shared("s", 10_000));
    queue.push(&shared("s", 9_999));
    let waiting = queue.unwritten("s").records;
    assert_eq!(waiting.iter().map(|record| record.stamp.ts).collect::<Vec<_>>(), [10_000]);
    let before = (queue.bytes(), queue.records());
    let (_, group) = queue.take();
    assert_eq!((group.bytes(), group.records()), before);
}

/// What is durable is one number, so a push must never get a ticket that was given up before.
#[test]
fn tickets_never_fall() {
    let queue = WriteQueue::new(64 * 1024);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let queue = &queue;
            scope.spawn(move || {
                let mut last = Ticket(0);
                for ts in 1..=2_000 {
                    let ticket = queue.push(&shared(&format!("s/{}", (ts + thread) % 7), ts));
                    assert!(last <= ticket && ticket <= queue.open_group());
                    last = ticket;
                }
            });
        }
        let mut last = Ticket(0);
        for _ in 0..200 {
            let (ticket, _) = queue.take();
            assert!(last < ticket);
            last = ticket;
            queue.handle_written();
        }
    });
    queue.take();
    queue.handle_written();
    assert_eq!((queue.bytes(), queue.records(), queue.is_empty()), (0, 0, true));
}
