//! A few nodes, the wires between them, and a clock that only moves when nothing else does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::cluster::members::{Identity, State};
use crate::cluster::reconcile::{Compare, Peer, Reconcile, ReconcileOutput, SessionPlan};
use crate::cluster::ring::Ring;
use crate::cluster::streams::{StreamEvent, StreamId, StreamOutput};
use crate::cluster::{Arrival, Heads, MachineConfig, Profile, Replica};
use crate::limits::SHARDS;
use crate::record::merge::{Verdict, judge};
use crate::record::{Birth, NodeName, Now, Payload, Record, SharedRecord, Source, Stamp};

pub const SECOND_US: u64 = 1_000_000;
pub const HOUR_US: u64 = 3600 * SECOND_US;
pub const START: Now = Now { mono_us: 5 * SECOND_US, wall_us: 1_000_000 * SECOND_US };

/// A map of records in its simplest form.
#[derive(Clone, Default)]
pub struct Map {
    shards: Vec<BTreeMap<Source, SharedRecord>>,
    prints: Vec<u64>,
    pub applied: usize,
    pub refused: usize,
}

impl Map {
    pub fn new() -> Map {
        Map { shards: vec![BTreeMap::new(); SHARDS], prints: vec![0; SHARDS], applied: 0, refused: 0 }
    }

    fn shard_of(source: &str) -> usize {
        xxh3_64(source.as_bytes()) as usize % SHARDS
    }

    pub fn put(&mut self, record: SharedRecord) -> bool {
        let shard = Map::shard_of(record.source.as_str());
        let old = self.shards[shard].get(record.source.as_str());
        let verdict = judge(old, &record);
        if !verdict.replaces() {
            return false;
        }
        let gone = old.map_or(0, |old| xxh3_64(&old.checksum.to_le_bytes()));
        self.prints[shard] ^= gone ^ xxh3_64(&record.checksum.to_le_bytes());
        self.shards[shard].insert(record.source.clone(), record);
        verdict == Verdict::Newer
    }

    pub fn remove(&mut self, source: &str) {
        let shard = Map::shard_of(source);
        if let Some(old) = self.shards[shard].remove(source) {
            self.prints[shard] ^= xxh3_64(&old.checksum.to_le_bytes());
        }
    }

    pub fn retain(&mut self, keep: impl Fn(&Record) -> bool) {
        let sources: Vec<Source> =
            self.records().filter(|record| !keep(record)).map(|r| r.source.clone()).collect();
        sources.iter().for_each(|source| self.remove(source.as_str()));
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(BTreeMap::len).sum()
    }

    pub fn records(&self) -> impl Iterator<Item = &SharedRecord> {
        self.shards.iter().flat_map(|shard| shard.values())
    }
}

impl Replica for Map {
    fn apply(&mut self, now: Now, record: SharedRecord, arrival: Arrival) -> bool {
        assert_eq!(arrival, Arrival::Reconcile);
        if record.is_far_ahead(now.wall_us) {
            self.refused += 1;
            return false;
        }
        let is_newer = self.put(record);
        self.applied += usize::from(is_newer);
        is_newer
    }

    fn discard(&mut self, _now: Now, record: &SharedRecord) {
        self.remove(record.source.as_str());
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.shards[Map::shard_of(source)].get(source).cloned()
    }

    fn fingerprints(&self) -> [u64; SHARDS] {
        std::array::from_fn(|shard| self.prints[shard])
    }

    fn visit_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord)) {
        self.shards[shard].values().for_each(visit);
    }
}

/// A record of `source`, accepted by `origin` at `ts`.
pub fn record(source: &str, ts: u64, origin: &str, payload: Payload) -> SharedRecord {
    let stamp = match &payload {
        Payload::Deleted => Stamp::of_deletion(ts),
        other => Stamp::of_data(ts, other.bytes()),
    };
    let birth = Birth { origin: NodeName::parse(origin).expect("name"), boot: 1, seq: ts };
    Arc::new(Record::new(Source::parse(source).expect("source"), stamp, payload, birth, ts, 0))
}

/// A value of about a hundred bytes.
pub fn value(number: u64, ts: u64) -> SharedRecord {
    let data = format!("{{\"number\":{number},\"ts\":{ts},\"filling\":\"{:060}\"}}", number ^ ts);
    record(&format!("sensors/{number}/value"), ts, "origin", Payload::Json(data.into()))
}

pub struct Node {
    pub name: NodeName,
    pub addr: SocketAddr,
    pub machine: Reconcile,
    pub map: Map,
    pub heads: Heads,
    pub merged: Vec<Heads>,
    pub discards: usize,
    /// Most bytes of one stream that waited in this node's driver.
    pub waiting_max: usize,
}

/// One direction of a stream.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    is_closing: bool,
}

type End = (usize, StreamId);

pub struct World {
    pub now: Now,
    pub nodes: Vec<Node>,
    pub ring: Ring,
    pub random: u64,
    /// Pairs of nodes between which no stream and no datagram passes.
    pub cut: BTreeSet<(usize, usize)>,
    /// The node whose written bytes stay in its driver, if any.
    pub frozen: Option<usize>,
    /// On average one in this many deliveries breaks its stream; 0: none does.
    pub break_one_in: u64,
    /// Whether all datagrams are lost.
    pub drops_datagrams: bool,
    pub stream_bytes: usize,
    pub datagram_bytes: usize,
    pipes: BTreeMap<End, Pipe>,
    peers: BTreeMap<End, End>,
    next_accepted: u64,
    datagrams: VecDeque<(usize, usize, Compare)>,
    events: VecDeque<(End, StreamEvent)>,
}

pub fn config(name: &str, index: usize, has_seeds: bool, seed: u64) -> MachineConfig {
    MachineConfig {
        name: NodeName::parse(name).expect("name"),
        boot: 1,
        cluster_name: "test".into(),
        gossip: addr(index),
        http: String::new(),
        zone: String::new(),
        version: String::new(),
        profile: Profile::Local,
        tombstones_us: 24 * HOUR_US,
        agreed_us: None,
        has_seeds,
        seed: seed ^ (index as u64 * 7919),
        keys: None,
    }
}

fn addr(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 7946))
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            now: START,
            nodes: Vec::new(),
            ring: Ring::default(),
            random: seed,
            cut: BTreeSet::new(),
            frozen: None,
            break_one_in: 0,
            drops_datagrams: false,
            stream_bytes: 0,
            datagram_bytes: 0,
            pipes: BTreeMap::new(),
            peers: BTreeMap::new(),
            next_accepted: 2,
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Adds a node named `n0`, `n1`, ….
    pub fn add(&mut self, has_seeds: bool, change: impl FnOnce(&mut MachineConfig), map: Map) -> usize {
        let index = self.nodes.len();
        let mut config = config(&format!("n{index}"), index, has_seeds, self.random);
        change(&mut config);
        let identity = Identity::new(config.name.clone(), config.boot, config.gossip, "", "", "");
        self.ring.insert(Arc::new(identity), State::Alive);
        self.nodes.push(Node {
            name: config.name.clone(),
            addr: config.gossip,
            machine: Reconcile::new(&config, self.now),
            map,
            heads: Heads::new(),
            merged: Vec::new(),
            discards: 0,
            waiting_max: 0,
        });
        index
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        xxh3_64(&self.random.to_le_bytes()) % below.max(1)
    }

    fn index_of(&self, addr: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.addr == addr)
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Carries out the outputs of a node.
    fn drain(&mut self, from: usize) {
        while let Some(output) = self.nodes[from].machine.poll_output() {
            match output {
                ReconcileOutput::Datagram { to, message } => {
                    let Some(to) = self.index_of(to) else { continue };
                    self.datagram_bytes += prost::Message::encoded_len(&message.clone().into_proto());
                    if !self.is_cut(from, to) && !self.drops_datagrams {
                        self.datagrams.push_back((from, to, message));
                    }
                }
                ReconcileOutput::Stream(StreamOutput::Connect { stream, to }) => {
                    self.connect(from, stream, to)
                }
                ReconcileOutput::Stream(StreamOutput::Write { stream, bytes }) => {
                    self.stream_bytes += bytes.len();
                    if let Some(pipe) = self.pipes.get_mut(&(from, stream)) {
                        pipe.bytes.extend(bytes);
                        let waiting = pipe.bytes.len();
                        let node = &mut self.nodes[from];
                        node.waiting_max = node.waiting_max.max(waiting);
                    }
                }
                ReconcileOutput::Stream(StreamOutput::Close { stream }) => {
                    if let Some(pipe) = self.pipes.get_mut(&(from, stream)) {
                        pipe.is_closing = true;
                    }
                }
                ReconcileOutput::Merged(heads) => self.nodes[from].merged.push(heads),
                ReconcileOutput::Discard => {
                    let node = &mut self.nodes[from];
                    node.discards += 1;
                    let name = node.name.clone();
                    let since_us = node.machine.me.started_from_us;
                    let is_own =
                        |record: &Record| record.birth.origin == name && record.accepted_us > since_us;
                    node.map.retain(is_own);
                    node.heads.clear();
                }
            }
        }
    }

    fn connect(&mut self, from: usize, stream: StreamId, to: SocketAddr) {
        let Some(to) = self.index_of(to).filter(|&to| !self.is_cut(from, to)) else {
            self.events.push_back(((from, stream), StreamEvent::Closed));
            return;
        };
        let accepted = StreamId(self.next_accepted);
        self.next_accepted += 2;
        let (here, there) = ((from, stream), (to, accepted));
        self.pipes.insert(here, Pipe::default());
        self.pipes.insert(there, Pipe::default());
        self.peers.insert(here, there);
        self.peers.insert(there, here);
        self.events.push_back((there, StreamEvent::Accepted { from: addr(200) }));
        self.events.push_back((here, StreamEvent::Opened));
    }

    /// Ends a stream at both sides.
    fn cut_stream(&mut self, end: End) {
        let Some(peer) = self.peers.remove(&end) else { return };
        self.peers.remove(&peer);
        for end in [end, peer] {
            self.pipes.remove(&end);
            self.event(end, StreamEvent::Closed);
        }
    }

    pub fn begin(&mut self, from: usize, to: usize, plan: SessionPlan) {
        let to = self.peer(to);
        self.nodes[from].machine.begin(self.now, to, plan);
        self.drain(from);
    }

    /// The name and address of a node, as they are on the ring.
    pub fn peer(&self, index: usize) -> Peer {
        Peer { name: self.nodes[index].name.clone(), gossip: self.nodes[index].addr }
    }

    /// Runs one session, and nothing else, from its beginning to its end.
    pub fn session(&mut self, from: usize, to: usize, plan: SessionPlan) {
        self.begin(from, to, plan);
        while self.step() {}
        assert_eq!(self.nodes[from].machine.stats().sessions_finished, 1);
    }

    pub fn open_streams(&self) -> usize {
        self.peers.len() / 2
    }

    pub fn event(&mut self, (index, stream): End, event: StreamEvent) {
        let node = &mut self.nodes[index];
        match event {
            StreamEvent::Accepted { .. } => node.machine.accept(self.now, stream, true),
            event => {
                node.machine.handle_stream(self.now, stream, event, &|| node.heads.clone(), &mut node.map)
            }
        }
        self.drain(index);
    }

    /// Lets one thing happen, chosen at random. Returns `false` if nothing is left to do but to wait.
    pub fn step(&mut self) -> bool {
        if let Some((end, event)) = self.events.pop_front() {
            self.event(end, event);
            return true;
        }
        let ready: Vec<End> = self
            .pipes
            .iter()
            .filter(|(end, pipe)| self.frozen != Some(end.0) && (!pipe.bytes.is_empty() || pipe.is_closing))
            .map(|(&end, _)| end)
            .collect();
        let due: Vec<usize> = (0..self.nodes.len())
            .filter(|&i| self.nodes[i].machine.poll_timeout().is_some_and(|at| at <= self.now.mono_us))
            .collect();
        let choices = ready.len() + due.len() + usize::from(!self.datagrams.is_empty());
        if choices == 0 {
            return false;
        }
        let choice = self.random(choices as u64) as usize;
        if let Some(&end) = ready.get(choice) {
            self.deliver(end);
        } else if let Some(&index) = due.get(choice - ready.len()) {
            let node = &mut self.nodes[index];
            node.machine.handle_timeout(self.now, &self.ring, &|| node.heads.clone(), &mut node.map);
            self.drain(index);
        } else if let Some((from, to, message)) = self.datagrams.pop_front() {
            let from = self.nodes[from].addr;
            let node = &mut self.nodes[to];
            node.machine.handle_compare(self.now, from, &message, &mut node.map);
            self.drain(to);
        }
        true
    }

    fn deliver(&mut self, end: End) {
        if self.break_one_in > 0 && self.random(self.break_one_in) == 0 {
            return self.cut_stream(end);
        }
        let size = if self.random(3) == 0 { self.random(20) + 1 } else { self.random(65_536) + 1 } as usize;
        let Some(&peer) = self.peers.get(&end) else { return };
        let Some(pipe) = self.pipes.get_mut(&end) else { return };
        let bytes: Vec<u8> = pipe.bytes.drain(..size.min(pipe.bytes.len())).collect();
        let (is_empty, is_closing) = (pipe.bytes.is_empty(), pipe.is_closing);
        if !bytes.is_empty() {
            self.event(peer, StreamEvent::Received(Bytes::from(bytes)));
        }
        if is_empty && is_closing {
            self.cut_stream(end);
        } else if is_empty {
            self.event(end, StreamEvent::Drained);
        }
    }

    /// Runs the world for `us` microseconds.
    pub fn run_us(&mut self, us: u64) {
        let until = self.now.mono_us + us;
        self.run_until(until, |_| false);
    }

    /// Runs the world until `is_done` returns true, for a minute at most. Returns whether it did.
    pub fn run(&mut self, is_done: impl Fn(&World) -> bool) -> bool {
        let until = self.now.mono_us + 60 * SECOND_US;
        self.run_until(until, is_done)
    }

    fn run_until(&mut self, until_us: u64, is_done: impl Fn(&World) -> bool) -> bool {
        loop {
            while self.step() {}
            if is_done(self) {
                return true;
            }
            let next = self.nodes.iter().filter_map(|node| node.machine.poll_timeout()).min();
            let next = next.unwrap_or(until_us).max(self.now.mono_us + 1);
            if next > until_us {
                return false;
            }
            self.now = self.now.plus_us(next - self.now.mono_us);
        }
    }

    pub fn are_equal(&self) -> bool {
        self.nodes.windows(2).all(|pair| pair[0].map.prints == pair[1].map.prints)
    }
}
