//! Bodies among many nodes, and peers that do not follow the protocol.

use std::net::SocketAddr;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::pulling::{ASKED_BYTES_MAX, BODY_BYTES_MAX, PULLED_STREAMS_MAX, PULLS_MAX, PULLS_PER_PEER_MAX};
use super::serving::{SERVED_ASKS_MAX, SERVED_STREAMS_MAX as SERVED_MAX, WINDOW_BYTES};
use super::wire::{BodyFrame, PIECE_BYTES_MAX};
use super::*;
use crate::cluster::Arrival;
use crate::cluster::spread::harness::{World, address, identity};
use crate::cluster::spread::span::Span;
use crate::cluster::spread::wire::{Content, Opened, OpenedPart, PartHeader};
use crate::cluster::spread::{Packet, PeerLife};

const LARGE: usize = 200_000;

/// Publishes records of one size; returns the median and the greatest time until a record was at a node, in
/// microseconds, the copies a node got, and the bytes sent for each byte delivered.
fn measure(count: usize, len: usize, rate: u64, seed: u64) -> (u64, u64, f64, f64) {
    let mut world = World::new(count, seed);
    world.rate = rate;
    let (mut p50, mut max) = (Vec::new(), 0);
    let records = 4;
    for round in 0..records {
        let origin = round * 7 % count;
        let since_us = world.now_us;
        let seq = world.publish(origin, 1, len);
        world.run(20_000_000);
        let (times, missing) = world.delivery(origin, seq, since_us);
        assert_eq!(missing, 0, "N={count}, {len} bytes");
        p50.push(times[times.len() / 2]);
        max = max.max(times[times.len() - 1]);
    }
    p50.sort_unstable();
    let sent: usize = world.nodes.iter().map(|node| node.sent_bytes).sum();
    let others = (records * (count - 1)) as f64;
    let bytes = (sent + world.stream_bytes) as f64 / (others * len as f64);
    (p50[records / 2], max, world.copies() as f64 / others, bytes)
}

/// A large record goes once to each node, whatever its size, with links of 1 Gbit/s and with unlimited ones.
#[test]
fn large_records_cost_one_copy_at_any_size() {
    for rate in [0, 125_000] {
        for (count, len) in [(3, 16 << 10), (3, 1 << 20), (64, 63 << 10), (64, 128 << 10)] {
            let (p50, max, copies, bytes) = measure(count, len, rate, 2);
            let what = format!(
                "rate {rate} N={count} {len}: p50 {p50}, last {max} us, copies {copies}, bytes {bytes}"
            );
            assert!(copies <= 1.01 && bytes <= 1.15, "{what}");
        }
    }
}

#[test]
fn large_records_reach_all_once() {
    let mut world = World::new(60, 3);
    for round in 0..6 {
        let seq = world.publish(round, 2, LARGE);
        world.publish(round, 2, 100);
        world.run(300_000);
        assert_eq!(world.missing(round, seq, 4), 0);
    }
    assert_eq!(world.copies(), 6 * 4 * 59);
    let sent: usize = world.nodes.iter().map(|node| node.sent_bytes).sum();
    assert!(sent < 6 * 59 * 4 * 400, "{sent} bytes in datagrams");
    assert!(world.stream_bytes < 12 * 59 * (LARGE + 1_000), "{} bytes on streams", world.stream_bytes);
    assert!(
        world.nodes.iter().all(|node| node.spread.custody.len() == 0 && node.spread.custody.bytes().2 == 0)
    );
    world.run(60_000_000);
    assert!(world.nodes.iter().all(|node| node.spread.bodies.is_empty()), "streams nobody needs");
}

#[test]
fn loss_and_duplicates_cost_large_records_no_copies() {
    let mut world = World::new(60, 4);
    (world.loss, world.duplicates) = (50, 50);
    for round in 0..10 {
        let seq = world.publish(round, 1, LARGE);
        world.run(4_000_000);
        assert_eq!(world.missing(round, seq, 1), 0);
    }
    let copies = world.copies() as f64 / (10 * 59) as f64;
    assert!(copies <= 1.01, "{copies}");
}

/// A node dies while others pull from it, before membership knows that: its part goes to another.
#[test]
fn a_relay_that_dies_amid_a_pull_costs_nobody_the_record() {
    for seed in 0..4 {
        let mut world = World::new(200, seed);
        // A node takes some milliseconds to send a body, so the relays are at it when they die.
        world.rate = 50_000;
        world.publish(0, 1, 100);
        world.run(500_000);
        let seq = world.publish(0, 1, LARGE);
        world.run(25_000 + 5_000 * seed);
        let is_relay = |node: &crate::cluster::spread::harness::Node| node.spread.custody.len() > 0;
        let relays: Vec<usize> = (1..200).filter(|index| is_relay(&world.nodes[*index])).take(3).collect();
        relays.iter().for_each(|index| world.nodes[*index].is_up = false);
        let mut seconds = 0;
        while world.missing(0, seq, 1) > 0 {
            world.run(1_000_000);
            world.probe_all();
            seconds += 1;
            assert!(seconds < 30, "seed {seed}: {} missing", world.missing(0, seq, 1));
        }
        println!("seed {seed}: {} relays died, all others have it after {seconds} s", relays.len());
    }
}

#[test]
fn a_gap_with_a_large_record_is_filled() {
    let mut world = World::new(20, 8);
    world.publish(0, 1, 100);
    world.run(500_000);
    world.is_cut = Box::new(|from, to| (from < 10) != (to < 10));
    let first = world.publish(0, 3, LARGE);
    world.run(500_000);
    world.is_cut = Box::new(|_, _| false);
    for _ in 0..20 {
        world.probe_all();
        world.run(1_000_000);
    }
    assert_eq!(world.missing(0, first, 3), 0);
    let name = identity(0).name.clone();
    let repaired = (10..20).filter(|index| {
        let arrivals = &world.nodes[*index].arrivals.0;
        (first..first + 3).any(|seq| arrivals[&(name.clone(), seq)].1 == Arrival::Repair)
    });
    assert!(repaired.count() > 0);
}

/// Both ends of streams by themselves, without a world: their instructions are only looked at.
#[derive(Default)]
struct Desk {
    outputs: VecDeque<StreamOutput>,
    whole: Vec<PulledBody>,
}

impl Desk {
    fn drain(&mut self) -> (usize, usize) {
        let is_close = |output: &StreamOutput| matches!(output, StreamOutput::Close { .. });
        let closed = self.outputs.iter().filter(|output| is_close(output)).count();
        let written = self.outputs.drain(..).map(|output| match output {
            StreamOutput::Write { bytes, .. } => bytes.len(),
            _ => 0,
        });
        (written.sum(), closed)
    }
}

fn waiter(from: SocketAddr, number: u64) -> BodyWaiter {
    let header = PartHeader { span: Span::whole_after(0), hops: 1, ..PartHeader::default() };
    BodyWaiter { from: PeerLife { address: from, boot: 1 }, number, header, since_us: 0 }
}

fn announced(number: u64, bytes: usize) -> Announced {
    Announced { batch: BatchId { line: 7, first_seq: number }, bytes, checksum: 0 }
}

fn ask(first_seq: u64) -> BodyFrame {
    BodyFrame::Ask(BatchId { line: 7, first_seq })
}

const ACCEPTED: StreamEvent =
    StreamEvent::Accepted { from: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1) };

/// Peers announce bodies of every size that they never send: little memory is set aside, and only a few
/// streams are opened.
#[test]
fn announcements_alone_cost_little() {
    let (mut pulling, mut desk) = (Pulling::new(), Desk::default());
    for bytes in [0, BODY_BYTES_MAX + 1, usize::MAX] {
        let is_taken = pulling.pull(0, announced(1, bytes), waiter(address(0), 1), &mut desk.outputs);
        assert!(!is_taken, "{bytes} bytes");
    }
    let mut taken = 0;
    for number in 0..200_000u64 {
        let from = address(number as usize / 200);
        let is_taken =
            pulling.pull(0, announced(number, BODY_BYTES_MAX), waiter(from, number), &mut desk.outputs);
        taken += usize::from(is_taken);
    }
    assert_eq!(taken, PULLS_MAX);
    let (pulls, streams) = pulling.len();
    assert!(pulls == PULLS_MAX && streams <= PULLS_MAX.div_ceil(PULLS_PER_PEER_MAX));
    let connects: Vec<StreamId> = desk
        .outputs
        .drain(..)
        .filter_map(|output| match output {
            StreamOutput::Connect { stream, .. } => Some(stream),
            _ => None,
        })
        .collect();
    for &stream in &connects {
        pulling.handle(1, stream, StreamEvent::Opened, &mut desk.whole, &mut desk.outputs);
    }
    let (asked, kept) = pulling.bytes();
    assert!(asked > 0 && asked <= ASKED_BYTES_MAX && kept == 0, "{asked} {kept}");
    // Each peer sends the beginning of its first body, and stops.
    let piece = BodyFrame::Piece(vec![0; PIECE_BYTES_MAX].into()).encode();
    for &stream in &connects {
        let event = StreamEvent::Received(piece.clone());
        pulling.handle(2, stream, event, &mut desk.whole, &mut desk.outputs);
    }
    let (asked, kept) = pulling.bytes();
    assert!(asked <= ASKED_BYTES_MAX && kept <= connects.len() * BODY_BYTES_MAX, "{asked} {kept}");
    pulling.sweep(10_000_000, &mut desk.outputs);
    assert_eq!((pulling.len(), pulling.bytes()), ((0, 0), (0, 0)));
}

#[test]
fn streams_to_peers_are_bounded() {
    let (mut pulling, mut desk) = (Pulling::new(), Desk::default());
    for number in 0..2 * PULLED_STREAMS_MAX as u64 {
        let from = address(number as usize);
        pulling.pull(number, announced(number, 50_000), waiter(from, 1), &mut desk.outputs);
    }
    assert_eq!(pulling.len(), (PULLED_STREAMS_MAX, PULLED_STREAMS_MAX));
}

/// A peer that asks without end, or never reads, costs one window, and its stream is closed.
#[test]
fn asking_alone_costs_little() {
    let body = Bytes::from(vec![1; BODY_BYTES_MAX]);
    let find = |id: BatchId| (id.first_seq > 0).then(|| body.clone());
    let (mut serving, mut desk) = (Serving::default(), Desk::default());
    let mut opened = 0;
    let handle = |serving: &mut Serving, desk: &mut Desk, number: u64, event| {
        serving.handle(5, StreamId(number), event, &find, &mut desk.outputs)
    };
    for number in 0..10 * SERVED_MAX as u64 {
        handle(&mut serving, &mut desk, 2 * number, ACCEPTED);
        handle(&mut serving, &mut desk, 2 * number, StreamEvent::Received(ask(1).encode()));
        opened += 1;
    }
    let (written, closed) = desk.drain();
    assert_eq!(closed, opened - SERVED_MAX, "those that read nothing keep their places for a while");
    assert!(written <= SERVED_MAX * (WINDOW_BYTES + PIECE_BYTES_MAX), "{written} bytes");
    handle(&mut serving, &mut desk, 0, StreamEvent::Drained);
    assert!((1..=WINDOW_BYTES + PIECE_BYTES_MAX).contains(&desk.drain().0));
    for count in 0..2 * SERVED_ASKS_MAX {
        let ask = ask(count as u64 % 2).encode();
        handle(&mut serving, &mut desk, 2, StreamEvent::Received(ask));
    }
    assert_eq!(desk.drain(), (0, 1), "too many at a time");
    serving.sweep(11_000_000, &mut desk.outputs);
    assert_eq!(desk.drain().1, SERVED_MAX - 1);
    assert!(serving.is_empty());
    handle(&mut serving, &mut desk, 2, ACCEPTED);
    handle(&mut serving, &mut desk, 2, StreamEvent::Received(ask(0).encode()));
    assert_eq!(
        desk.outputs.pop_front(),
        Some(StreamOutput::Write { stream: StreamId(2), bytes: BodyFrame::Lack.encode() })
    );
}

/// S3, 2008-07-20: one flipped bit, unchecked, spread through the whole cluster.
#[test]
fn a_body_of_another_checksum_is_not_taken() {
    let mut world = World::new(3, 1);
    let now = world.now();
    let node = &mut world.nodes[0];
    let ring = node.ring.clone();
    let spread = &mut node.spread;
    let from = address(1);
    let body = Bytes::from(vec![3; 20_000]);
    let batch = BatchId { line: 7, first_seq: 1 };
    let announced = Announced { batch, bytes: body.len(), checksum: xxh3_64(&body) ^ 1 };
    let content = Content::Announced(announced);
    let part = OpenedPart { number: 1, header: Some(waiter(from, 1).header), content };
    let packet = Opened { parts: vec![part], ..Opened::default() };
    spread.handle_spread(now, PeerLife { address: from, boot: 1 }, packet, &ring, &mut node.arrivals);
    spread.handle_timeout(now, &ring);
    let told: Vec<Packet> = std::iter::from_fn(|| spread.poll_send()).map(|sent| sent.1).collect();
    assert_eq!(told[0].to_proto().receipt.expect("a receipt").pulling, [1]);
    let Some(StreamOutput::Connect { stream, .. }) = spread.poll_stream() else { panic!("no stream") };
    spread.handle_stream(now, stream, StreamEvent::Opened, &ring, &mut node.arrivals);
    let piece = BodyFrame::Piece(body).encode();
    spread.handle_stream(now, stream, StreamEvent::Received(piece), &ring, &mut node.arrivals);
    assert_eq!((spread.stats().corrupt, spread.bodies.pulling.len()), (1, (0, 1)));
    assert!(node.arrivals.0.is_empty() && spread.custody.len() == 0);
}

proptest! {
    /// hashicorp/memberlist#368, #369: the decoder panicked on bytes that no node would write.
    #[test]
    fn garbage_on_streams_ends_them(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        kinds in proptest::collection::vec((0u8..4, 1usize..40_000), 0..20),
    ) {
        let mut frames: Vec<u8> = Vec::new();
        for (kind, len) in kinds {
            let frame = match kind {
                0 => ask(len as u64),
                1 => BodyFrame::Piece(vec![kind; len.min(PIECE_BYTES_MAX)].into()),
                _ => BodyFrame::Lack,
            };
            frames.extend_from_slice(&frame.encode());
        }
        frames.extend_from_slice(&bytes);
        let (mut pulling, mut serving, mut desk) = (Pulling::new(), Serving::default(), Desk::default());
        for number in 0..5 {
            pulling.pull(0, announced(number, 20_000), waiter(address(1), number), &mut desk.outputs);
        }
        let Some(StreamOutput::Connect { stream, .. }) = desk.outputs.pop_front() else { panic!("no stream") };
        pulling.handle(1, stream, StreamEvent::Opened, &mut desk.whole, &mut desk.outputs);
        serving.handle(1, StreamId(2), ACCEPTED, &|_| None, &mut desk.outputs);
        for part in frames.chunks(1_000) {
            let event = StreamEvent::Received(Bytes::copy_from_slice(part));
            pulling.handle(2, stream, event.clone(), &mut desk.whole, &mut desk.outputs);
            serving.handle(2, StreamId(2), event, &|_| None, &mut desk.outputs);
        }
        prop_assert!(desk.whole.iter().all(|whole| whole.body.len() == 20_000));
        pulling.sweep(60_000_000, &mut desk.outputs);
        prop_assert_eq!((pulling.len(), pulling.bytes()), ((0, 0), (0, 0)));
    }
}
