//! Tests of what reconciliation must achieve, each told as a story.

use proptest::prelude::*;

use super::world::*;
use crate::cluster::reconcile::SessionPlan;
use crate::cluster::reconcile::link::SESSION_WINDOW_BYTES;
use crate::cluster::reconcile::wire::ShardSet;
use crate::cluster::{Heads, Replica};
use crate::record::{NodeName, Payload};

const TS: u64 = START.wall_us - HOUR_US;

pub(super) fn map_of(numbers: impl Iterator<Item = u64>) -> Map {
    let mut map = Map::new();
    for number in numbers {
        map.put(value(number, TS));
    }
    map
}

pub(super) fn two(first: Map, second: Map) -> World {
    let mut world = World::new(1);
    world.add(false, |_| {}, first);
    world.add(false, |_| {}, second);
    world
}

fn bytes_of(map: &Map) -> usize {
    map.records().map(|record| crate::record::wire::encode(record).len()).sum()
}

#[test]
fn an_empty_node_joins_a_full_one() {
    let full = map_of(0..20_000);
    let record_bytes = bytes_of(&full);
    let mut world = World::new(3);
    world.add(false, |_| {}, full);
    let heads = Heads::from([((NodeName::parse("origin").expect("name"), 1), 20_000)]);
    world.nodes[0].heads = heads.clone();
    world.add(true, |_| {}, Map::new());
    assert!(!world.nodes[1].machine.is_reconciled());
    assert!(world.run(|world| world.nodes[1].machine.is_reconciled()));
    assert!(world.are_equal());
    assert_eq!(world.nodes[1].map.applied, 20_000);
    assert_eq!(world.nodes[1].merged, [heads]);
    assert_eq!(world.nodes[1].machine.agreed_us(), Some(world.now.wall_us));
    assert!(world.stream_bytes < record_bytes + record_bytes / 20 + 8192, "{} bytes", world.stream_bytes);
    let waiting = world.nodes[0].waiting_max;
    assert!(waiting < 1024 * 1024, "{waiting} bytes waited in the driver");
    assert_eq!(world.open_streams(), 0);
}

#[test]
fn a_full_node_finds_an_empty_one() {
    let mut world = two(map_of(0..3000), Map::new());
    assert!(world.run(World::are_equal));
}

#[test]
fn both_sides_end_with_the_newest_of_both() {
    let (mut left, mut right) = (map_of(0..4000), map_of(1000..5000));
    for number in 2000..2200 {
        left.put(value(number, TS + 7));
        right.put(value(number + 100, TS + 9));
    }
    let mut world = two(left, right);
    // One session is enough, whichever side has the newer record.
    world.session(0, 1, SessionPlan::Whole);
    assert!(world.are_equal());
    let map = &world.nodes[0].map;
    assert_eq!(map.len(), 5000);
    let ts = |number| map.get(&format!("sensors/{number}/value")).map(|record| record.stamp.ts);
    assert_eq!((ts(2050), ts(2150), ts(2250)), (Some(TS + 7), Some(TS + 9), Some(TS + 9)));
}

/// A record that one side refuses is not offered again and again. When its time has come, it is found.
#[test]
fn a_record_that_is_too_far_ahead_costs_no_sessions() {
    let mut full = map_of(0..100);
    full.put(value(7, START.wall_us + 25 * HOUR_US));
    let mut world = two(full, map_of(0..100));
    world.run_us(60 * SECOND_US);
    let begun =
        |world: &World| -> u64 { world.nodes.iter().map(|node| node.machine.stats().sessions_begun).sum() };
    let before = begun(&world);
    assert!((1..=6).contains(&before), "{before} sessions");
    world.run_us(600 * SECOND_US);
    assert_eq!((begun(&world), world.nodes[1].map.refused), (before, 0));
    world.run_us(3 * HOUR_US);
    assert!(world.are_equal() && world.nodes[1].map.refused == 0);
}

#[test]
fn three_nodes_agree() {
    let mut world = World::new(9);
    for index in 0..3u64 {
        world.add(index > 0, |_| {}, map_of(index * 500..index * 500 + 800));
    }
    assert!(
        world.run(|world| {
            world.are_equal() && world.nodes.iter().all(|node| node.machine.is_reconciled())
        })
    );
    assert_eq!(world.nodes[0].map.len(), 1800);
}

/// emqx#11711, vernemq#507: values of a retained topic differed from node to node.
#[test]
fn ties_end_the_same_everywhere() {
    let (mut left, mut right) = (Map::new(), Map::new());
    for number in 0..50 {
        let source = format!("tie/{number}");
        let data = |text: &'static str| Payload::Json(text.into());
        left.put(record(&source, TS, "a", data("1")));
        right.put(record(&source, TS, "b", data("1")));
        let other = format!("hash/{number}");
        left.put(record(&other, TS, "a", data("1")));
        right.put(record(&other, TS, "a", data("2")));
        let deleted = format!("deleted/{number}");
        left.put(record(&deleted, TS, "a", data("1")));
        right.put(record(&deleted, TS, "a", Payload::Deleted));
    }
    let mut world = two(left, right);
    assert!(world.run(World::are_equal));
    for record in world.nodes[0].map.records() {
        let source = record.source.as_str();
        assert!(!source.starts_with("tie") || record.birth.origin.as_str() == "b");
        assert!(!source.starts_with("deleted") || record.stamp.deleted);
    }
}

#[test]
fn a_small_difference_in_a_large_map_costs_little() {
    let full = map_of(0..100_000);
    let mut holed = full.clone();
    for number in 0..100 {
        holed.remove(&format!("sensors/{}/value", number * 1000));
    }
    let mut world = two(full, holed);
    assert!(world.run(World::are_equal));
    let total = world.stream_bytes + world.datagram_bytes;
    // 100 records are 18 KB; symbols and the frames of some 80 shards come to about 40 KB.
    assert!(total < 80_000, "{total} bytes");
}

#[test]
fn a_large_difference_costs_at_most_three_times_itself() {
    let (mut left, mut right) = (map_of(0..20_000), map_of(0..20_000));
    let mut differing_bytes = 0;
    for number in 0..4000 {
        for (map, number) in [(&mut left, number), (&mut right, number + 4000)] {
            let record = value(number, TS + number);
            differing_bytes += crate::record::wire::encode(&record).len();
            map.put(record);
        }
    }
    let mut world = two(left, right);
    assert!(world.run(World::are_equal));
    let times = world.stream_bytes as f64 / differing_bytes as f64;
    assert!(times < 3.0, "{times:.2} times the records that differ");
}

/// Some four differences in each of all shards: what finding them costs weighs most there.
#[test]
fn a_thin_difference_in_all_shards_is_found_in_few_symbols() {
    let (mut left, mut right) = (map_of(0..20_000), map_of(0..20_000));
    for number in 0..1000u64 {
        let map = if number.is_multiple_of(2) { &mut left } else { &mut right };
        map.put(value(number * 20, TS + 1));
    }
    let mut world = two(left, right);
    assert!(world.run(World::are_equal));
    world.run_us(2 * SECOND_US);
    // 1,000 records are 169 KB, half of them cross twice; the rest is 17 symbols a shard.
    assert!(world.stream_bytes < 390_000, "{} bytes", world.stream_bytes);
}

#[test]
fn everything_differs_on_both_sides() {
    let left = map_of(0..10_000);
    let right = map_of(10_000..20_000);
    let differing_bytes = bytes_of(&left) + bytes_of(&right);
    let mut world = two(left, right);
    assert!(world.run(World::are_equal));
    assert_eq!(world.nodes[0].map.len(), 20_000);
    let times = world.stream_bytes as f64 / differing_bytes as f64;
    assert!(times < 1.5, "{times:.2} times the records that differ");
}

#[test]
fn equal_nodes_exchange_a_number_a_second() {
    let mut world = two(map_of(0..1000), map_of(0..1000));
    world.run_us(60 * SECOND_US);
    assert_eq!(world.stream_bytes, 0);
    let compared: u64 = world.nodes.iter().map(|node| node.machine.stats().compared).sum();
    assert!((100..150).contains(&compared), "{compared} comparisons");
    assert!(world.datagram_bytes < 40 * compared as usize);
    assert!(world.nodes.iter().all(|node| node.machine.agreed_us().is_some()));
}

#[test]
fn records_on_their_way_cause_no_traffic_of_records() {
    let mut world = two(map_of(0..1500), map_of(0..1500));
    for step in 0..300u64 {
        // One node is always 50 ms ahead of the other.
        for ahead in 0..40 {
            let record = value((step * 40 + ahead) % 1500, world.now.wall_us);
            world.nodes[0].map.put(record.clone());
        }
        world.run_us(50_000);
        let late: Vec<_> = world.nodes[0].map.records().cloned().collect();
        late.into_iter().for_each(|record| {
            world.nodes[1].map.put(record);
        });
        world.run_us(50_000);
    }
    let sent: u64 = world.nodes.iter().map(|node| node.machine.stats().records_sent).sum();
    assert!(sent < 200, "{sent} of 12000 records were sent again");
    assert!(world.nodes.iter().all(|node| node.machine.stats().sessions_begun < 12));
}

#[test]
fn what_is_young_is_left_out_and_then_heads_say_nothing() {
    let (mut left, mut right) = (map_of(0..3000), map_of(0..3000));
    for number in 0..20 {
        left.put(value(number, START.wall_us - SECOND_US));
        right.put(value(number + 100, START.wall_us - 5 * SECOND_US));
    }
    let mut world = two(left, right);
    world.nodes[1].heads = Heads::from([((NodeName::parse("origin").expect("name"), 1), 99)]);
    world.session(0, 1, SessionPlan::Settled(ShardSet::all()));
    let stats = |index: usize| *world.nodes[index].machine.stats();
    // The young records are left out, since they are on their way; the other side's old records of their
    // sources are sent in vain.
    assert_eq!((stats(0).records_applied, stats(1).records_applied), (20, 0));
    assert!(world.nodes.iter().all(|node| node.merged.is_empty() && node.machine.agreed_us().is_none()));

    let mut world = two(world.nodes.remove(0).map, world.nodes.remove(0).map);
    world.nodes[1].heads = Heads::from([((NodeName::parse("origin").expect("name"), 1), 99)]);
    world.session(0, 1, SessionPlan::Whole);
    assert!(world.are_equal());
    assert_eq!(world.nodes[0].merged, [world.nodes[1].heads.clone()]);
}

/// hashicorp/consul#9927, prometheus/alertmanager#1409: unbounded queues under load.
#[test]
fn a_peer_that_does_not_read_holds_little_memory() {
    let mut world = two(map_of(0..60_000), Map::new());
    world.begin(1, 0, SessionPlan::Whole);
    while world.stream_bytes < 200_000 && world.step() {}
    world.frozen = Some(0);
    world.run_us(5 * SECOND_US);
    let waiting = world.nodes[0].waiting_max;
    assert!((100_000..SESSION_WINDOW_BYTES + 128 * 1024).contains(&waiting), "{waiting} bytes wait");
    world.frozen = None;
    assert!(world.run(World::are_equal));
}

/// cortexproject/cortex#4420, #4010: deleted data came back, because tombstones collected on some
/// nodes were re-sent by others.
#[test]
fn collected_deletions_do_not_come_back_and_cost_nothing() {
    let old = START.wall_us - 25 * HOUR_US;
    let mut keeps = map_of(0..2000);
    for number in 0..100 {
        keeps.put(record(&format!("gone/{number}"), old, "a", Payload::Deleted));
    }
    let mut world = two(keeps, map_of(0..2000));
    world.run_us(60 * SECOND_US);
    assert_eq!(world.nodes[1].map.len(), 2000, "a collected deletion came back");
    assert_eq!(world.nodes[0].map.len(), 2100);
    let sent: u64 = world.nodes.iter().map(|node| node.machine.stats().records_sent).sum();
    let sessions: u64 = world.nodes.iter().map(|node| node.machine.stats().sessions_begun).sum();
    assert_eq!(sent, 0);
    assert!(sessions <= 2, "{sessions} sessions for nothing");
    // A difference that matters is still found.
    world.nodes[0].map.put(value(7, TS + 1));
    assert!(
        world.run(|world| world.nodes[1].map.get("sensors/7/value").is_some_and(|r| r.stamp.ts == TS + 1))
    );
}

#[test]
fn a_deletion_that_is_kept_wins_over_the_value() {
    let mut deleted = map_of(0..100);
    for number in 0..50 {
        deleted.put(record(&format!("sensors/{number}/value"), TS + 1, "a", Payload::Deleted));
    }
    let mut world = two(map_of(0..100), deleted);
    assert!(world.run(World::are_equal));
    assert_eq!(world.nodes[0].map.records().filter(|record| record.stamp.deleted).count(), 50);
}

/// The same story from the other end: a node that was away for longer than deletions are kept
/// holds values whose deletion nobody remembers.
#[test]
fn a_node_away_for_too_long_drops_its_copy() {
    let mut world = World::new(5);
    world.add(false, |_| {}, map_of(0..1000));
    // 1000 to 1999 were deleted, and collected, while it was away; 5000 is new, and its own.
    let mut stale = map_of(0..2000);
    let own = record("own/5000", START.wall_us, "n1", Payload::Json("1".into()));
    stale.put(own);
    let away =
        |config: &mut crate::cluster::MachineConfig| config.agreed_us = Some(START.wall_us - 24 * HOUR_US);
    world.add(true, away, stale);
    assert!(world.nodes[1].machine.must_discard());
    assert!(world.run(|world| world.nodes[1].machine.is_reconciled() && world.are_equal()));
    assert_eq!(world.nodes[1].discards, 1);
    assert!(!world.nodes[1].machine.must_discard());
    assert_eq!(world.nodes[0].map.len(), 1001);
    assert!(world.nodes[0].map.get("own/5000").is_some());
    assert!(world.nodes[0].map.get("sensors/1500/value").is_none());
}

/// A power cut of the whole cluster over a week-end: every copy is old, and none may be dropped.
#[test]
fn a_cluster_that_was_off_for_days_keeps_its_data() {
    let mut world = World::new(6);
    for index in 0..3u64 {
        let away = |config: &mut crate::cluster::MachineConfig| {
            config.agreed_us = Some(START.wall_us - 60 * HOUR_US)
        };
        world.add(true, away, map_of(index..1000 + index));
    }
    assert!(
        world.run(|world| {
            world.are_equal() && world.nodes.iter().all(|node| node.machine.is_reconciled())
        })
    );
    assert_eq!(world.nodes[0].map.len(), 1002);
    assert!(world.nodes.iter().all(|node| node.discards == 0));
}

#[test]
fn a_fresh_cluster_becomes_ready() {
    let mut world = World::new(2);
    for _ in 0..6 {
        world.add(true, |_| {}, Map::new());
    }
    assert!(world.run(|world| world.nodes.iter().all(|node| node.machine.is_reconciled())));
    assert!(world.now.mono_us - START.mono_us < 5 * SECOND_US);
}

/// Two nodes joined a third one that held records. One of them was met by the other before it had heard of it, took
/// the two for the whole cluster, since it knew one member and had met one, and told its clients that there were no
/// records.
#[test]
fn a_newcomer_that_meets_another_one_first_is_not_ready_yet() {
    let mut world = World::new(2);
    world.add(false, |_| {}, map_of(0..50));
    world.add(true, |_| {}, Map::new());
    let newcomer = &mut world.nodes[1].machine;
    let other = NodeName::parse("n2").expect("name");
    newcomer.fresh_peers.insert(other);
    assert!(!newcomer.is_fresh_cluster(&world.ring), "nobody has met n0");
    newcomer.fresh_peers.insert(NodeName::parse("n0").expect("name"));
    assert!(newcomer.is_fresh_cluster(&world.ring), "all that are known are new");
    newcomer.fresh_peers.clear();
    assert!(!newcomer.is_fresh_cluster(&world.ring));
    assert!(world.run(|world| world.nodes[1].machine.is_reconciled()));
    assert_eq!(world.nodes[1].map.len(), 50);
}

#[test]
fn too_many_sessions_are_refused_and_come_back() {
    let mut world = World::new(4);
    world.add(false, |_| {}, map_of(0..500));
    for _ in 0..12 {
        world.add(true, |_| {}, Map::new());
    }
    // All want the only one that holds anything.
    let lone = world.peer(0);
    for index in 1..13 {
        let now = world.now;
        let node = &mut world.nodes[index];
        node.machine.begin(now, lone.clone(), SessionPlan::Whole);
    }
    assert!(
        world.run(|world| {
            world.are_equal() && world.nodes.iter().all(|node| node.machine.is_reconciled())
        })
    );
}

/// weaviate#10698, antrea#4491: sides of a partition never merged again.
#[test]
fn a_healed_partition_merges() {
    let mut world = World::new(8);
    for index in 0..4u64 {
        let (from, to) = if index < 2 { (0, 3000) } else { (2000, 5000) };
        world.add(false, |_| {}, map_of(from..to));
    }
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        world.cut.insert((a, b));
    }
    assert!(!world.run(World::are_equal));
    world.cut.clear();
    assert!(world.run(World::are_equal));
    assert_eq!(world.nodes[0].map.len(), 5000);
}

#[test]
fn heads_say_nothing_after_a_session_with_a_bad_record() {
    let mut bad = (*value(77, TS)).clone();
    bad.checksum ^= 1;
    let mut map = map_of(0..50);
    map.put(bad.into());
    let mut world = World::new(1);
    world.add(false, |_| {}, map);
    world.nodes[0].heads = Heads::from([((NodeName::parse("origin").expect("name"), 1), 99)]);
    world.add(true, |_| {}, Map::new());
    assert!(world.run(|world| world.nodes[1].machine.is_reconciled()));
    assert_eq!(world.nodes[1].map.len(), 50);
    assert!(world.nodes[1].machine.stats().records_bad > 0);
    assert!(world.nodes[1].merged.is_empty());
}

#[test]
fn a_silent_peer_is_given_up() {
    let mut world = two(map_of(0..10), map_of(0..20));
    let peer = world.peer(1);
    let now = world.now;
    let machine = &mut world.nodes[0].machine;
    machine.begin(now, peer, SessionPlan::Whole);
    let Some(crate::cluster::reconcile::ReconcileOutput::Stream(crate::cluster::StreamOutput::Connect {
        stream: silent,
        ..
    })) = machine.poll_output()
    else {
        panic!("no stream is asked for");
    };
    world.cut.insert((0, 1));
    world.run_us(11 * SECOND_US);
    let machine = &world.nodes[0].machine;
    assert!(machine.stats().sessions_broken > 0);
    assert!(machine.outgoing.iter().all(|session| session.link.stream != silent));
}

/// Where no datagram comes through, or none is answered because the members do not reach this node at its
/// address, records come by streams all the same.
#[test]
fn who_gets_no_answer_to_its_comparisons_begins_a_session() {
    let mut world = two(map_of(0..10), map_of(5..20));
    world.drops_datagrams = true;
    assert!(world.run(World::are_equal));
    assert!(world.now.mono_us - START.mono_us < 10 * SECOND_US);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut world = World::new(77);
        for index in 0..3u64 {
            world.add(index > 0, |_| {}, map_of(index * 300..index * 300 + 900));
        }
        world.run(World::are_equal);
        (world.stream_bytes, world.datagram_bytes, world.now, world.random)
    };
    assert_eq!(run(), run());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However bytes are cut and whenever streams break, the maps become equal.
    #[test]
    fn broken_streams_only_delay(seed: u64, left in 0u64..2000, right in 0u64..2000, common in 0u64..2000) {
        let mut world = World::new(seed);
        world.add(false, |_| {}, map_of((0..common).chain(10_000..10_000 + left)));
        world.add(true, |_| {}, map_of((0..common).chain(20_000..20_000 + right)));
        world.break_one_in = 40;
        world.run_us(10 * SECOND_US);
        world.break_one_in = 0;
        prop_assert!(world.run(World::are_equal), "seed {}", seed);
        prop_assert_eq!(world.nodes[0].map.len() as u64, common + left + right);
    }
}
