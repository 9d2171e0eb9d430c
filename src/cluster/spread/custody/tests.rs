//! Ranges that come again: a node passes on only the parts that it does not answer for already.

use crate::cluster::spread::codec::pack;
use crate::cluster::spread::harness::{World, address, identity, record};
use crate::cluster::spread::span::Span;
use crate::cluster::spread::{Opened, Packet, PeerLife, SPREAD_BYTES_MAX};
use crate::proto::gossip as proto;

const NODES: usize = 40;

/// Hands the same batch to node 0 with each of these ranges, from one peer each; returns how many members it
/// serves for each.
fn hand_over(world: &mut World, parts: Vec<proto::Part>) -> Vec<usize> {
    let (now, origin) = (world.now(), identity(NODES - 1));
    let record = record(&origin.name, origin.boot, 1, 50);
    let batch = pack(&origin.name, origin.boot, 0, now.mono_us, &[record]).remove(0);
    let node = &mut world.nodes[0];
    let ring = node.ring.clone();
    let mut served = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        let part = proto::Part { number: 1, batch: batch.encoded.clone(), ..part };
        let packet = Opened::of(&proto::Spread { parts: vec![part], ..Default::default() });
        let from = PeerLife { address: address(index + 1), boot: 1 };
        node.spread.handle_spread(now, from, packet, &ring, &mut node.arrivals);
        let packets = std::iter::from_fn(|| node.spread.poll_send());
        let of_batch =
            |packet: &Packet| packet.to_proto().parts.iter().filter(|part| !part.batch.is_empty()).count();
        served.push(packets.map(|(_, packet)| of_batch(&packet)).sum());
    }
    assert!(batch.encoded.len() < SPREAD_BYTES_MAX);
    served
}

fn part(span: Span, hops: u32) -> proto::Part {
    proto::Part { from: span.from, to: span.to, hops, ..Default::default() }
}

/// An error of our own: a node that stood in for a dead one was handed a part of its range by one of its own
/// delegates, took that for a repeat, and acknowledged it. Each relied on the other, and a subtree got
/// nothing until it asked for the gap: of 300 clusters in which half of the nodes died at once, nine had
/// survivors that waited for 200 to 1,000 ms.
#[test]
fn a_part_of_its_own_range_is_served_when_a_delegate_hands_it_back() {
    let mut world = World::new(NODES, 21);
    let here = identity(0).ring_hash();
    let (whole, half) = (Span::whole_after(here), Span { from: here, to: here.wrapping_add(1 << 63) });
    let stand_in = proto::Part { instead_of: Some(identity(7).ring_hash()), ..part(whole, 1) };
    let served = hand_over(&mut world, vec![stand_in, part(half, 3), part(half, 3), part(half, 2)]);
    assert!(served[0] > 0 && served[1] > 0, "{served:?}");
    assert_eq!(served[2..], [0, 0], "the same once more, and from less deep, are repeats");
}

/// A range comes again because another node stands in for its sender, or because the receipt was lost.
#[test]
fn a_repeat_is_passed_on_as_far_as_it_was_not() {
    let mut world = World::new(NODES, 22);
    let here = identity(0).ring_hash();
    let whole = Span::whole_after(here);
    let first = Span { from: here, to: here.wrapping_add(1 << 62) };
    let half = Span { from: here, to: here.wrapping_add(1 << 63) };
    let served = hand_over(&mut world, vec![part(first, 2), part(half, 2), part(first, 1), part(whole, 1)]);
    assert!(served[0] > 0 && served[1] > 0 && served[3] > 0, "{served:?}");
    assert_eq!(served[2], 0, "{served:?}");
}
