//! A small world for tests: nodes that only spread, on a seeded network with delay, loss and
//! duplication, in virtual time.

mod arrivals;
mod streams;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;

use prost::Message as _;
use xxhash_rust::xxh3::Xxh3;

use self::arrivals::Arrivals;
use self::streams::Streams;
use super::tree::mix;
use super::{Opened, PeerLife, SPREAD_BYTES_MAX, Spread};
use crate::cluster::members::{Identity, State};
use crate::cluster::outbox::Awaited;
use crate::cluster::ring::Ring;
use crate::cluster::seal::{Checksum, Seal, body_bytes_max};
use crate::cluster::{MachineConfig, Profile, Replicated, StreamEvent, StreamId};
use crate::proto::gossip as proto;
use crate::record::{Birth, NodeName, Now, Payload, Record, SharedRecord, Source, Stamp};

/// The `index`-th node's identity, in no zone.
pub(super) fn identity(index: usize) -> Arc<Identity> {
    identity_in(index, "")
}

/// The `index`-th node's identity.
pub(super) fn identity_in(index: usize, zone: &str) -> Arc<Identity> {
    let name = NodeName::parse(&format!("node-{index}")).expect("name");
    Arc::new(Identity::new(name, 1_763_800_000 + index as u64, address(index), "", zone, ""))
}

/// The `index`-th node's address.
pub(super) fn address(index: usize) -> SocketAddr {
    let [_, a, b, c] = (index as u32).to_be_bytes();
    SocketAddr::from(([10, a, b, c], 7946))
}

/// A ring of the first `count` nodes.
pub(super) fn ring_of(count: usize) -> Ring {
    let mut ring = Ring::default();
    (0..count).for_each(|index| ring.insert(identity(index), State::Alive));
    ring
}

/// Most bytes of the body of a datagram, sealed as nodes seal them.
pub(super) fn body_bytes() -> usize {
    body_bytes_max(Checksum.overhead_bytes())
}

/// A record with `len` bytes of data.
pub(super) fn record(origin: &NodeName, boot: u64, seq: u64, len: usize) -> SharedRecord {
    let source = Source::parse(&format!("sensors/{origin}/{seq}")).expect("source");
    let data = vec![seq as u8; len];
    let birth = Birth { origin: origin.clone(), boot, seq };
    let ts = 1_763_800_000_000_000 + seq;
    Arc::new(Record::new(source, Stamp::of_data(ts, &data), Payload::Binary(data.into()), birth, ts, 0))
}

fn config(identity: &Identity, boot: u64, seed: u64) -> MachineConfig {
    MachineConfig {
        name: identity.name.clone(),
        boot,
        cluster_name: String::new(),
        gossip: identity.gossip(),
        http: String::new(),
        zone: identity.zone().into(),
        version: String::new(),
        profile: Profile::Lan,
        tombstones_us: 0,
        agreed_us: None,
        has_seeds: false,
        seed: mix(seed),
    }
}

/// One node of the world.
pub(super) struct Node {
    /// The node's part in spreading.
    pub spread: Spread,
    /// The members, as the node sees them.
    pub ring: Arc<Ring>,
    /// The records that arrived at the node.
    pub arrivals: Arrivals,
    /// Whether the node runs.
    pub is_up: bool,
    /// Bytes of the packets that it sent.
    pub sent_bytes: usize,
    /// Number of parts with data that it sent.
    pub parts_sent: usize,
    boot: u64,
    next_seq: u64,
    wake_us: u64,
    /// Until when it stands still, in microseconds.
    stalled_until_us: u64,
    /// Until when it is busy with earlier packets, in microseconds.
    works_until_us: u64,
}

/// An event that is due at a time.
enum Event {
    Arrive { from: usize, to: usize, message: Box<proto::Spread> },
    Wake { node: usize, at_us: u64 },
    Stream { node: usize, stream: StreamId, event: StreamEvent },
    Connect { node: usize, stream: StreamId, to: SocketAddr },
}

/// A function that is shown the sender, the receiver and the part.
type OnPart = Box<dyn Fn(usize, usize, &proto::Part)>;

/// All nodes and the network between them.
pub(super) struct World {
    /// The nodes, by index.
    pub nodes: Vec<Node>,
    /// Virtual time, in microseconds.
    pub now_us: u64,
    /// How many of a thousand messages are lost.
    pub loss: u64,
    /// How many of a thousand messages come twice.
    pub duplicates: u64,
    /// In how many of a thousand intervals of [`BURST_US`] half of what goes one way between two nodes is
    /// lost.
    pub bursts: u64,
    /// Time that a datagram costs the node that sends it and the one that takes it, in microseconds.
    pub cpu_us: u64,
    /// Before how many of a thousand events a node stands still, as on a busy machine, and for how long at
    /// least and at most, in microseconds.
    pub stalls: (u64, u64, u64),
    /// Most bytes that a node sends in a millisecond; 0: any number.
    pub rate: u64,
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
    /// When each node will have sent everything that it was given so far, in microseconds.
    sent_us: Vec<u64>,
    /// Answers that waited until all nodes held a record, by node and token: with the time, and the number of
    /// nodes that were up and lacked the record then.
    pub answers: BTreeMap<(usize, u64), (Replicated, u64, usize)>,
    awaited: BTreeMap<(usize, u64), Awaited>,
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    payloads: BTreeMap<usize, Event>,
    order: u64,
    seed: u64,
    salt: u64,
    by_address: BTreeMap<SocketAddr, usize>,
}

/// Least and greatest delay of a message one way, in microseconds.
pub(super) const DELAY_US: (u64, u64) = (500, 1_500);
/// How long a burst of losses lasts, in microseconds.
const BURST_US: u64 = 10_000;

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
        let nodes = (0..count).map(|index| {
            let identity = identity_in(index, zone(index));
            let mut spread =
                Spread::new(&config(&identity, identity.boot, seed ^ index as u64), now, body_bytes());
            // Round trips as membership measures them by probes.
            for probe in 0..20 {
                spread.handle_rtt(
                    address(index + 1),
                    zone(index),
                    1_000 + mix(seed ^ probe ^ index as u64) % 2_001,
                );
            }
            Node {
                spread,
                ring: ring.clone(),
                arrivals: Arrivals::default(),
                is_up: true,
                sent_bytes: 0,
                parts_sent: 0,
                boot: identity.boot,
                next_seq: 1,
                wake_us: u64::MAX,
                stalled_until_us: 0,
                works_until_us: 0,
            }
        });
        World {
            nodes: nodes.collect(),
            now_us: now.mono_us,
            loss: 0,
            duplicates: 0,
            bursts: 0,
            cpu_us: 0,
            stalls: (0, 0, 0),
            rate: 0,
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
            events: BinaryHeap::new(),
            payloads: BTreeMap::new(),
            order: 0,
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

    /// A node publishes one record, and waits until all hold it; returns the record's number, which is also
    /// the token of the answer.
    pub fn publish_awaited(&mut self, node: usize, len: usize) -> u64 {
        let publisher = &self.nodes[node];
        let (seq, boot) = (publisher.next_seq, publisher.boot);
        let awaited = record(&identity(node).name, boot, seq, len);
        self.await_held(node, seq, &awaited, true);
        self.publish(node, 1, len)
    }

    /// A node waits until all hold a record.
    pub fn await_held(&mut self, node: usize, token: u64, record: &SharedRecord, is_fresh: bool) {
        let (source, stamp, birth) = (record.source.clone(), record.stamp, record.birth.clone());
        let awaited = Awaited { token, source, stamp, birth, is_fresh };
        self.awaited.insert((node, token), awaited.clone());
        let (now, ring) = (self.now(), self.nodes[node].ring.clone());
        self.nodes[node].spread.handle_awaited(now, vec![awaited], &ring);
        self.pump(node);
    }

    fn take_answers(&mut self, index: usize) {
        while let Some(replicated) = self.nodes[index].spread.poll_replicated() {
            let key = (index, replicated.token);
            let awaited = &self.awaited[&key];
            let holds = |node: &Node| {
                let held = node.arrivals.1.get(&awaited.source);
                held.is_some_and(|held| held.stamp >= awaited.stamp)
            };
            let others = self.nodes.iter().enumerate().filter(|node| node.0 != index && node.1.is_up);
            let lacking = others.filter(|node| !holds(node.1)).count();
            let before = self.answers.insert(key, (replicated, self.now_us, lacking));
            assert!(before.is_none(), "answered once");
        }
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, for_us: u64) {
        let end_us = self.now_us + for_us;
        while let Some(Reverse((at_us, _, key))) = self.events.peek().copied() {
            if at_us > end_us {
                break;
            }
            self.events.pop();
            self.now_us = at_us;
            let event = self.payloads.remove(&key).expect("event");
            if let Some(later_us) = self.work(&event).or_else(|| self.stall(&event)) {
                self.schedule(later_us, event);
                continue;
            }
            match event {
                Event::Arrive { from, to, message } => self.deliver(from, to, *message),
                // The node has asked for another time since.
                Event::Wake { node, at_us } if self.nodes[node].wake_us != at_us => {}
                Event::Wake { node, .. } => self.wake(node),
                Event::Stream { node, stream, event } => self.on_stream(node, stream, event),
                Event::Connect { node, stream, to } => self.connect(node, stream, to),
            }
        }
        self.now_us = end_us;
    }

    /// Returns when a node that stands still gets this event, if it does: first the messages that arrived,
    /// then the timers.
    fn stall(&mut self, event: &Event) -> Option<u64> {
        let (node, rank_us) = match event {
            Event::Arrive { to, .. } => (*to, 0),
            Event::Stream { node, .. } => (*node, 0),
            Event::Wake { node, .. } => (*node, 1),
            Event::Connect { .. } => return None,
        };
        if self.stalls.0 > 0 && self.nodes[node].stalled_until_us + 1 < self.now_us {
            let stalls = self.random() % 1_000 < self.stalls.0;
            let (least_us, most_us) = (self.stalls.1, self.stalls.2);
            let for_us = least_us + self.random() % (most_us - least_us);
            if stalls {
                self.nodes[node].stalled_until_us = self.now_us + for_us;
            }
        }
        let until_us = self.nodes[node].stalled_until_us + rank_us;
        (until_us > self.now_us).then_some(until_us)
    }

    /// Returns when a node gets the packet that arrived, if it is still busy with earlier ones.
    fn work(&self, event: &Event) -> Option<u64> {
        let Event::Arrive { to, .. } = event else { return None };
        let until_us = self.nodes[*to].works_until_us;
        (until_us > self.now_us).then_some(until_us)
    }

    /// Returns whether a message from one node to another is lost.
    fn is_lost(&mut self, from: usize, to: usize) -> bool {
        let link = mix(from as u64) ^ to as u64;
        let slot = (self.now_us + mix(link) % BURST_US) / BURST_US;
        let is_bursting = self.bursts > 0 && mix(self.salt ^ mix(link) ^ mix(slot)) % 1_000 < self.bursts;
        let loss = if is_bursting { 500 } else { self.loss };
        self.random() % 1_000 < loss || (self.is_cut)(from, to)
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
        while let Some((to, message)) = self.nodes[index].spread.poll_send() {
            let bytes = message.encoded_len();
            assert!(bytes <= SPREAD_BYTES_MAX, "{bytes} bytes");
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
                if !self.is_lost(index, to) {
                    let message = Box::new(message.clone());
                    self.schedule(leaves_us + delay_us, Event::Arrive { from: index, to, message });
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
            self.schedule(at_us, Event::Wake { node: index, at_us });
        }
    }

    /// Adds bytes that a node sent just now to the digest.
    fn note_sent(&mut self, from: usize, to: impl std::hash::Hash, bytes: &[u8]) {
        let mut hasher = Xxh3::with_seed(self.digest);
        std::hash::Hash::hash(&(self.now_us, from, to, bytes), &mut hasher);
        self.digest = hasher.digest();
    }

    /// When bytes that a node sends now are on the wire, in microseconds.
    fn sent_us(&mut self, index: usize, bytes: usize) -> u64 {
        let Some(took_us) = (bytes as u64 * 1_000).checked_div(self.rate) else { return self.now_us };
        let sent_us = &mut self.sent_us[index];
        *sent_us = self.now_us.max(*sent_us) + took_us;
        *sent_us
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        self.order += 1;
        let key = self.order as usize;
        self.events.push(Reverse((at_us, self.order, key)));
        self.payloads.insert(key, event);
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

    /// Times from `since_us` until a record arrived at each node that is up and not its origin, ascending;
    /// and the number of nodes that lack it.
    pub fn delivery(&self, origin: usize, seq: u64, since_us: u64) -> (Vec<u64>, usize) {
        let birth = (identity(origin).name.clone(), seq);
        let mut times = Vec::new();
        let mut missing = 0;
        for node in self.nodes.iter().enumerate().filter(|node| node.0 != origin && node.1.is_up) {
            match node.1.arrivals.0.get(&birth) {
                Some((at_us, _)) => times.push(at_us - since_us),
                None => missing += 1,
            }
        }
        times.sort_unstable();
        (times, missing)
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
        let node = &mut self.nodes[index];
        node.boot += 1_000_000;
        node.next_seq = 1;
        node.arrivals = Arrivals::default();
        let config = config(&identity(index), node.boot, self.seed);
        node.spread = Spread::new(&config, now, body_bytes());
        node.wake_us = u64::MAX;
        self.end_streams_of(index);
    }

    /// Number of copies that nodes which are up lack of `count` records of `origin` from number `first` on.
    pub fn missing(&self, origin: usize, first: u64, count: u64) -> usize {
        (first..first + count).map(|seq| self.delivery(origin, seq, 0).1).sum()
    }

    /// Number of copies of records that all nodes together received.
    pub fn copies(&self) -> u64 {
        self.nodes.iter().map(|node| node.spread.stats().data_copies_received).sum()
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
