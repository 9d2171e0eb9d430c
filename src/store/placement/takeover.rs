//! Takes over the records of a node that is gone before they were in the store that all nodes share.
//!
//! Each node writes the records that it accepted, and publishes a mark: a record of its own, under a system
//! name, that gives the number up to which all of them are stored. That record travels like every other.
//! Every node holds the records of all. When a life of a node ends, the survivors look for its records with
//! numbers greater than its mark, and write them. One survivor, chosen by hash, is first; the next looks only
//! some time later, at the mark that the one before it left. A record that is written twice changes nothing,
//! so the survivors need not agree.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::limits::SHARDS;
use crate::record::{NodeName, Now, SharedRecord, Source};
use crate::store::queue::Ticket;

/// Interval at which a node looks at the members and at how far its own records are stored, in microseconds.
const LOOK_US: u64 = 1_000_000;
/// Interval at which a node publishes its mark although nothing has changed, in microseconds. Marks must be
/// kept for longer than this ([`MARK_TTL_MS`]).
const REPEAT_US: u64 = 12 * 3_600_000_000;
/// Time for which every node that holds a mark is to keep it, in milliseconds.
pub(crate) const MARK_TTL_MS: u64 = 48 * 3_600_000;
/// Time after the end of a life at which the first survivor looks, in microseconds.
const FIRST_US: u64 = 2_000_000;
/// Time after which a survivor looks again, for records that came late, in microseconds.
const AGAIN_US: u64 = 30_000_000;
/// Time by which the next survivor looks later than the one before it, in microseconds.
const NEXT_US: u64 = 30_000_000;

const _: () = assert!(MARK_TTL_MS * 1_000 > REPEAT_US);

/// One life of a node: its run from a start to the end that follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeLife {
    /// Name of the node.
    pub(crate) node: NodeName,
    /// Boot number of the life.
    pub(crate) boot: u64,
}

/// The node that a [`Takeover`] works for: its members, its map, and its store.
pub(crate) trait Survivor {
    /// Lives of all members that are alive, this node's included.
    fn alive(&self) -> BTreeSet<NodeLife>;
    /// Number of the record that this node accepted last. Every record up to it is pushed when this
    /// returns.
    fn last_seq(&self) -> u64;
    /// The number up to which the records of a life are stored, as far as is known here; 0 if no mark is
    /// known.
    fn mark(&self, life: &NodeLife) -> u64;
    /// Publishes a mark. Returns the number that the mark got as a record of this node, or `None` if it
    /// was refused.
    fn publish_mark(&self, now: Now, life: &NodeLife, seq: u64) -> Option<u64>;
    /// Shows every record of a shard of the map.
    fn visit_shard(&self, shard: usize, each: &mut dyn FnMut(&SharedRecord));
    /// Pushes a record to the store.
    fn push(&self, record: &SharedRecord) -> Ticket;
    /// The ticket that covers everything pushed to the store so far.
    fn barrier(&self) -> Ticket;
    /// The ticket up to which everything is in the store.
    fn durable(&self) -> Ticket;
    /// Returns whether the store lags, so that nothing more is to be pushed for now.
    fn is_lagging(&self) -> bool;
}

/// Work that is left to do about a life that ended.
#[derive(Debug)]
struct EndedLife {
    due_us: u64,
    /// Mark of the life at the first look. Marks that were published since must not hide records that came
    /// late.
    mark: Option<u64>,
    has_looked: bool,
    /// The shard at which the look goes on.
    shard: usize,
    /// Greatest number among the records that were found so far.
    greatest: u64,
    /// Ticket with which everything that was found so far is stored.
    ticket: Option<Ticket>,
}

/// A number of this node's, and the ticket that is durable when every record up to it is stored.
#[derive(Clone, Copy, Debug)]
struct AwaitedMark {
    seq: u64,
    ticket: Ticket,
}

/// This node's part in a shared store: publishes how far its own records are stored, and writes those of
/// nodes that are gone. To be called often with [`Takeover::look`].
#[derive(Debug)]
pub(crate) struct Takeover {
    own: NodeLife,
    looked_us: u64,
    awaited: Option<AwaitedMark>,
    /// The number of the mark that was published last.
    said: u64,
    /// Monotonic time at which the number was published, in microseconds.
    said_us: u64,
    alive: BTreeSet<NodeLife>,
    ended: BTreeMap<NodeLife, EndedLife>,
}

impl Takeover {
    /// Makes the part of the node whose life is `own`.
    pub(crate) fn new(own: NodeLife) -> Takeover {
        let (alive, ended) = (BTreeSet::new(), BTreeMap::new());
        Takeover { own, looked_us: 0, awaited: None, said: 0, said_us: 0, alive, ended }
    }

    /// Does what is due. Returns at once unless [`LOOK_US`] have passed since the last look.
    pub(crate) fn look(&mut self, now: Now, node: &impl Survivor) {
        if now.mono_us < self.looked_us + LOOK_US {
            return;
        }
        self.looked_us = now.mono_us;
        self.say(now, node);
        self.watch(now, node);
        let is_due = |(_, ended): &(&NodeLife, &EndedLife)| ended.due_us <= now.mono_us;
        let due: Vec<NodeLife> = self.ended.iter().filter(is_due).map(|(life, _)| life.clone()).collect();
        for life in due {
            let Some(mut ended) = self.ended.remove(&life) else { continue };
            if !ended.take_over(now, node, &life) {
                self.ended.insert(life, ended);
            }
        }
    }

    /// Publishes how far this node's own records are stored.
    fn say(&mut self, now: Now, node: &impl Survivor) {
        let durable = node.durable();
        if let Some(AwaitedMark { seq, .. }) = self.awaited.filter(|awaited| awaited.ticket <= durable) {
            self.awaited = None;
            let is_new = seq > self.said || now.mono_us >= self.said_us + REPEAT_US;
            if is_new && let Some(own) = node.publish_mark(now, &self.own, seq) {
                // The mark is a record with a number of its own: without this, every mark would cause another
                // one.
                self.said = if own == seq + 1 { own } else { seq };
                self.said_us = now.mono_us;
            }
        }
        if self.awaited.is_none() {
            let seq = node.last_seq();
            self.awaited = Some(AwaitedMark { seq, ticket: node.barrier() });
        }
    }

    /// Notices lives that ended, and those that came back.
    fn watch(&mut self, now: Now, node: &impl Survivor) {
        let alive = node.alive();
        for life in self.alive.difference(&alive) {
            let rank = rank(&self.own.node, life, alive.iter().map(|life| &life.node));
            tracing::info!(node = life.node.as_str(), rank, "a node is gone: its records are looked after");
            let due_us = now.mono_us + FIRST_US + rank * NEXT_US;
            let ended =
                EndedLife { due_us, mark: None, has_looked: rank > 0, shard: 0, greatest: 0, ticket: None };
            self.ended.insert(life.clone(), ended);
        }
        self.ended.retain(|life, _| !alive.contains(life));
        self.alive = alive;
    }
}

impl EndedLife {
    /// Goes on looking for records of the life that are not stored, and pushes them. Returns `true` once
    /// nothing is left to do.
    fn take_over(&mut self, now: Now, node: &impl Survivor, life: &NodeLife) -> bool {
        let mark = *self.mark.get_or_insert_with(|| node.mark(life));
        while self.shard < SHARDS && !node.is_lagging() {
            let mut found: Vec<SharedRecord> = Vec::new();
            node.visit_shard(self.shard, &mut |record| {
                let birth = &record.birth;
                let is_of_life = birth.boot == life.boot && birth.origin == life.node;
                if is_of_life && birth.seq > mark && !Source::is_system(record.source.as_str()) {
                    found.push(record.clone());
                }
            });
            self.shard += 1;
            for record in found {
                self.greatest = self.greatest.max(record.birth.seq);
                // This is not done under the shard's lock: a newer record may be pushed before this one, and
                // wins in the store.
                self.ticket = Some(node.push(&record));
            }
        }
        if self.shard < SHARDS || self.ticket.is_some_and(|ticket| ticket > node.durable()) {
            return false;
        }
        if self.ticket.take().is_some() {
            tracing::info!(
                node = life.node.as_str(),
                upto = self.greatest,
                "records of a node that is gone are stored"
            );
            node.publish_mark(now, life, self.greatest);
        }
        self.shard = 0;
        self.due_us = now.mono_us + AGAIN_US;
        std::mem::replace(&mut self.has_looked, true)
    }
}

/// The rank of this node among the survivors of a life, from 0 for the first to look. All nodes that see the
/// same members compute the same ranks.
fn rank<'a>(own: &NodeName, life: &NodeLife, alive: impl Iterator<Item = &'a NodeName>) -> u64 {
    let place = |name: &NodeName| {
        let seed = xxh3_64_with_seed(life.node.as_str().as_bytes(), life.boot);
        (xxh3_64_with_seed(name.as_bytes(), seed), name.clone())
    };
    let mine = place(own);
    alive.filter(|name| place(name) < mine).count() as u64
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::store::testing::shared;

    fn life(name: &str, boot: u64) -> NodeLife {
        NodeLife { node: NodeName::parse(name).expect("name"), boot }
    }

    #[test]
    fn one_survivor_is_first_and_the_line_is_the_same_for_all() {
        let names: Vec<NodeName> = (0..9).map(|n| life(&format!("n{n}"), 0).node).collect();
        for boot in 0..20 {
            let gone = life("n99", boot);
            let mut ranks: Vec<u64> = names.iter().map(|own| rank(own, &gone, names.iter())).collect();
            ranks.sort_unstable();
            assert_eq!(ranks, (0..9).collect::<Vec<u64>>());
        }
    }

    /// A node of made-up members, whose map has its records in one shard.
    #[derive(Default)]
    struct FakeNode {
        alive: RefCell<BTreeSet<NodeLife>>,
        records: Vec<SharedRecord>,
        marks: RefCell<BTreeMap<NodeLife, u64>>,
        pushed: RefCell<Vec<u64>>,
        durable: Cell<u64>,
        last_seq: Cell<u64>,
        is_lagging: Cell<bool>,
    }

    impl Survivor for FakeNode {
        fn alive(&self) -> BTreeSet<NodeLife> {
            self.alive.borrow().clone()
        }

        fn last_seq(&self) -> u64 {
            self.last_seq.get()
        }

        fn mark(&self, life: &NodeLife) -> u64 {
            self.marks.borrow().get(life).copied().unwrap_or(0)
        }

        fn publish_mark(&self, _now: Now, life: &NodeLife, seq: u64) -> Option<u64> {
            self.marks.borrow_mut().insert(life.clone(), seq);
            self.last_seq.set(self.last_seq.get() + 1);
            Some(self.last_seq.get())
        }

        fn visit_shard(&self, shard: usize, each: &mut dyn FnMut(&SharedRecord)) {
            if shard == 0 {
                self.records.iter().for_each(each);
            }
        }

        fn push(&self, record: &SharedRecord) -> Ticket {
            self.pushed.borrow_mut().push(record.birth.seq);
            self.barrier()
        }

        fn barrier(&self) -> Ticket {
            Ticket(self.durable.get() + 1)
        }

        fn durable(&self) -> Ticket {
            Ticket(self.durable.get())
        }

        fn is_lagging(&self) -> bool {
            self.is_lagging.get()
        }
    }

    fn at(second: u64) -> Now {
        Now { mono_us: second * 1_000_000, wall_us: second * 1_000_000 }
    }

    #[test]
    fn a_node_says_how_far_it_is_stored_and_does_not_answer_itself() {
        let node = FakeNode::default();
        let own = life("n2", 3);
        node.alive.borrow_mut().insert(own.clone());
        let mut takeover = Takeover::new(own.clone());
        node.last_seq.set(5);
        takeover.look(at(1), &node);
        takeover.look(at(2), &node);
        assert_eq!(node.mark(&own), 0, "not durable yet");
        node.durable.set(1);
        takeover.look(at(3), &node);
        assert_eq!((node.mark(&own), node.last_seq.get()), (5, 6));
        // The mark itself is no news; after half a day the mark is said again.
        for second in 4..20 {
            node.durable.set(second);
            takeover.look(at(second), &node);
        }
        assert_eq!((node.mark(&own), node.last_seq.get()), (5, 6));
        node.durable.set(100);
        takeover.look(at(13 * 3_600), &node);
        assert_eq!((node.mark(&own), node.last_seq.get()), (6, 7));
    }

    /// Records of n1 in its life 1 have their `ts` as their number.
    #[test]
    fn the_first_survivor_writes_what_is_over_the_mark_then_looks_once_more() {
        let records = [("a", 3), ("b", 4), ("c", 7), ("$anode/x", 9)];
        let records = records.map(|(name, ts)| shared(name, ts)).into();
        let (own, gone) = (life("n2", 1), life("n1", 1));
        let node = FakeNode { records, ..FakeNode::default() };
        node.marks.borrow_mut().insert(gone.clone(), 3);
        node.alive.borrow_mut().extend([own.clone(), gone.clone()]);
        let mut takeover = Takeover::new(own);
        takeover.look(at(1), &node);
        node.alive.borrow_mut().remove(&gone);
        takeover.look(at(2), &node);
        takeover.look(at(3), &node);
        assert!(node.pushed.borrow().is_empty(), "it may be back soon");
        node.is_lagging.set(true);
        takeover.look(at(4), &node);
        assert!(node.pushed.borrow().is_empty(), "the store has enough to do");
        node.is_lagging.set(false);
        takeover.look(at(5), &node);
        assert_eq!(*node.pushed.borrow(), [4, 7]);
        assert_eq!(node.mark(&gone), 3, "pushed, but not durable");
        node.durable.set(9);
        takeover.look(at(6), &node);
        assert_eq!(node.mark(&gone), 7);
        // Half a minute later it looks again, from the mark that it found at first.
        takeover.look(at(37), &node);
        assert_eq!(*node.pushed.borrow(), [4, 7, 4, 7]);
        node.durable.set(20);
        takeover.look(at(38), &node);
        takeover.look(at(200), &node);
        assert_eq!(node.pushed.borrow().len(), 4, "nothing is left to do");
    }

    #[test]
    fn a_node_that_comes_back_looks_after_itself() {
        let (own, gone) = (life("n2", 1), life("n1", 1));
        let node = FakeNode { records: vec![shared("a", 3)], ..FakeNode::default() };
        node.alive.borrow_mut().extend([own.clone(), gone.clone()]);
        let mut takeover = Takeover::new(own);
        takeover.look(at(1), &node);
        node.alive.borrow_mut().remove(&gone);
        takeover.look(at(2), &node);
        node.alive.borrow_mut().insert(gone);
        takeover.look(at(3), &node);
        takeover.look(at(60), &node);
        assert!(node.pushed.borrow().is_empty());
    }
}
