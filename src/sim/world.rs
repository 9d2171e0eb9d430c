//! Time, nodes and streams of a virtual world.
//!
//! One queue holds everything that will happen, in order of time and, within an instant, of when it was
//! decided. A node gets one event at a time; what its machine then wants done becomes new events.
//!
//! A paused node keeps receiving into its sockets, as a stopped process does; when it goes on it gets
//! all that first, and its overdue timers after.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::network::{Conditions, Network};
use super::queue::{Event, Queue};
use super::replica::SimReplica;
use crate::cluster::members::{MemberInfo, State};
use crate::cluster::random::Random;
use crate::cluster::{Config, Effect, Machine, Profile, StreamEvent, StreamId};
use crate::record::{NodeName, Now, SharedRecord};

/// Which node of the world, from 0: one process at one address. A node that moves is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// The wall clock at the world's beginning, microseconds since the Unix epoch.
const WALL_US: u64 = 1_763_800_000_000_000;
/// Until a connection that nothing comes back on is given up.
const CONNECT_US_MAX: u64 = 3_000_000;
/// Datagrams that a stopped process's socket holds.
const SOCKET_DATAGRAMS_MAX: usize = 2_000;

/// How a node is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its name.
    pub name: String,
    /// Which of its lives.
    pub boot: u64,
    /// Its address; `None`: one of its own.
    pub address: Option<SocketAddr>,
    /// Join targets.
    pub seeds: Vec<SocketAddr>,
    /// Its intervals.
    pub profile: Profile,
    /// How far its wall clock is off, in microseconds.
    pub wall_offset_us: i64,
    /// When it last agreed with the cluster before this life (wall clock, microseconds).
    pub agreed_us: Option<u64>,
    /// What it held at its end.
    pub records: Vec<SharedRecord>,
}

impl Start {
    /// A first life on a LAN, with these join targets.
    pub fn new(name: impl Into<String>, seeds: &[SocketAddr]) -> Start {
        Start {
            name: name.into(),
            boot: 1,
            address: None,
            seeds: seeds.to_vec(),
            profile: Profile::Lan,
            wall_offset_us: 0,
            agreed_us: None,
            records: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Yes,
    Paused,
    No,
}

struct Node {
    machine: Machine,
    replica: SimReplica,
    address: SocketAddr,
    running: Running,
    /// What came in while it was paused.
    inbox: VecDeque<Event>,
    /// The valid wake-up.
    token: u64,
    wake_us: u64,
    wall_offset_us: i64,
    accepted: u64,
    name_taken: Option<SocketAddr>,
}

/// The other end of a stream, and when what was sent to it last arrives.
#[derive(Clone, Copy, Debug)]
struct End {
    peer: NodeId,
    peer_stream: StreamId,
    arrives_us: u64,
}

/// A virtual world.
pub struct World {
    /// Its links.
    pub network: Network,
    now_us: u64,
    queue: Queue,
    nodes: Vec<Node>,
    /// Who has an address now.
    hosts: BTreeMap<SocketAddr, NodeId>,
    ends: BTreeMap<(NodeId, StreamId), End>,
    random: Random,
    digest: Xxh3,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64, conditions: Conditions) -> World {
        let mut random = Random::new(seed);
        World {
            network: Network::new(conditions, random.next_u64()),
            now_us: 0,
            queue: Queue::default(),
            nodes: Vec::new(),
            hosts: BTreeMap::new(),
            ends: BTreeMap::new(),
            random,
            digest: Xxh3::new(),
        }
    }

    /// Starts a node. An address that a stopped node had may be used again.
    pub fn start(&mut self, start: Start) -> NodeId {
        let id = NodeId(self.nodes.len());
        let address = start.address.unwrap_or_else(|| World::address_of(id));
        let config = Config {
            name: NodeName::parse(&start.name).expect("a node's name"),
            boot: start.boot,
            cluster_name: "sim".into(),
            gossip: address,
            http: format!("{}:7070", address.ip()),
            zone: String::new(),
            version: "0.1.0".into(),
            profile: start.profile,
            tombstones_us: 24 * 3600 * 1_000_000,
            agreed_us: start.agreed_us,
            has_seeds: !start.seeds.is_empty(),
            seed: self.random.next_u64(),
        };
        let now = now_of(self.now_us, start.wall_offset_us);
        let mut replica = SimReplica::default();
        start.records.into_iter().for_each(|record| {
            replica.merge(record);
        });
        self.nodes.push(Node {
            machine: Machine::new(config, now),
            replica,
            address,
            running: Running::Yes,
            inbox: VecDeque::new(),
            token: 0,
            wake_us: u64::MAX,
            wall_offset_us: start.wall_offset_us,
            accepted: 0,
            name_taken: None,
        });
        self.hosts.insert(address, id);
        self.with(id, |node, now| {
            if !start.seeds.is_empty() {
                node.machine.handle_seeds(now, &start.seeds);
            }
        });
        id
    }

    /// The address that a node gets unless another is asked for.
    pub fn address_of(node: NodeId) -> SocketAddr {
        let [_, a, b, c] = (node.0 as u32 + 1).to_be_bytes();
        SocketAddr::from(([10, a, b, c], 7946))
    }

    /// A node stops without a word.
    pub fn kill(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        node.running = Running::No;
        node.inbox.clear();
        let address = node.address;
        if self.hosts.get(&address) == Some(&id) {
            self.hosts.remove(&address);
        }
        let streams: Vec<StreamId> = self
            .ends
            .range((id, StreamId(0))..=(id, StreamId(u64::MAX)))
            .map(|(&(_, stream), _)| stream)
            .collect();
        for stream in streams {
            self.close(id, stream);
        }
    }

    /// A node stands still for a while; its sockets go on receiving.
    pub fn pause(&mut self, id: NodeId, for_us: u64) {
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        if node.running == Running::Yes {
            node.running = Running::Paused;
            self.schedule(for_us, Event::Resume { node: id });
        }
    }

    /// A node tells the others that it goes. It goes on running until it is killed.
    pub fn leave(&mut self, id: NodeId) {
        self.with(id, |node, now| node.machine.handle_leave(now));
    }

    /// Publishes records that this node accepted.
    pub fn publish(&mut self, id: NodeId, records: &[SharedRecord]) {
        self.with(id, |node, now| {
            for record in records {
                node.replica.merge(record.clone());
            }
            node.machine.handle_published(now, records);
        });
    }

    /// Bytes arrive at an address, from wherever.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        self.schedule(0, Event::Datagram { to, from, bytes });
    }

    /// Lets time pass.
    pub fn run_us(&mut self, for_us: u64) {
        let end_us = self.now_us + for_us;
        while self.step(end_us) {}
        self.now_us = end_us;
    }

    /// Lets time pass until `is_so`, at most `max_us`; how long it took.
    pub fn run_until(&mut self, max_us: u64, mut is_so: impl FnMut(&World) -> bool) -> Option<u64> {
        const LOOK_US: u64 = 10_000;
        let start_us = self.now_us;
        while self.now_us <= start_us + max_us {
            if is_so(self) {
                return Some(self.now_us - start_us);
            }
            self.run_us(LOOK_US);
        }
        None
    }

    /// Virtual time since the world began.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// How many nodes were started so far; the next one's number.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// A node's machine.
    pub fn machine(&self, id: NodeId) -> &Machine {
        &self.nodes[id.0].machine
    }

    /// A node's map.
    pub fn replica(&self, id: NodeId) -> &SimReplica {
        &self.nodes[id.0].replica
    }

    /// Who has this node's name, if it was told so.
    pub fn name_taken(&self, id: NodeId) -> Option<SocketAddr> {
        self.nodes[id.0].name_taken
    }

    /// What one node believes of a member.
    pub fn member(&self, id: NodeId, name: &str) -> Option<MemberInfo> {
        self.machine(id).member(name)
    }

    /// The state in which one node sees a member.
    pub fn state(&self, id: NodeId, name: &str) -> Option<State> {
        self.member(id, name).map(|member| member.state)
    }

    /// How many members a node sees alive or suspect, itself included.
    pub fn live(&self, id: NodeId) -> usize {
        self.machine(id).ring().len()
    }

    /// Hash over everything that was delivered so far, and when.
    pub fn digest(&self) -> u64 {
        self.digest.digest()
    }

    fn schedule(&mut self, in_us: u64, event: Event) {
        self.queue.push(self.now_us + in_us, event);
    }

    /// The next event, if it is not later than `end_us`.
    fn step(&mut self, end_us: u64) -> bool {
        let Some((at_us, event)) = self.queue.pop_until(end_us) else { return false };
        self.now_us = at_us;
        match event {
            Event::Datagram { to, .. } => {
                if let Some(&id) = self.hosts.get(&to) {
                    self.deliver(id, event);
                }
            }
            Event::Stream { to, .. } => self.deliver(to, event),
            Event::Wake { node, token } => {
                if self.nodes.get(node.0).is_some_and(|it| it.token == token && it.running == Running::Yes) {
                    self.with(node, |node, now| {
                        node.wake_us = u64::MAX;
                        node.machine.handle_timeout(now, &mut node.replica);
                    });
                }
            }
            Event::Connect { from, stream, to } => self.connect(from, stream, to),
            Event::Resume { node } => self.resume(node),
        }
        true
    }

    fn deliver(&mut self, id: NodeId, event: Event) {
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        match node.running {
            Running::No => {}
            Running::Paused => {
                let is_datagram = matches!(event, Event::Datagram { .. });
                if !is_datagram || node.inbox.len() < SOCKET_DATAGRAMS_MAX {
                    node.inbox.push_back(event);
                }
            }
            Running::Yes => {
                self.note(id, &event);
                self.with(id, |node, now| match event {
                    Event::Datagram { from, bytes, .. } => {
                        node.machine.handle_datagram(now, from, &bytes, &mut node.replica);
                    }
                    Event::Stream { stream, event, .. } => {
                        node.machine.handle_stream(now, stream, event, &mut node.replica);
                    }
                    _ => {}
                });
            }
        }
    }

    fn resume(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        if node.running != Running::Paused {
            return;
        }
        node.running = Running::Yes;
        for event in std::mem::take(&mut node.inbox) {
            self.deliver(id, event);
        }
        self.with(id, |node, now| {
            if node.machine.poll_timeout().is_some_and(|due_us| due_us <= now.mono_us) {
                node.machine.handle_timeout(now, &mut node.replica);
            }
        });
    }

    /// Calls a node, does what it wants done, and wakes it when it wants to be.
    fn with(&mut self, id: NodeId, call: impl FnOnce(&mut Node, Now)) {
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        call(node, now_of(self.now_us, node.wall_offset_us));
        let mut effects = Vec::new();
        while let Some(effect) = node.machine.poll_effect() {
            effects.push(effect);
        }
        let due_us = node.machine.poll_timeout().unwrap_or(u64::MAX).max(self.now_us);
        if due_us != node.wake_us && due_us < u64::MAX {
            node.token += 1;
            node.wake_us = due_us;
            let token = node.token;
            self.schedule(due_us - self.now_us, Event::Wake { node: id, token });
        }
        for effect in effects {
            self.perform(id, effect);
        }
    }

    fn perform(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Datagram { to, bytes } => {
                let from = self.nodes[id.0].address;
                let Some(&target) = self.hosts.get(&to) else { return };
                for delay_us in self.network.datagram_delays_us(id, target) {
                    self.schedule(delay_us, Event::Datagram { to, from, bytes: bytes.clone() });
                }
            }
            Effect::Connect { stream, to } => {
                let delay_us = self.network.stream_delay_us();
                self.schedule(delay_us, Event::Connect { from: id, stream, to });
            }
            Effect::Write { stream, bytes } => {
                self.send_on(id, stream, StreamEvent::Received(bytes));
                if self.ends.contains_key(&(id, stream)) {
                    self.schedule(10, Event::Stream { to: id, stream, event: StreamEvent::Drained });
                }
            }
            Effect::Close { stream } => self.close(id, stream),
            Effect::MembersChanged => {}
            Effect::NameTaken { by } => self.nodes[id.0].name_taken = Some(by),
        }
    }

    /// A connection request arrives.
    fn connect(&mut self, from: NodeId, stream: StreamId, to: SocketAddr) {
        let target = self.hosts.get(&to).copied();
        let back_us = self.network.stream_delay_us();
        let is_open = target
            .is_some_and(|target| self.network.is_open(from, target) && self.network.is_open(target, from));
        let (Some(target), true) = (target, is_open) else {
            // Refused where the machine is up but nobody listens, else nothing comes back.
            let wait_us = if target.is_none() { back_us } else { CONNECT_US_MAX };
            return self.schedule(wait_us, Event::Stream { to: from, stream, event: StreamEvent::Closed });
        };
        let node = &mut self.nodes[target.0];
        node.accepted += 1;
        let peer_stream = StreamId(2 * node.accepted);
        let arrives_us = self.now_us + back_us;
        self.ends.insert((from, stream), End { peer: target, peer_stream, arrives_us: self.now_us });
        self.ends.insert((target, peer_stream), End { peer: from, peer_stream: stream, arrives_us });
        let from = self.nodes[from.0].address;
        self.schedule(
            0,
            Event::Stream { to: target, stream: peer_stream, event: StreamEvent::Accepted { from } },
        );
        let end = self.ends[&(target, peer_stream)];
        self.schedule(back_us, Event::Stream { to: end.peer, stream, event: StreamEvent::Opened });
    }

    /// Something goes to the other end, behind what was sent before.
    fn send_on(&mut self, id: NodeId, stream: StreamId, event: StreamEvent) {
        let Some(&end) = self.ends.get(&(id, stream)) else { return };
        if !self.network.is_open(id, end.peer) {
            // It is sent again and again, and given up at last.
            for (to, stream) in [(id, stream), (end.peer, end.peer_stream)] {
                self.ends.remove(&(to, stream));
                self.schedule(CONNECT_US_MAX, Event::Stream { to, stream, event: StreamEvent::Closed });
            }
            return;
        }
        let arrives_us = end.arrives_us.max(self.now_us + self.network.stream_delay_us());
        if let Some(end) = self.ends.get_mut(&(id, stream)) {
            end.arrives_us = arrives_us;
        }
        self.schedule(
            arrives_us - self.now_us,
            Event::Stream { to: end.peer, stream: end.peer_stream, event },
        );
    }

    /// One side is done with a stream; the other hears of it after all that was written.
    fn close(&mut self, id: NodeId, stream: StreamId) {
        self.send_on(id, stream, StreamEvent::Closed);
        if let Some(end) = self.ends.remove(&(id, stream)) {
            self.ends.remove(&(end.peer, end.peer_stream));
        }
    }

    fn note(&mut self, id: NodeId, event: &Event) {
        self.digest.update(&self.now_us.to_le_bytes());
        self.digest.update(&(id.0 as u64).to_le_bytes());
        match event {
            Event::Datagram { bytes, .. } => self.digest.update(bytes),
            Event::Stream { stream, event, .. } => {
                self.digest.update(&stream.0.to_le_bytes());
                if let StreamEvent::Received(bytes) = event {
                    self.digest.update(bytes);
                }
            }
            _ => {}
        }
    }
}

fn now_of(now_us: u64, wall_offset_us: i64) -> Now {
    Now { mono_us: now_us, wall_us: (WALL_US + now_us).saturating_add_signed(wall_offset_us) }
}
