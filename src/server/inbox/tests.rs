use std::collections::BTreeMap;
use std::slice::from_ref;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::latest::{Due, Swept};
use crate::record::{Birth, NodeName, Payload, Record, Source, Stamp};
use crate::server::mailbox::deliver;

const SOURCES: u64 = 6;

/// A map and a mailbox for three changes.
struct World {
    latest: Latest,
    mailbox: Mailbox,
    inbox: Inbox,
    clock_us: u64,
    told: BTreeMap<String, (Stamp, bool)>,
    _poll: mio::Poll,
}

impl World {
    fn new() -> World {
        let poll = mio::Poll::new().expect("poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("waker");
        let cost = record(0, 1, 0).cost_bytes() + std::mem::size_of::<Change>();
        let mailbox = Mailbox::bounded(waker, 3 * cost);
        mailbox.set_wanted(true);
        let (latest, inbox) = (Latest::default(), Inbox::default());
        World { latest, mailbox, inbox, clock_us: 1_000_000, told: BTreeMap::new(), _poll: poll }
    }

    fn publish(&mut self, source: u64, ttl_ms: u64) {
        self.clock_us += 1_000;
        let record = Arc::new(record(source, self.clock_us, ttl_ms));
        let name = record.source.clone();
        self.latest.update(name.as_str(), |slot| {
            deliver(from_ref(&self.mailbox), slot.replace(record, self.clock_us, 1 << 40));
        });
    }

    fn sweep(&mut self) {
        let due = Due { wall_us: self.clock_us, tombstones_us: 1 << 40, may_collect: false, budget: 100 };
        for shard in 0..SHARDS {
            self.latest.sweep_shard(shard, due, &mut |swept| {
                if let Swept::Expired(change) = swept {
                    deliver(from_ref(&self.mailbox), change);
                }
            });
        }
    }

    /// Takes the next item of the inbox. Returns `false` if nothing waits.
    fn take(&mut self) -> Result<bool, TestCaseError> {
        match self.inbox.next(&self.mailbox, &self.latest) {
            Mail::Empty => return Ok(false),
            Mail::Overflow | Mail::Scanned => {}
            Mail::Change(change) => {
                let order = (change.record.stamp, change.is_expiry);
                let before = self.told.insert(change.record.source.as_str().to_owned(), order);
                prop_assert!(before.is_none_or(|before| before < order), "{before:?} then {order:?}");
            }
        }
        Ok(true)
    }

    /// The latest stamps and deletions by source, as a reader of the map sees them.
    fn expected(&self) -> BTreeMap<String, (Stamp, bool)> {
        let mut all = Vec::new();
        for shard in 0..SHARDS {
            let (mut cursor, mut upto) = (Cursor::default(), None);
            while !cursor.is_over() {
                self.latest.changes_since(shard, (0, &mut upto), &mut cursor, &mut all);
            }
        }
        let told = |change: Change| {
            (change.record.source.as_str().to_owned(), (change.record.stamp, change.is_expiry))
        };
        all.into_iter().map(told).collect()
    }
}

fn record(source: u64, ts: u64, ttl_ms: u64) -> Record {
    let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: ts };
    let source = Source::parse(&format!("s/{source}")).expect("source");
    Record::new(source, Stamp::of_data(ts, b"1"), Payload::Json("1".into()), birth, ts, ttl_ms)
}

proptest! {
    /// prometheus/alertmanager#1409: what a full queue dropped stayed missing. Here whoever reads on
    /// ends with the newest of every source, in order, each change once; and a position that was
    /// read before is reached only when all up to it was told.
    #[test]
    fn what_was_dropped_is_made_good_exactly(acts in proptest::collection::vec((0u8..10, 0..SOURCES), 1..120)) {
        let mut world = World::new();
        let mut promised = Vec::new();
        for (act, source) in acts {
            match act {
                0..5 => world.publish(source, 0),
                5 => world.publish(source, 3),
                6 => world.sweep(),
                7 => promised.push((world.mailbox.position(), world.expected())),
                _ => _ = world.take()?,
            }
            let position = world.inbox.position();
            for (_, expected) in promised.extract_if(.., |promise| promise.0 <= position) {
                for (source, order) in expected {
                    prop_assert!(world.told.get(&source).is_some_and(|told| *told >= order), "{source}");
                }
            }
        }
        while world.take()? {}
        prop_assert_eq!(&world.told, &world.expected());
        prop_assert_eq!(world.inbox.position(), world.mailbox.position());
    }
}

#[test]
fn what_changed_before_anyone_wanted_it_is_left_to_snapshots() {
    let mut world = World::new();
    world.mailbox.set_wanted(false);
    world.publish(0, 0);
    world.mailbox.set_wanted(true);
    world.inbox.start(&world.latest);
    for _ in 0..10 {
        world.publish(1, 0);
    }
    while world.take().expect("in order") {}
    assert_eq!(world.told.keys().map(String::as_str).collect::<Vec<_>>(), ["s/1"]);
}
