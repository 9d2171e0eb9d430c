//! The bytes that records take between nodes, and datagrams that are as large as the paths carry.

use super::SPREAD_BYTES_MAX;
use super::codec::{BATCH_BYTES_MAX, pack};
use super::harness::{World, identity};
use super::path::PATH_BYTES;
use crate::cluster::seal::{CHECKSUM_BYTES, PREFIX_BYTES, SENDER_BYTES};
use crate::record::{Birth, Payload, Record, SharedRecord, Source, Stamp};

/// Number of records that are published at once.
const RECORDS: u64 = 64;
/// Bytes of the data of a record.
const DATA_BYTES: usize = 128;

/// Most bytes of a message on a path with large frames.
const LARGE_BYTES: usize = SPREAD_BYTES_MAX + PATH_BYTES[2] - PATH_BYTES[0];
/// Bytes of a datagram around a packet: seal, header, tag and length.
const AROUND_BYTES: usize = PREFIX_BYTES + CHECKSUM_BYTES + SENDER_BYTES + 4;

/// Records as the load generator publishes them at 100,000 records a second: one of 10,000 sources, ten
/// microseconds after the last.
fn records() -> Vec<SharedRecord> {
    let made = (1..=RECORDS).map(|seq| {
        let source = Source::parse(&format!("load/0/{:04}", seq * 151 % 10_000)).expect("a name");
        let data = format!("\"{seq:0width$}\"", width = DATA_BYTES - 2).into_bytes();
        let ts = 1_763_800_000_000_000 + 10 * seq;
        let birth = Birth { origin: identity(0).name.clone(), boot: identity(0).boot, seq };
        let payload = Payload::Json(data.clone().into());
        Record::new(source, Stamp::of_data(ts, &data), payload, birth, ts, 0).into()
    });
    made.collect()
}

/// A record of 128 bytes took 231 to 265 bytes between nodes: each batch said again what the record before
/// had said, and five records filled a datagram.
#[test]
fn a_copy_takes_little_more_than_name_and_data() {
    let records = records();
    let content: usize = records.iter().map(|record| record.source.as_str().len() + DATA_BYTES).sum();
    let batches = pack(&identity(0).name, identity(0).boot, 0, 1_000_000_000, &records);
    let bytes: usize = batches.iter().map(|batch| batch.encoded.len()).sum();
    assert!(batches.iter().all(|batch| batch.encoded.len() <= BATCH_BYTES_MAX));
    assert!(bytes * 100 <= content * 106, "{bytes} bytes for {content} in {} batches", batches.len());

    let mut world = World::new(3, 1);
    let (now, ring) = (world.now(), world.nodes[0].ring.clone());
    world.nodes[0].spread.handle_published(now, &records, &ring);
    world.pump(0);
    world.run(100_000);
    assert_eq!(world.missing(0, 1, RECORDS), 0);
    let packets: usize = world.nodes.iter().map(|node| node.sent_bytes).sum();
    let sent = packets + world.delivered * AROUND_BYTES;
    // Receipts are among it.
    assert!(sent * 100 <= 2 * content * 115, "{sent} bytes for two copies of {content}");
}

/// Lets every node publish `count` records a millisecond for `for_ms`; returns the number of records that some node
/// lacks in the end.
fn load(world: &mut World, count: u64, for_ms: u64) -> usize {
    let mut published = Vec::new();
    for _ in 0..for_ms {
        for origin in 0..world.nodes.len() {
            published.push((origin, world.publish(origin, count, DATA_BYTES)));
        }
        world.run(1_000);
    }
    world.run(1_000_000);
    published.into_iter().map(|(origin, first)| world.missing(origin, first, count)).sum()
}

/// The number of parts with data that the nodes send for each record while they are loaded.
fn parts_a_record(world: &mut World) -> f64 {
    let parts = |world: &World| world.nodes.iter().map(|node| node.parts_sent).sum::<usize>();
    let before = parts(world);
    assert_eq!(load(world, 40, 50), 0);
    let copies = 40 * 50 * world.nodes.len() * (world.nodes.len() - 1);
    (parts(world) - before) as f64 / copies as f64
}

/// A batch of datagrams that every path carries holds six or seven records of 128 bytes, whatever the network.
#[test]
fn batches_fill_the_datagrams_that_paths_carry() {
    let mut plain = World::new(3, 1);
    assert_eq!(load(&mut plain, 40, 200), 0);
    let small = parts_a_record(&mut plain);
    let mut world = World::new(3, 1);
    world.path_bytes = Box::new(|_, _| LARGE_BYTES);
    assert_eq!(load(&mut world, 40, 200), 0);
    let large = parts_a_record(&mut world);
    assert!(small > 0.12 && large < 0.04, "{small} and {large} parts for a copy of a record");
    let mut tunnel = World::new(3, 1);
    tunnel.path_bytes = Box::new(|_, _| SPREAD_BYTES_MAX + PATH_BYTES[1] - PATH_BYTES[0]);
    // Two large probes are lost first, and each is missed when something is sent later.
    (0..4).for_each(|_| assert_eq!(load(&mut tunnel, 40, 60), 0));
    let middle = parts_a_record(&mut tunnel);
    assert!(middle < small * 0.95, "{small} and {middle} parts for a copy of a record");
}

/// A route changes, and the new one drops large datagrams without a word.
#[test]
fn nothing_is_missing_after_a_path_carries_less() {
    for seed in 1..3 {
        let mut world = World::new(4, seed);
        world.path_bytes = Box::new(|_, _| LARGE_BYTES);
        assert_eq!(load(&mut world, 40, 200), 0);
        assert!(parts_a_record(&mut world) < 0.04);
        world.path_bytes = Box::new(|_, _| SPREAD_BYTES_MAX);
        let since_us = world.now_us;
        let first = world.publish(0, 40, DATA_BYTES);
        world.run(1_000_000);
        let times: Vec<_> = (first..first + 40).map(|seq| world.delivery(0, seq, since_us)).collect();
        assert!(
            times.iter().all(|(times, missing)| *missing == 0 && times.iter().all(|us| *us < 500_000)),
            "{times:?}"
        );
        assert_eq!(load(&mut world, 40, 100), 0, "seed {seed}");
        let after = parts_a_record(&mut world);
        assert!(after > 0.12, "{after} parts for a copy of a record");
    }
}

/// One member stands behind a tunnel. It gets the batches that suit the others in fragments.
#[test]
fn a_member_behind_a_smaller_path_misses_nothing() {
    let mut world = World::new(9, 5);
    world.loss = 20;
    world.path_bytes = Box::new(|from, to| if from == 3 || to == 3 { SPREAD_BYTES_MAX } else { LARGE_BYTES });
    assert_eq!(load(&mut world, 20, 300), 0);
    assert_eq!(load(&mut world, 20, 100), 0);
    let given_up: u64 = world.nodes.iter().map(|node| node.spread.stats().given_up).sum();
    assert_eq!(given_up, 0);
}
