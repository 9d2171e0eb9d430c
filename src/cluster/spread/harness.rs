//! A small world for tests: nodes that only spread, on a seeded network with delay, loss and
//! duplication, in virtual time.

mod agenda;
mod answers;
mod applying;
mod arrivals;
mod faults;
mod measure;
mod members;
mod streams;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use prost::Message as _;
use xxhash_rust::xxh3::Xxh3;

use self::agenda::{Agenda, Event};
use self::members::identity_in;
pub(super) use self::members::{Node, address, identity, record, ring_of};
use self::streams::Streams;
use super::path::PATH_BYTES;
use super::tree::mix;
use super::{Opened, PeerLife, SPREAD_BYTES_MAX};
use crate::cluster::Replicated;
use crate::cluster::members::State;
use crate::cluster::outbox::Awaited;
use crate::cluster::ring::Ring;
use crate::proto::gossip as proto;
use crate::record::{Now, SharedRecord};

/// Least and greatest delay of a message one way, in microseconds.
pub(super) const DELAY_US: (u64, u64) = (500, 1_500);

/// A function that is shown the sender, the receiver and the part.
type OnPart = Box<dyn Fn(usize, usize, &proto::Part)>;

/// All nodes and the network between them.
pub(super) struct World {
    /// The nodes, by index.
    pub nodes: Vec<Node>,
    /// Virtual time, in microseconds.
    pub now_us: u64,
    /// Number of a thousand messages that are lost.
    pub loss: u64,
    /// Number of a thousand messages that arrive twice.
    pub duplicates: u64,
    /// Number of a thousand intervals of [`faults::BURST_US`] in which half of the messages from one node to
    /// another are lost.
    pub bursts: u64,
    /// Time that a datagram costs the node that sends it and the one that takes it, in microseconds.
    pub cpu_us: u64,
    /// Number of a thousand events before which a node stands still, as on a busy machine, and the least and
    /// the greatest duration of that, in microseconds.
    pub stalls: (u64, u64, u64),
    /// Least and greatest time until another thread has applied a batch, in microseconds; (0, 0): batches are
    /// applied at once. Set by [`World::apply_later`].
    apply_us: (u64, u64),
    /// Most bytes that a node sends in a millisecond; 0: any number.
    pub rate: u64,
    /// Most bytes of a message that the path from the first node to the second carries; larger ones vanish.
    pub path_bytes: Box<dyn Fn(usize, usize) -> usize>,
    /// Whether messages from the first node to the second are dropped.
    pub is_cut: Box<dyn Fn(usize, usize) -> bool>,
    /// Called with every part that is sent.
    pub on_part: OnPart,
    /// Greatest number of hops of a part that arrived.
    pub hops_max: u32,
    /// Number of messages that arrived.
    pub delivered: usize,
    /// Bytes written on streams.
    pub stream_bytes: usize,
    /// Hash of everything that was sent in packets and on streams, with senders, receivers and times.
    pub digest: u64,
    streams: Streams,
    /// Time at which each node will have sent everything that it was given so far, in microseconds.
    sent_us: Vec<u64>,
    /// Answers that waited until all nodes held a record, by node and token: with the time, and the number of
    /// nodes that were up and lacked the record then.
    pub answers: BTreeMap<(usize, u64), (Replicated, u64, usize)>,
    awaited: BTreeMap<(usize, u64), Awaited>,
    agenda: Agenda,
    seed: u64,
    salt: u64,
    by_address: BTreeMap<SocketAddr, usize>,
}

impl World {
    /// A world of `count` nodes that know one another. It begins at one second.
    pub fn new(count: usize, seed: u64) -> World {
        World::with_zones(count, seed, |_| "")
    }

    /// A world of `count` nodes in zones that know one another. It begins at one second.
    pub fn with_zones(count: usize, seed: u64, zone: impl Fn(usize) -> &'static str) -> World {
        let mut ring = Ring::default();
        (0..count).for_each(|index| ring.insert(identity_in(index, zone(index)), State::Alive));
        let ring = Arc::new(ring);
        let now = Now { mono_us: 1_000_000, wall_us: 1_763_800_000_000_000 };
        let nodes = (0..count).map(|index| Node::start(index, zone(index), ring.clone(), seed, now));
        World {
            nodes: nodes.collect(),
            now_us: now.mono_us,
            loss: 0,
            duplicates: 0,
            bursts: 0,
            cpu_us: 0,
            stalls: (0, 0, 0),
            apply_us: (0, 0),
            rate: 0,
            path_bytes: Box::new(|_, _| SPREAD_BYTES_MAX),
            is_cut: Box::new(|_, _| false),
            on_part: Box::new(|_, _, _| {}),
            hops_max: 0,
            delivered: 0,
            stream_bytes: 0,
            digest: 0,
            streams: Streams::default(),
            sent_us: vec![0; count],
            answers: BTreeMap::new(),
            awaited: BTreeMap::new(),
            agenda: Agenda::default(),
            seed,
            salt: mix(seed),
            by_address: (0..count).map(|index| (address(index), index)).collect(),
        }
    }

    /// The next random number of the world.
    pub fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.seed)
    }

    /// The virtual time as a reading of both clocks.
    pub fn now(&self) -> Now {
        Now { mono_us: self.now_us, wall_us: 1_763_800_000_000_000 + self.now_us }
    }

    /// A node publishes `count` records of `len` bytes at once; returns the number of the first.
    pub fn publish(&mut self, node: usize, count: u64, len: usize) -> u64 {
        let now = self.now();
        let name = identity(node).name.clone();
        let publisher = &mut self.nodes[node];
        let first = publisher.next_seq;
        publisher.next_seq += count;
        let records: Vec<SharedRecord> =
            (first..first + count).map(|seq| record(&name, publisher.boot, seq, len)).collect();
        let held = records.iter().map(|record| (record.source.clone(), record.clone()));
        publisher.arrivals.1.extend(held);
        let ring = publisher.ring.clone();
        publisher.spread.handle_published(now, &records, &ring);
        self.pump(node);
        first
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, for_us: u64) {
        let end_us = self.now_us + for_us;
        while let Some((at_us, event)) = self.agenda.pop_until(end_us) {
            self.now_us = at_us;
            if let Some(later_us) = self.work(&event).or_else(|| self.stall(&event)) {
                self.agenda.add(later_us, event);
                continue;
            }
            match event {
                Event::Arrive { from, to, message } => self.deliver(from, to, *message),
                // The node has asked for another time since.
                Event::Wake { node, at_us } if self.nodes[node].wake_us != at_us => {}
                Event::Wake { node, .. } => self.wake(node),
                Event::Stream { node, stream, event } => self.on_stream(node, stream, event),
                Event::Connect { node, stream, to } => self.connect(node, stream, to),
                Event::Apply { node, boot, batch } => self.apply(node, boot, &batch),
            }
        }
        self.now_us = end_us;
    }

    fn deliver(&mut self, from: usize, to: usize, message: proto::Spread) {
        let now = self.now();
        let boot = self.nodes[from].boot;
        let node = &mut self.nodes[to];
        if !node.is_up {
            return;
        }
        for part in message.parts.iter().filter(|part| !part.repair) {
            self.hops_max = self.hops_max.max(part.hops);
        }
        self.delivered += 1;
        node.works_until_us = self.now_us + self.cpu_us;
        let ring = node.ring.clone();
        let from = PeerLife { address: address(from), boot };
        node.spread.handle_spread(now, from, Opened::of(&message), &ring, &mut node.arrivals);
        // A turn ends with the timers that it set for itself.
        if node.spread.poll_timeout() == Some(now.mono_us) {
            node.spread.handle_timeout(now, &ring);
        }
        self.pump(to);
    }

    fn wake(&mut self, index: usize) {
        let now = self.now();
        let node = &mut self.nodes[index];
        node.wake_us = u64::MAX;
        if node.is_up && node.spread.poll_timeout().is_some_and(|at_us| at_us <= now.mono_us) {
            let ring = node.ring.clone();
            node.spread.handle_timeout(now, &ring);
        }
        self.pump(index);
    }

    /// Sends the packets of a node, and notes when it wants to be woken.
    pub fn pump(&mut self, index: usize) {
        self.take_answers(index);
        self.take_batches(index);
        while let Some((to, message)) = self.nodes[index].spread.poll_send() {
            let bytes = message.encoded_len();
            assert!(bytes <= SPREAD_BYTES_MAX + PATH_BYTES[2] - PATH_BYTES[0], "{bytes} bytes");
            let message = message.to_proto();
            assert_eq!(message.encoded_len(), bytes);
            self.note_sent(index, to, &message.encode_to_vec());
            let node = &mut self.nodes[index];
            node.sent_bytes += bytes;
            node.parts_sent += message.parts.iter().filter(|part| !part.batch.is_empty()).count();
            let Some(&to) = self.by_address.get(&to) else { continue };
            message.parts.iter().for_each(|part| (self.on_part)(index, to, part));
            let sent_us = self.sent_us(index, bytes);
            let node = &mut self.nodes[index];
            node.works_until_us = node.works_until_us.max(self.now_us) + self.cpu_us;
            let leaves_us = node.works_until_us.max(sent_us);
            let copies = if self.random() % 1_000 < self.duplicates { 2 } else { 1 };
            for _ in 0..copies {
                let delay_us = DELAY_US.0 + self.random() % (DELAY_US.1 - DELAY_US.0 + 1);
                if bytes <= (self.path_bytes)(index, to) && !self.is_lost(index, to) {
                    let message = Box::new(message.clone());
                    self.agenda.add(leaves_us + delay_us, Event::Arrive { from: index, to, message });
                }
            }
        }
        self.pump_streams(index);
        let node = &mut self.nodes[index];
        if let Some(at_us) = node.spread.poll_timeout()
            && at_us < node.wake_us
            && node.is_up
        {
            let at_us = at_us.max(self.now_us + 1);
            node.wake_us = at_us;
            self.agenda.add(at_us, Event::Wake { node: index, at_us });
        }
    }

    /// Adds bytes that a node sent just now to the digest.
    fn note_sent(&mut self, from: usize, to: impl std::hash::Hash, bytes: &[u8]) {
        let mut hasher = Xxh3::with_seed(self.digest);
        std::hash::Hash::hash(&(self.now_us, from, to, bytes), &mut hasher);
        self.digest = hasher.digest();
    }

    /// Exchanges heads between random pairs, as probes do every second.
    pub fn probe_all(&mut self) {
        for index in 0..self.nodes.len() {
            let peer = (self.random() % self.nodes.len() as u64) as usize;
            if peer == index
                || !self.nodes[peer].is_up
                || !self.nodes[index].is_up
                || (self.is_cut)(index, peer)
            {
                continue;
            }
            let now = self.now();
            let digest = self.nodes[index].spread.heads_digest(200);
            self.nodes[peer].spread.handle_heads(now, address(index), &digest);
            self.pump(peer);
        }
    }

    /// Replaces the view that a node has of the members.
    pub fn see(&mut self, index: usize, ring: Ring) {
        let now = self.now();
        let node = &mut self.nodes[index];
        node.ring = Arc::new(ring);
        node.spread.handle_ring(now, &node.ring);
        self.pump(index);
    }

    /// Restarts a node, which forgets everything.
    pub fn restart(&mut self, index: usize) {
        let now = self.now();
        self.nodes[index].restart(index, self.seed, now);
        self.apply_later(self.apply_us);
        self.end_streams_of(index);
    }
}

impl super::Packet {
    /// The packet as the generated code decodes it.
    pub(in crate::cluster::spread) fn to_proto(&self) -> proto::Spread {
        let mut out = Vec::new();
        self.write(&mut out);
        proto::Spread::decode(&out[..]).expect("what was written is read")
    }
}
