//! Time in a virtual world: what happens next, and to whom.
//!
//! One queue holds everything that will happen, in order of time and, within an instant, of when it was
//! decided. A node gets one event at a time; what its machine then wants done becomes new events.
//!
//! A node that is busy or paused keeps receiving into its sockets, as a process does; when it goes on
//! it gets all that first, and its overdue timers after.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::SocketAddr;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::awaited::AwaitedAnswers;
use super::conditions::Conditions;
use super::deliveries::{Applying, Deliveries};
use super::network::Network;
use super::nodes::{Hosts, Node, NodeId, Running};
use super::queue::{Event, Queue};
use super::replica::SimReplica;
use super::streams::End;
use crate::cluster::members::{MemberInfo, State};
use crate::cluster::random::Random;
use crate::cluster::{Effect, Machine, StreamEvent, StreamId};
use crate::limits::DATAGRAM_HEADER_BYTES;
use crate::record::{Now, SharedRecord};

/// The wall clock at the world's beginning, microseconds since the Unix epoch.
pub(super) const WALL_US: u64 = 1_763_800_000_000_000;
/// Datagrams whose memory is asked for at a time.
const WARMED: usize = 4;
/// Datagrams that a process's socket holds.
const SOCKET_DATAGRAMS_MAX: usize = 2_000;

/// A virtual world.
pub struct World {
    /// Its links.
    pub network: Network,
    /// What was accepted, and where it arrived.
    pub deliveries: Deliveries,
    pub(super) awaited: AwaitedAnswers,
    pub(super) now_us: u64,
    pub(super) queue: Queue,
    pub(super) nodes: Vec<Node>,
    pub(super) hosts: Hosts,
    pub(super) ends: BTreeMap<(NodeId, StreamId), End>,
    pub(super) random: Random,
    crossings: u64,
    digest: u64,
    /// Kept to be used again.
    effects: Vec<Effect>,
    records: Vec<SharedRecord>,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64, conditions: Conditions) -> World {
        let mut random = Random::new(seed);
        World {
            network: Network::new(conditions, random.next_u64()),
            deliveries: Deliveries::default(),
            awaited: AwaitedAnswers::default(),
            now_us: 0,
            queue: Queue::default(),
            nodes: Vec::new(),
            hosts: Hosts::default(),
            ends: BTreeMap::new(),
            random,
            crossings: 0,
            digest: 0,
            effects: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Bytes arrive at an address, from wherever.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let (from, to) = (self.hosts.place(from), self.hosts.place(to));
        self.queue.push(self.now_us, Event::Datagram { from, to, bytes });
    }

    /// Lets time pass.
    pub fn run_us(&mut self, for_us: u64) {
        self.run_with(for_us, &mut |_, _| {});
    }

    /// Lets time pass, and shows the world after every single event, with the node that was called.
    pub fn run_with(&mut self, for_us: u64, look: &mut dyn FnMut(&World, NodeId)) {
        let end_us = self.now_us + for_us;
        for step in 0u64.. {
            if step % WARMED as u64 == 0 {
                self.warm_up();
            }
            let Some((at_us, event)) = self.queue.pop_until(end_us) else { break };
            self.now_us = at_us;
            if let Some(node) = self.happen(event) {
                look(self, node);
            }
        }
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

    /// Bytes of records that a node accepted and its machine has not taken yet.
    pub fn outbox_bytes(&self, id: NodeId) -> usize {
        self.nodes[id.0].outbox.bytes()
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

    /// Copies of records that datagrams brought from one zone into another, the needless ones too.
    pub fn crossings(&self) -> u64 {
        self.crossings
    }

    /// Hash over everything that was delivered so far, and when.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Reads what the next datagrams will need. Each finds another node, of which no cache holds anything any
    /// more, and waits for one piece of memory after the other; here they wait for that side by side.
    fn warm_up(&self) {
        let mut coming = [None; WARMED];
        let datagrams = self.queue.coming().filter_map(|event| match event {
            Event::Datagram { from, to, bytes } => {
                black_box(bytes.first());
                Some((self.hosts.node_at(*to)?, self.hosts.address(*from)))
            }
            _ => None,
        });
        coming.iter_mut().zip(datagrams).for_each(|(place, datagram)| *place = Some(datagram));
        let machines =
            || coming.iter().flatten().filter_map(|(id, from)| Some((&self.nodes.get(id.0)?.machine, *from)));
        machines().for_each(|(machine, _)| {
            black_box(machine.poll_timeout());
        });
        machines().for_each(|(machine, from)| {
            black_box(machine.warm_link(from));
        });
    }

    /// One event; the node that was called, if one was.
    fn happen(&mut self, event: Event) -> Option<NodeId> {
        match event {
            Event::Datagram { to, .. } => {
                let id = self.hosts.node_at(to)?;
                self.arrive(id, event)
            }
            Event::Stream { to, life, .. } => {
                if self.life(to) != life {
                    return None;
                }
                self.arrive(to, event)
            }
            Event::Wake { node, token } => {
                if self.nodes.get(node.0).is_none_or(|it| it.token != token) {
                    return None;
                }
                self.nodes[node.0].wake_us = u64::MAX;
                self.nodes[node.0].is_overdue = true;
                self.turn(node)
            }
            Event::Turn { node, life } => {
                if self.life(node) != life {
                    return None;
                }
                self.nodes[node.0].has_turn = false;
                self.turn(node)
            }
            Event::Connect { from, life, stream, to } => {
                self.connect(from, life, stream, to);
                None
            }
            Event::Resume { node, life } => {
                let it = self.nodes.get_mut(node.0).filter(|it| it.life == life)?;
                if it.running != Running::Paused {
                    return None;
                }
                it.running = Running::Yes;
                // Whatever is due by now.
                it.is_overdue |= it.machine.poll_timeout().is_some_and(|due_us| due_us <= self.now_us);
                self.turn(node)
            }
        }
    }

    /// Something comes in at a node's sockets.
    fn arrive(&mut self, id: NodeId, event: Event) -> Option<NodeId> {
        let now_us = self.now_us;
        let node = self.nodes.get_mut(id.0)?;
        if node.running == Running::Yes && node.waiting.is_empty() && node.busy_us <= now_us {
            self.handle(id, event);
            return Some(id);
        }
        if node.running == Running::No {
            return None;
        }
        if let Event::Datagram { .. } = event {
            if node.datagrams_waiting >= SOCKET_DATAGRAMS_MAX {
                self.network.overflowed();
                return None;
            }
            node.datagrams_waiting += 1;
        }
        node.waiting.push_back(event);
        self.come_back(id);
        None
    }

    /// A node reads what waits, one thing after the other as it has time, and then sees to its timers.
    fn turn(&mut self, id: NodeId) -> Option<NodeId> {
        let mut called = None;
        loop {
            let now_us = self.now_us;
            let node = self.nodes.get_mut(id.0).filter(|node| node.running == Running::Yes)?;
            if node.busy_us > now_us {
                self.come_back(id);
                return called;
            }
            if let Some(event) = node.waiting.pop_front() {
                if let Event::Datagram { .. } = event {
                    node.datagrams_waiting -= 1;
                }
                self.handle(id, event);
            } else if std::mem::take(&mut node.is_overdue) {
                self.with(id, |machine, replica, now| machine.handle_timeout(now, replica));
            } else {
                return called;
            }
            called = Some(id);
        }
    }

    /// Sees to it that a busy node has a turn when it is free.
    fn come_back(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        let has_work = !node.waiting.is_empty() || node.is_overdue;
        if has_work && !node.has_turn && node.running == Running::Yes {
            node.has_turn = true;
            let (at_us, life) = (node.busy_us.max(self.now_us), node.life);
            self.queue.push(at_us, Event::Turn { node: id, life });
        }
    }

    fn handle(&mut self, id: NodeId, event: Event) {
        self.note(id, &event);
        let node = &mut self.nodes[id.0];
        node.busy_us = node.busy_us.max(self.now_us) + self.network.conditions.cpu_us;
        match event {
            Event::Datagram { from, bytes, .. } => {
                self.network.delivered();
                let sender = self.hosts.node_at(from);
                let from = self.hosts.address(from);
                let copies = self.copies_received(id);
                self.with(id, |machine, replica, now| machine.handle_datagram(now, from, &bytes, replica));
                if sender.is_some_and(|sender| self.network.is_between_zones(sender, id)) {
                    self.crossings += self.copies_received(id) - copies;
                }
            }
            Event::Stream { stream, event, .. } => {
                self.with(id, |machine, replica, now| machine.handle_stream(now, stream, event, replica));
            }
            _ => {}
        }
    }

    /// Copies of records that a node received in this life.
    fn copies_received(&self, id: NodeId) -> u64 {
        self.machine(id).spread_stats().data_copies_received
    }

    /// Calls a node, does what it wants done, and wakes it when it wants to be.
    pub(super) fn with(&mut self, id: NodeId, call: impl FnOnce(&mut Machine, &mut Applying, Now)) {
        let now_us = self.now_us;
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        let now = now_of(now_us, node.wall_offset_us);
        let mut applying = Applying {
            replica: &mut node.replica,
            book: &mut self.deliveries,
            node: id,
            at_us: now_us.max(node.busy_us),
        };
        call(&mut node.machine, &mut applying, now);
        let mut effects = std::mem::take(&mut self.effects);
        loop {
            effects.extend(std::iter::from_fn(|| node.machine.poll_effect()));
            let room_bytes = node.machine.room_bytes();
            if node.outbox.bytes() == 0 || room_bytes == 0 {
                break;
            }
            node.outbox.take(room_bytes, &mut self.records);
            node.machine.handle_published(now, &self.records);
            self.records.clear();
        }
        let due_us = node.machine.poll_timeout().unwrap_or(u64::MAX).max(now_us);
        if due_us != node.wake_us && due_us < u64::MAX && !node.is_overdue {
            node.token += 1;
            node.wake_us = due_us;
            self.queue.push(due_us, Event::Wake { node: id, token: node.token });
        }
        for effect in effects.drain(..) {
            self.perform(id, effect);
        }
        self.effects = effects;
    }

    fn perform(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Datagram { to, bytes } => {
                let node = &mut self.nodes[id.0];
                node.busy_us = node.busy_us.max(self.now_us) + self.network.conditions.cpu_us;
                let (from, ready_us) = (node.place, node.busy_us);
                let to = self.hosts.place(to);
                let Some(target) = self.hosts.node_at(to) else { return };
                let length = bytes.len() + DATAGRAM_HEADER_BYTES;
                let arrivals = self.network.send(ready_us, id, target, length);
                let Some((&last_us, others)) = arrivals.as_slice().split_first() else { return };
                for &at_us in others {
                    self.queue.push(at_us, Event::Datagram { from, to, bytes: bytes.clone() });
                }
                // Nearly always there is one: it needs no sharing.
                self.queue.push(last_us, Event::Datagram { from, to, bytes });
            }
            Effect::Connect { stream, to } => {
                let to = self.hosts.place(to);
                self.request(id, stream, Some(to));
            }
            Effect::Write { stream, bytes } => self.write(id, stream, bytes),
            Effect::Close { stream } => self.close(id, stream),
            Effect::Replicated(replicated) => self.handle_replicated(id, replicated),
            Effect::MembersChanged => {}
            Effect::NameTaken { by } => self.nodes[id.0].name_taken = Some(by),
        }
    }

    fn note(&mut self, id: NodeId, event: &Event) {
        let (bytes, stream) = match event {
            Event::Datagram { bytes, .. } => (bytes.as_ref(), 0),
            Event::Stream { stream, event: StreamEvent::Received(bytes), .. } => (bytes.as_ref(), stream.0),
            Event::Stream { stream, .. } => (&[][..], stream.0),
            _ => return,
        };
        let before = self.digest.rotate_left(17) ^ self.now_us;
        let what = before.wrapping_add(id.0 as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream;
        self.digest = xxh3_64_with_seed(bytes, what);
    }
}

pub(super) fn now_of(now_us: u64, wall_offset_us: i64) -> Now {
    Now { mono_us: now_us, wall_us: (WALL_US + now_us).saturating_add_signed(wall_offset_us) }
}
