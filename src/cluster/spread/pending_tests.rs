//! Nodes that let other threads apply what comes: records reach everyone as fast, and nobody is promised too much.

use bytes::Bytes;

use super::batch::Batch;
use super::codec::pack;
use super::harness::{World, identity, record};
use super::{AppliedBatch, BatchOutcome, Opened, PeerLife, ReceivedBatch};
use crate::cluster::Heads;
use crate::proto::gossip as proto;

const ORIGIN: PeerLife = PeerLife {
    address: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 0)), 7946),
    boot: 1,
};

/// The first batch of the first node.
fn batch() -> Batch {
    let origin = identity(0);
    pack(&origin.name, origin.boot, 0, 0, &[record(&origin.name, origin.boot, 1, 100)]).remove(0)
}

/// A packet of the first node with one part, for all other members.
fn packet(encoded: Bytes) -> Opened {
    let after = identity(1).ring_hash().wrapping_add(1);
    let part = proto::Part {
        number: 1,
        batch: encoded,
        from: after,
        to: after,
        hops: 1,
        without: vec![identity(0).ring_hash()],
        ..Default::default()
    };
    Opened::of(&proto::Spread { parts: vec![part], ..Default::default() })
}

/// The second of three nodes, to which the first hands a batch for the third, and another thread applies it.
struct RelayNode(World);

impl RelayNode {
    fn new() -> RelayNode {
        let mut world = World::new(3, 1);
        world.nodes[1].arrivals.2 = Some(Vec::new());
        RelayNode(world)
    }

    /// Takes the batch from the first node. Returns the batches that are to be applied.
    fn take(&mut self, encoded: Bytes) -> Vec<ReceivedBatch> {
        let now = self.0.now();
        let node = &mut self.0.nodes[1];
        let ring = node.ring.clone();
        node.spread.handle_spread(now, ORIGIN, packet(encoded), &ring, &mut node.arrivals);
        node.arrivals.2.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Applies a batch. Returns its outcome.
    fn apply(&mut self, batch: &ReceivedBatch) -> BatchOutcome {
        let now = self.0.now();
        let node = &mut self.0.nodes[1];
        let outcome = batch.apply_to(now, &mut node.arrivals);
        let ring = node.ring.clone();
        let applied = AppliedBatch { ticket: batch.ticket(), outcome };
        node.spread.handle_applied(now, &[applied], &ring, &mut node.arrivals);
        outcome
    }

    /// What the node sends at the end of its turn: whether a receipt acknowledges the part, and the number of batches
    /// that are handed on.
    fn sent(&mut self) -> (bool, usize) {
        let (mut is_acknowledged, mut batches) = (false, 0);
        let now = self.0.now();
        let node = &mut self.0.nodes[1];
        let (spread, ring) = (&mut node.spread, &node.ring);
        if spread.poll_timeout().is_some_and(|due_us| due_us <= now.mono_us) {
            spread.handle_timeout(now, ring);
        }
        while let Some((to, packet)) = spread.poll_send() {
            let packet = packet.to_proto();
            let receipt = packet.receipt.as_ref().filter(|_| to == ORIGIN.address);
            is_acknowledged |= receipt.is_some_and(|receipt| receipt.below > 1);
            batches += packet.parts.iter().filter(|part| !part.batch.is_empty()).count();
        }
        (is_acknowledged, batches)
    }

    fn head(&self) -> u64 {
        let heads: Heads = self.0.nodes[1].spread.heads();
        heads.get(&(identity(0).name.clone(), identity(0).boot)).copied().unwrap_or(0)
    }
}

/// A receipt that was given before the records were in the map would have promised what a crash takes back, and
/// a part that came again meanwhile would have been applied twice.
#[test]
fn a_batch_is_passed_on_at_once_and_acknowledged_when_it_is_held() {
    let mut relay = RelayNode::new();
    let encoded = batch().encoded;
    let jobs = relay.take(encoded.clone());
    assert_eq!(jobs.len(), 1);
    assert_eq!((relay.sent(), relay.head()), ((false, 1), 0), "handed on, and not held");
    assert!(relay.take(encoded.clone()).is_empty(), "it is being applied");
    assert_eq!((relay.sent(), relay.head()), ((false, 0), 0), "neither handed on twice nor acknowledged");
    assert_eq!(relay.apply(&jobs[0]), BatchOutcome::Held);
    assert_eq!((relay.sent(), relay.head()), ((true, 0), 1));
    relay.apply(&jobs[0]);
    assert!(relay.take(encoded).is_empty(), "what was taken is not applied again");
    assert_eq!(relay.0.nodes[1].arrivals.0.len(), 1);
}

/// S3, 2008-07-20: one flipped bit, unchecked, spread through the whole cluster. A batch whose header is sound is
/// passed on before its records are verified, so it must be called back.
#[test]
fn a_damaged_batch_is_called_back_and_the_next_copy_taken() {
    let mut relay = RelayNode::new();
    let encoded = batch().encoded;
    let mut damaged = encoded.to_vec();
    let data = damaged.windows(8).position(|window| window == [1; 8]).expect("the data of the record");
    damaged[data] ^= 1;
    let jobs = relay.take(damaged.into());
    assert_eq!((jobs.len(), relay.sent()), (1, (false, 1)));
    assert!(relay.take(encoded.clone()).is_empty(), "a different batch of the same name waits for its turn");
    assert_eq!(relay.apply(&jobs[0]), BatchOutcome::Damaged);
    assert_eq!((relay.sent(), relay.head()), ((false, 0), 0));
    assert_eq!(relay.0.nodes[1].spread.custody.len(), 0, "the damaged batch is not sent again");
    assert_eq!(relay.0.nodes[1].spread.stats().corrupt, 1);
    let jobs = relay.take(encoded);
    assert_eq!((jobs.len(), relay.sent()), (1, (false, 1)), "the sound one is handed on");
    assert_eq!(relay.apply(&jobs[0]), BatchOutcome::Held);
    assert_eq!((relay.sent(), relay.head()), ((true, 0), 1));
}

/// A node drops its copy, since it was away for too long, while records are being applied. Some of them may have
/// been dropped with the copy: they are not counted as held, and come again.
#[test]
fn what_is_being_applied_when_the_copy_is_dropped_comes_again() {
    let mut relay = RelayNode::new();
    let encoded = batch().encoded;
    let jobs = relay.take(encoded.clone());
    relay.0.nodes[1].spread.forget_held();
    relay.apply(&jobs[0]);
    assert_eq!((relay.sent().0, relay.head()), (false, 0));
    let jobs = relay.take(encoded);
    assert_eq!(jobs.len(), 1);
    relay.apply(&jobs[0]);
    assert_eq!((relay.sent().0, relay.head()), (true, 1));
}

/// A relay that waited for its own merge would have added that time at every hop.
#[test]
fn passing_on_does_not_wait_for_the_merge() {
    let mut world = World::new(100, 3);
    world.apply_later((20_000, 20_000));
    let since_us = world.now_us;
    let seq = world.publish(7, 1, 100);
    world.run(1_000_000);
    let (times, missing) = world.delivery(7, seq, since_us);
    assert_eq!((missing, world.hops_max), (0, 3));
    assert!(*times.last().unwrap() < 20_000 + 3 * 1_500 + 500, "{times:?}");
    assert!(world.nodes.iter().all(|node| node.spread.custody.len() == 0));
}

/// Batches are applied in any order, datagrams are lost and doubled, and nodes restart: everything arrives, nothing
/// waits for ever, and what the lines call held is held.
#[test]
fn nothing_is_lost_where_batches_overtake_each_other() {
    let count = 30;
    for seed in 1..=3 {
        let mut world = World::new(count, seed);
        (world.loss, world.duplicates) = (50, 20);
        world.apply_later((100, 15_000));
        let mut published = vec![0; count];
        for round in 0..60 {
            let origin = (world.random() % 20) as usize;
            // The largest are pulled over streams, the next come in fragments.
            let len = [100, 100, 100, 3_000, 100_000][round % 5];
            published[origin] += 3;
            world.publish(origin, 3, len);
            world.run(5_000);
            if round == 30 {
                world.restart(25);
            }
        }
        for _ in 0..20 {
            world.probe_all();
            world.run(500_000);
        }
        for (origin, count) in published.into_iter().enumerate() {
            let name = &identity(origin).name;
            let lacking = (1..=count).flat_map(|seq| {
                let nodes = world.nodes.iter().enumerate().filter(|node| node.0 != origin && node.0 != 25);
                nodes.filter(move |node| !node.1.arrivals.0.contains_key(&(name.clone(), seq)))
            });
            assert_eq!(lacking.count(), 0, "seed {seed}, origin {origin}");
        }
        for (index, node) in world.nodes.iter().enumerate() {
            assert!(node.spread.pending.is_empty() && node.spread.custody.len() == 0, "seed {seed}");
            let heads = node.spread.heads();
            let of_others = heads.iter().filter(|((origin, _), _)| *origin != identity(index).name);
            for ((origin, _), head) in of_others {
                let is_held = |seq| node.arrivals.0.contains_key(&(origin.clone(), seq));
                assert!((1..=*head).all(is_held), "seed {seed}: node {index} lacks some of {origin}");
            }
        }
    }
}

/// `replicated` says that every member holds the record: it is not enough that the batch has reached all of them.
#[test]
fn replicated_waits_until_the_record_is_held() {
    for seed in 1..=5 {
        let mut world = World::new(20, seed);
        world.loss = 20;
        world.apply_later((1_000, 30_000));
        for round in 0..20 {
            world.publish_awaited(round % 20, 100);
            world.run(10_000);
        }
        world.run(3_000_000);
        assert_eq!(world.answers.len(), 20);
        for ((node, token), (answer, _, lacking)) in &world.answers {
            assert!(answer.is_whole && answer.nodes == 20, "seed {seed}: {node} {token} {answer:?}");
            assert_eq!(*lacking, 0, "seed {seed}: {node} {token} answered too early");
        }
    }
}

/// A peer that never hears of its part goes on sending it: what is being applied for ever would block it.
#[test]
fn a_report_that_never_comes_does_not_block_the_batch() {
    let mut relay = RelayNode::new();
    let encoded = batch().encoded;
    let lost = relay.take(encoded.clone());
    relay.sent();
    let now = relay.0.now();
    relay.0.nodes[1].is_up = true;
    relay.0.now_us = now.mono_us + 12_000_000;
    let later = relay.0.now();
    let ring = relay.0.nodes[1].ring.clone();
    relay.0.nodes[1].spread.handle_timeout(later, &ring);
    let jobs = relay.take(encoded);
    assert_eq!(jobs.len(), 1);
    relay.apply(&lost[0]);
    assert_eq!(relay.head(), 0, "the report of the first is void");
    relay.apply(&jobs[0]);
    assert_eq!(relay.head(), 1);
}
