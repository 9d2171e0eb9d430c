//! Time in a virtual world: what happens next, and to whom.
//!
//! One queue holds everything that will happen, in order of time and, within an instant, of when it was
//! decided. A node gets one event at a time; what its machine then wants done becomes new events.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ahead::{self, Cause, Hands, Nodes, Task, WARMED};
use super::awaited::AwaitedAnswers;
use super::conditions::Conditions;
use super::deliveries::{Applying, Deliveries};
use super::network::Network;
use super::nodes::{Hosts, NodeId, Place};
use super::process::{Act, Node, Running, Surroundings};
use super::queue::{Event, Queue};
use super::replica::SimReplica;
use super::streams::End;
use crate::cluster::members::{MemberInfo, State};
use crate::cluster::random::Random;
use crate::cluster::{Effect, Machine, StreamEvent, StreamId, StreamOutput};
use crate::limits::DATAGRAM_HEADER_BYTES;
use crate::record::Now;

/// The wall clock at the world's beginning, microseconds since the Unix epoch.
pub(super) const WALL_US: u64 = 1_763_800_000_000_000;
/// A virtual world.
pub struct World {
    /// Its links.
    pub network: Network,
    /// What was accepted, and where it arrived.
    pub deliveries: Deliveries,
    pub(super) awaited: AwaitedAnswers,
    pub(super) now_us: u64,
    pub(super) queue: Queue,
    pub(super) nodes: Nodes,
    pub(super) hosts: Arc<Hosts>,
    pub(super) ends: BTreeMap<(NodeId, StreamId), End>,
    pub(super) random: Random,
    crossings: u64,
    digest: u64,
    /// Who works on it, if not this thread alone.
    hands: Option<Box<dyn Hands>>,
    /// Kept to be used again.
    acts: VecDeque<Act>,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64, conditions: Conditions) -> World {
        World::with_hands(seed, conditions, None)
    }

    /// An empty world that these work on. Who does makes no difference to what happens in it.
    pub fn with_hands(seed: u64, conditions: Conditions, hands: Option<Box<dyn Hands>>) -> World {
        let mut random = Random::new(seed);
        World {
            network: Network::new(conditions, random.next_u64()),
            deliveries: Deliveries::default(),
            awaited: AwaitedAnswers::default(),
            now_us: 0,
            queue: Queue::default(),
            nodes: Nodes::new(hands.as_ref().map_or(1, |hands| hands.count())),
            hosts: Arc::default(),
            ends: BTreeMap::new(),
            random,
            crossings: 0,
            digest: 0,
            hands,
            acts: VecDeque::new(),
        }
    }

    /// Bytes arrive at an address, from wherever.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let (from, to) = (self.place(from), self.place(to));
        self.queue.push(self.now_us, Event::Datagram { from, to, bytes });
    }

    /// Lets time pass.
    pub fn run_us(&mut self, for_us: u64) {
        let Some(mut hands) = self.hands.take() else { return self.run_with(for_us, &mut |_, _| {}) };
        let end_us = self.now_us + for_us;
        while let Some(next_us) = self.queue.reach(end_us) {
            let until_us = self.call_ahead(&mut *hands, next_us, end_us);
            while let Some((at_us, event)) = self.queue.pop_until(until_us) {
                self.now_us = at_us;
                self.happen(event);
            }
            self.nodes.catch_up();
        }
        self.now_us = end_us;
        self.hands = Some(hands);
    }

    /// Calls the nodes with what is on its way to them already; up to when time can pass now.
    fn call_ahead(&mut self, hands: &mut dyn Hands, next_us: u64, end_us: u64) -> u64 {
        let until_us = (next_us + self.network.delay_us_min()).min(end_us);
        if until_us <= next_us || self.awaited.is_waiting() {
            return until_us;
        }
        let (nodes, hosts) = (&mut self.nodes, &self.hosts);
        let until_us = self.queue.show_until(until_us, |at_us, event| {
            match *event {
                Event::Datagram { to, .. } => {
                    if let Some(node) = hosts.node_at(to) {
                        nodes.plan(node, at_us, std::mem::replace(event, Event::Done { node }));
                    }
                }
                Event::Wake { node, token } if nodes.get(node).is_some_and(|it| it.token == token) => {
                    nodes.plan(node, at_us, Event::Wake { node, token });
                }
                Event::Turn { node, life } if nodes.get(node).is_some_and(|it| it.life == life) => {
                    nodes.plan(node, at_us, Event::Turn { node, life });
                }
                Event::Wake { .. } | Event::Turn { .. } => {}
                _ => return false,
            }
            true
        });
        let cpu_us = self.network.conditions.cpu_us;
        let (hosts, accepted) = (&self.hosts, &self.deliveries.accepted);
        nodes.work(hands, || Task { until_us, cpu_us, hosts: hosts.clone(), accepted: accepted.clone() });
        until_us
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
        &self.nodes[id].machine
    }

    /// A node's map.
    pub fn replica(&self, id: NodeId) -> &SimReplica {
        &self.nodes[id].replica
    }

    /// Bytes of records that a node accepted and its machine has not taken yet.
    pub fn outbox_bytes(&self, id: NodeId) -> usize {
        self.nodes[id].outbox.bytes()
    }

    /// Who has this node's name, if it was told so.
    pub fn name_taken(&self, id: NodeId) -> Option<SocketAddr> {
        self.nodes[id].name_taken
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

    /// Reads what the next datagrams will need.
    fn warm_up(&self) {
        let mut coming = [None; WARMED];
        let datagrams = self.queue.coming().filter_map(|event| match event {
            Event::Datagram { from, to, bytes } => {
                Some((self.hosts.node_at(*to)?, self.hosts.address(*from), bytes))
            }
            _ => None,
        });
        coming.iter_mut().zip(datagrams).for_each(|(place, datagram)| *place = Some(datagram));
        let coming = coming.iter().flatten();
        ahead::warm_up(
            coming.filter_map(|(id, from, bytes)| Some((&self.nodes.get(*id)?.machine, *from, *bytes))),
        );
    }

    /// The place of an address; made if there is none.
    pub(super) fn place(&mut self, address: SocketAddr) -> Place {
        self.hosts.find(address).unwrap_or_else(|| Arc::make_mut(&mut self.hosts).place(address))
    }

    /// One event; the node that was called, if one was.
    fn happen(&mut self, event: Event) -> Option<NodeId> {
        match event {
            Event::Datagram { to, .. } => {
                let id = self.hosts.node_at(to)?;
                self.visit(id, |node, world, acts| node.arrive(world, event, acts))
            }
            Event::Done { node } => self.repeat(node, Cause::Datagram).unwrap_or_else(|| {
                let event = self.nodes.next_datagram(node)?;
                self.happen(event)
            }),
            Event::Stream { to, life, .. } => {
                if self.life(to) != life {
                    return None;
                }
                self.visit(to, |node, world, acts| node.arrive(world, event, acts))
            }
            Event::Wake { node, token } => {
                if self.nodes.is_ahead(node) {
                    return self.repeat(node, Cause::Wake(token)).flatten();
                }
                if self.nodes.get(node).is_none_or(|it| it.token != token) {
                    return None;
                }
                self.visit(node, |node, world, acts| node.wake(world, acts))
            }
            Event::Turn { node, life } => {
                if self.life(node) != life {
                    return None;
                }
                self.repeat(node, Cause::Turn).unwrap_or_else(|| {
                    self.visit(node, |node, world, acts| {
                        node.has_turn = false;
                        node.turn(world, acts)
                    })
                })
            }
            Event::Connect { from, life, stream, to } => {
                self.connect(from, life, stream, to);
                None
            }
            Event::Resume { node, life } => {
                let it = self.nodes.get_mut(node).filter(|it| it.life == life)?;
                if it.running != Running::Paused {
                    return None;
                }
                it.running = Running::Yes;
                // Whatever is due by now.
                it.is_overdue |= it.machine.poll_timeout().is_some_and(|due_us| due_us <= self.now_us);
                self.visit(node, |node, world, acts| node.turn(world, acts))
            }
        }
    }

    /// Calls a node and sees to what came of it; the node, if its machine was called.
    fn visit(
        &mut self,
        id: NodeId,
        call: impl FnOnce(&mut Node, &Surroundings, &mut VecDeque<Act>) -> bool,
    ) -> Option<NodeId> {
        let mut acts = std::mem::take(&mut self.acts);
        let node = self.nodes.get_mut(id)?;
        let world = Surroundings {
            now_us: self.now_us,
            cpu_us: self.network.conditions.cpu_us,
            hosts: &self.hosts,
            accepted: &self.deliveries.accepted,
        };
        let is_called = call(node, &world, &mut acts);
        acts.drain(..).for_each(|act| self.see_to(id, act));
        self.acts = acts;
        is_called.then_some(id)
    }

    /// Sees to what came of a call that was made ahead of time, if this was its cause and it is the next; in it the
    /// node, if its machine was called.
    fn repeat(&mut self, id: NodeId, cause: Cause) -> Option<Option<NodeId>> {
        let (step, mut acts) = self.nodes.next_step(id, cause)?;
        acts.drain(..step.acts).for_each(|act| self.see_to(id, act));
        self.nodes.give_back(id, acts);
        Some(step.is_called.then_some(id))
    }

    /// Calls a node's machine, and sees to what came of it.
    pub(super) fn with(&mut self, id: NodeId, call: impl FnOnce(&mut Machine, &mut Applying, Now)) {
        self.visit(id, |node, world, acts| {
            node.call(world, acts, call);
            true
        });
    }

    fn see_to(&mut self, id: NodeId, act: Act) {
        match act {
            Act::Nothing => {}
            Act::Read(event) => {
                self.note(id, &event);
                if let Event::Datagram { .. } = event {
                    self.network.delivered();
                }
            }
            Act::Overflowed => self.network.overflowed(),
            Act::Copies { from, count } => {
                let sender = self.hosts.node_at(from);
                if sender.is_some_and(|sender| self.network.is_between_zones(sender, id)) {
                    self.crossings += count;
                }
            }
            Act::Noted(noted) => self.deliveries.note(id, noted),
            Act::Wake { at_us, token } => self.queue.push(at_us, Event::Wake { node: id, token }),
            Act::Turn { at_us } => {
                let life = self.life(id);
                self.queue.push(at_us, Event::Turn { node: id, life });
            }
            Act::Send { ready_us, to, bytes } => self.send(id, ready_us, to, bytes),
            Act::Effect(effect) => self.perform(id, effect),
        }
    }

    fn send(&mut self, id: NodeId, ready_us: u64, to: SocketAddr, bytes: Bytes) {
        let from = self.nodes[id].place;
        let to = self.place(to);
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

    /// What is none of the node's own business, nor a datagram.
    fn perform(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Stream(StreamOutput::Connect { stream, to }) => {
                let to = self.place(to);
                self.request(id, stream, Some(to));
            }
            Effect::Stream(StreamOutput::Write { stream, bytes }) => self.write(id, stream, bytes),
            Effect::Stream(StreamOutput::Close { stream }) => self.close(id, stream),
            Effect::Replicated(replicated) => self.handle_replicated(id, replicated),
            Effect::Datagram { .. } | Effect::MembersChanged | Effect::NameTaken { .. } => {}
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
