//! Reconciliation with peers that send what no honest peer does.

use proptest::prelude::*;

use super::stories::{map_of, two};
use super::world::*;
use crate::cluster::reconcile::wire::ReconcileFrame;
use crate::cluster::reconcile::{STRANGER_SESSIONS_MAX, SessionPlan};
use crate::cluster::{StreamEvent, StreamId};
use crate::record::NodeName;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Garbage on an accepted stream closes it, and never panics.
    #[test]
    fn garbage_on_a_stream(bytes in proptest::collection::vec(any::<u8>(), 1..600)) {
        let mut world = two(map_of(0..50), map_of(0..50));
        let end = (0, StreamId(1000));
        world.event(end, StreamEvent::Accepted { from: world.nodes[1].addr });
        world.event(end, StreamEvent::Received(bytes.into()));
        world.run_us(11 * SECOND_US);
        prop_assert_eq!(world.nodes[0].machine.incoming.len(), 0);
    }

    /// Valid frames in an order that no honest peer sends cause no panic and no endless work.
    #[test]
    fn frames_out_of_order(order in proptest::collection::vec((0usize..9, 0usize..4), 1..40), greets: bool) {
        let mut world = two(map_of(0..500), map_of(0..50));
        let end = (0, StreamId(1000));
        world.event(end, StreamEvent::Accepted { from: world.nodes[1].addr });
        let mut bytes = Vec::new();
        if greets {
            hello().encode(&mut bytes);
        }
        for (kind, shard) in order {
            frame(kind, shard).encode(&mut bytes);
        }
        for part in bytes.chunks(97) {
            world.event(end, StreamEvent::Received(part.to_vec().into()));
        }
        world.run_us(11 * SECOND_US);
        prop_assert_eq!(world.nodes[0].machine.incoming.len(), 0);
    }
}

fn hello() -> ReconcileFrame {
    ReconcileFrame::Hello {
        sender: NodeName::parse("x").expect("name"),
        seed: 5,
        wall_us: START.wall_us,
        young_us: 0,
        is_reconciled: true,
        fingerprints: Box::new([3; crate::limits::SHARDS]),
    }
}

fn frame(kind: usize, shard: usize) -> ReconcileFrame {
    let symbol = crate::cluster::reconcile::riblt::Symbol { sum: 1, check: 2, count: 1 };
    match kind {
        0 => hello(),
        1 => ReconcileFrame::Open { shard, count: 40, fold: 9 },
        2 => ReconcileFrame::Symbols { shard, symbols: vec![symbol; 12] },
        3 => ReconcileFrame::Ids { shard, ids: vec![1, 2, 3], has_more: shard.is_multiple_of(2) },
        4 => ReconcileFrame::Records(crate::record::wire::encode(&value(1, 1)).into()),
        5 => ReconcileFrame::Settled { shard, found: 1, wanted: vec![7], wants_all: false },
        6 => ReconcileFrame::Ask { shard, upto: 12 },
        7 => ReconcileFrame::Finish { is_complete: true, heads: Default::default() },
        _ => ReconcileFrame::Busy,
    }
}

/// A peer that opens a session and then sends frames only to use up memory is cut off.
#[test]
fn a_peer_that_sends_without_end_is_cut_off() {
    let map = map_of(0..12_000);
    let sent = |frames: Vec<ReconcileFrame>| {
        let mut world = two(map.clone(), Map::new());
        let end = (0, StreamId(1000));
        world.event(end, StreamEvent::Accepted { from: world.nodes[1].addr });
        let taken = std::iter::once(hello()).chain(frames).map(|frame| {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            world.event(end, StreamEvent::Received(bytes.into()));
            world.nodes[0].machine.incoming.len()
        });
        taken.sum::<usize>()
    };
    let open = |shard: usize, count: u64| ReconcileFrame::Open { shard, count, fold: 9 };
    // Symbols that belong to no set never decode: then only ids are asked for, and no more symbols are taken.
    let lone = xxhash_rust::xxh3::xxh3_64_with_seed(&7u128.to_le_bytes(), 5) as u32;
    let symbol = crate::cluster::reconcile::riblt::Symbol { sum: 7, check: lone, count: 1 };
    let symbols = |count: usize| ReconcileFrame::Symbols { shard: 0, symbols: vec![symbol; count] };
    assert_eq!(sent(vec![open(0, 600), symbols(300), symbols(1), symbols(1)]), 3);
    // These are more bytes of symbols than the ids would have taken.
    assert_eq!(sent(vec![open(0, 600), symbols(437)]), 2);
    // First more ids than were announced; then frames without ids, again and again.
    let ids = |count: usize| ReconcileFrame::Ids { shard: 0, ids: vec![7; count], has_more: true };
    assert_eq!(sent(vec![open(0, 600), ids(450), ids(200)]), 3);
    assert_eq!(sent(vec![open(0, 600), ids(0), ids(0)]), 2);
}

/// What a peer may send is bounded by what it opened: shards of any size cannot be open together.
#[test]
fn shards_are_opened_as_memory_allows() {
    for (count, sessions) in [(5, 1), (65_535, 1), (65_536, 0), (u64::MAX, 0)] {
        let mut world = two(map_of(0..50), Map::new());
        let end = (0, StreamId(1000));
        world.event(end, StreamEvent::Accepted { from: world.nodes[1].addr });
        let mut bytes = Vec::new();
        hello().encode(&mut bytes);
        ReconcileFrame::Open { shard: 0, count, fold: 9 }.encode(&mut bytes);
        ReconcileFrame::Open { shard: 1, count: 5, fold: 9 }.encode(&mut bytes);
        world.event(end, StreamEvent::Received(bytes.into()));
        assert_eq!(world.nodes[0].machine.incoming.len(), sessions, "{count} records");
    }
}

/// Eight peers that opened a stream and said nothing took the places of all sessions for ten seconds.
#[test]
fn strangers_take_no_place_of_a_member() {
    let mut world = two(map_of(0..50), map_of(20..70));
    for number in 0..20 {
        world.nodes[0].machine.accept(world.now, StreamId(1_000 + 2 * number), false);
    }
    for number in 0..10 {
        let mut bytes = Vec::new();
        hello().encode(&mut bytes);
        world.event((0, StreamId(1_000 + 2 * number)), StreamEvent::Received(bytes.into()));
    }
    let incoming = &world.nodes[0].machine.incoming;
    let greeted = incoming.iter().filter(|session| session.is_greeted()).count();
    assert_eq!((greeted, incoming.len()), (STRANGER_SESSIONS_MAX, 10 + STRANGER_SESSIONS_MAX));
    world.session(1, 0, SessionPlan::Whole);
    assert!(world.are_equal());
}
