//! When receipts are sent, and how long they are waited for.

use super::codec::pack;
use super::harness::{World, address, identity, record};
use super::{Opened, PeerLife};
use crate::proto::gossip as proto;

/// Length of a tick, in microseconds: the time that every message takes.
const TICK_US: u64 = 100;

fn life(index: usize) -> PeerLife {
    PeerLife { address: address(index), boot: identity(index).boot }
}

/// A receipt went out for the first datagram of a turn alone. Those for the others waited for a millisecond,
/// and meanwhile the sender asked about nearly every part.
#[test]
fn one_receipt_acknowledges_all_datagrams_of_a_turn() {
    let mut world = World::new(2, 3);
    let (now, origin) = (world.now(), identity(1));
    let records: Vec<_> = (1..=9).map(|seq| record(&origin.name, origin.boot, seq, 400)).collect();
    let batches = pack(&origin.name, origin.boot, 0, now.mono_us, &records);
    assert!(batches.len() > 3);
    let place = identity(0).ring_hash();
    let node = &mut world.nodes[0];
    let ring = node.ring.clone();
    for (index, batch) in batches.iter().enumerate() {
        let number = index as u64 + 1;
        let (from, to) = (place, place.wrapping_add(1));
        let part =
            proto::Part { number, from, to, hops: 1, batch: batch.encoded.clone(), ..Default::default() };
        let packet = Opened::of(&proto::Spread { parts: vec![part], ..Default::default() });
        node.spread.handle_spread(now, life(1), packet, &ring, &mut node.arrivals);
        assert!(node.spread.poll_send().is_none(), "more may come in this turn");
    }
    assert_eq!(node.spread.poll_timeout(), Some(now.mono_us), "the receipt does not wait for the clock");
    node.spread.handle_timeout(now, &ring);
    let (to, packet) = node.spread.poll_send().expect("a receipt");
    let below = packet.to_proto().receipt.map(|receipt| receipt.below);
    assert_eq!((to, below), (address(1), Some(batches.len() as u64 + 1)));
    assert!(node.spread.poll_send().is_none());
}

/// While a peer gets a record in every tick, its receipts are a millisecond apart. The sender waited for half
/// of that, and asked about every second part.
#[test]
fn no_part_is_asked_about_while_its_receipt_may_be_kept_back() {
    let mut world = World::new(2, 4);
    let publisher = identity(0);
    let (mut arriving, mut receipts): (Vec<(usize, proto::Spread)>, usize) = (Vec::new(), 0);
    for tick in 1..=1_000 {
        world.now_us += TICK_US;
        let now = world.now();
        for (to, message) in std::mem::take(&mut arriving) {
            let node = &mut world.nodes[to];
            let ring = node.ring.clone();
            node.spread.handle_spread(now, life(1 - to), Opened::of(&message), &ring, &mut node.arrivals);
        }
        for (index, node) in world.nodes.iter_mut().enumerate() {
            let ring = node.ring.clone();
            if node.spread.poll_timeout().is_some_and(|due_us| due_us <= now.mono_us) {
                node.spread.handle_timeout(now, &ring);
            }
            if index == 0 && tick <= 900 {
                node.spread.handle_published(
                    now,
                    &[record(&publisher.name, publisher.boot, tick, 100)],
                    &ring,
                );
            }
            while let Some((_, packet)) = node.spread.poll_send() {
                receipts += usize::from(packet.has_receipt());
                arriving.push((1 - index, packet.to_proto()));
            }
        }
    }
    let origin = &world.nodes[0].spread;
    assert_eq!((origin.stats().timeouts, origin.custody.len()), (0, 0));
    assert!((80..=110).contains(&receipts), "{receipts} receipts in 90 ms");
}
