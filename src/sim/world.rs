//! A virtual world, which takes one event after the other and calls the node that it concerns.
//!
//! One queue holds all events that will happen, in order of time and, within an instant, in the order in
//! which they were decided. A node is called with one event at a time; what its machine then wants done
//! becomes new events.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::act::{Act, Surroundings};
use super::ahead::{self, Cause, EarlyWork, Hands, Nodes, WARMED};
use super::applying::Applying;
use super::awaited::AwaitedAnswers;
use super::conditions::Conditions;
use super::deliveries::Deliveries;
use super::network::Network;
use super::place::{Hosts, NodeId, Place};
use super::process::{Running, SimNode};
use super::queue::{EventQueue, SimEvent};
use super::replica::SimReplica;
use super::streams::{SimStreams, StreamWorld};
use crate::cluster::members::{MemberInfo, State};
use crate::cluster::random::Random;
use crate::cluster::{Effect, Machine, StreamEvent, StreamOutput};
use crate::limits::DATAGRAM_HEADER_BYTES;
use crate::record::Now;

/// A virtual world.
pub struct World {
    /// The links between its nodes.
    pub network: Network,
    /// The records that were accepted, and where they arrived.
    pub deliveries: Deliveries,
    /// Answers that wait until all members hold a record.
    pub(super) awaited: AwaitedAnswers,
    /// Time since the world began, in microseconds.
    pub(super) now_us: u64,
    /// The events that will happen.
    pub(super) queue: EventQueue,
    /// All nodes that were started.
    pub(super) nodes: Nodes,
    /// The nodes that listen at each address.
    pub(super) hosts: Arc<Hosts>,
    streams: SimStreams,
    /// Source of the random numbers of the world, except those of the network.
    pub(super) random: Random,
    crossings: u64,
    digest: u64,
    /// The datagrams that were sent, if somebody records them: sender, receiver and content.
    #[cfg(test)]
    pub(super) recorded: Option<Vec<(SocketAddr, SocketAddr, Bytes)>>,
    /// The threads that work on the world; `None`: the calling thread alone.
    hands: Option<Box<dyn Hands>>,
    /// Memory for the acts of one call, kept for the next call.
    acts: VecDeque<Act>,
}

impl World {
    /// Makes an empty world.
    pub fn new(seed: u64, conditions: Conditions) -> World {
        World::with_hands(seed, conditions, None)
    }

    /// Makes an empty world on which these threads work. They make no difference to what happens in it.
    pub fn with_hands(seed: u64, conditions: Conditions, hands: Option<Box<dyn Hands>>) -> World {
        let mut random = Random::new(seed);
        World {
            network: Network::new(conditions, random.next_u64()),
            deliveries: Deliveries::default(),
            awaited: AwaitedAnswers::default(),
            now_us: 0,
            queue: EventQueue::default(),
            nodes: Nodes::new(hands.as_ref().map_or(1, |hands| hands.count())),
            hosts: Arc::default(),
            streams: SimStreams::default(),
            random,
            crossings: 0,
            digest: 0,
            #[cfg(test)]
            recorded: None,
            hands,
            acts: VecDeque::new(),
        }
    }

    /// Lets `for_us` microseconds pass.
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

    /// Calls the nodes ahead of time with the events that are on their way to them already. Returns the time
    /// until which the world may run before this has to be done again, in microseconds.
    fn call_ahead(&mut self, hands: &mut dyn Hands, next_us: u64, end_us: u64) -> u64 {
        let until_us = (next_us + self.network.delay_us_min()).min(end_us);
        if until_us <= next_us || self.awaited.is_waiting() {
            return until_us;
        }
        let (nodes, hosts) = (&mut self.nodes, &self.hosts);
        let until_us = self.queue.show_until(until_us, |at_us, event| {
            match *event {
                SimEvent::Datagram { to, .. } => {
                    if let Some(node) = hosts.node_at(to) {
                        nodes.plan(node, at_us, std::mem::replace(event, SimEvent::Done { node }));
                    }
                }
                SimEvent::Wake { node, token } if nodes.get(node).is_some_and(|it| it.token == token) => {
                    nodes.plan(node, at_us, SimEvent::Wake { node, token });
                }
                SimEvent::Turn { node, life } if nodes.get(node).is_some_and(|it| it.life == life) => {
                    nodes.plan(node, at_us, SimEvent::Turn { node, life });
                }
                SimEvent::Wake { .. } | SimEvent::Turn { .. } => {}
                _ => return false,
            }
            true
        });
        let Conditions { cpu_us, merge_us, .. } = self.network.conditions;
        let (hosts, accepted) = (&self.hosts, &self.deliveries.accepted);
        nodes.work(hands, || EarlyWork {
            until_us,
            cpu_us,
            merge_us,
            hosts: hosts.clone(),
            accepted: accepted.clone(),
        });
        until_us
    }

    /// Lets time pass, and shows the world after every event that a node was called with.
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

    /// Lets time pass until `is_so` returns true, for at most `max_us` microseconds. Returns how long it
    /// took, in microseconds, in steps of 10 ms.
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

    /// Returns the virtual time since the world began, in microseconds.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Returns how many nodes were started so far, which is the number of the next one.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Returns a node's machine.
    pub fn machine(&self, id: NodeId) -> &Machine {
        &self.nodes[id].machine
    }

    /// Returns a node's map.
    pub fn replica(&self, id: NodeId) -> &SimReplica {
        &self.nodes[id].replica
    }

    /// Returns the bytes of records that a node has accepted and its machine has not taken yet.
    pub fn outbox_bytes(&self, id: NodeId) -> usize {
        self.nodes[id].outbox.bytes()
    }

    /// Returns what one node knows of a member.
    pub fn member(&self, id: NodeId, name: &str) -> Option<MemberInfo> {
        self.machine(id).member(name)
    }

    /// Returns the state in which one node sees a member.
    pub fn state(&self, id: NodeId, name: &str) -> Option<State> {
        self.member(id, name).map(|member| member.state)
    }

    /// Returns how many members a node sees alive or suspect, itself included.
    pub fn live(&self, id: NodeId) -> usize {
        self.machine(id).ring().len()
    }

    /// Returns how many copies of records datagrams brought from one zone into another, including copies of
    /// records that were there already.
    pub fn crossings(&self) -> u64 {
        self.crossings
    }

    /// Returns a hash over everything that was delivered so far, and when.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Fetches the memory that the next datagrams will need into the processor's caches.
    fn warm_up(&self) {
        let mut coming = [None; WARMED];
        let datagrams = self.queue.coming().filter_map(|event| match event {
            SimEvent::Datagram { from, to, bytes } => {
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

    /// Returns the connections between nodes, and what they need of the world.
    pub(super) fn streams(&mut self) -> (&mut SimStreams, StreamWorld<'_>) {
        let World { streams, network, queue, hosts, nodes, now_us, .. } = self;
        (streams, StreamWorld { now_us: *now_us, network, queue, hosts, nodes })
    }

    /// Returns the place of an address, and makes it if there is none.
    pub(super) fn place(&mut self, address: SocketAddr) -> Place {
        self.hosts.find(address).unwrap_or_else(|| Arc::make_mut(&mut self.hosts).place(address))
    }

    /// Carries out one event. Returns the node whose machine was called, if any.
    fn happen(&mut self, event: SimEvent) -> Option<NodeId> {
        match event {
            SimEvent::Datagram { to, .. } => {
                let id = self.hosts.node_at(to)?;
                self.visit(id, |node, world, acts| node.arrive(world, event, acts))
            }
            SimEvent::Done { node } => self.repeat(node, Cause::Datagram).unwrap_or_else(|| {
                let event = self.nodes.next_datagram(node)?;
                self.happen(event)
            }),
            SimEvent::Stream { to, life, .. } => {
                if self.nodes.life(to) != life {
                    return None;
                }
                self.visit(to, |node, world, acts| node.arrive(world, event, acts))
            }
            SimEvent::Wake { node, token } => {
                if self.nodes.is_ahead(node) {
                    return self.repeat(node, Cause::Wake(token)).flatten();
                }
                if self.nodes.get(node).is_none_or(|it| it.token != token) {
                    return None;
                }
                self.visit(node, |node, world, acts| node.wake(world, acts))
            }
            SimEvent::Turn { node, life } => {
                if self.nodes.life(node) != life {
                    return None;
                }
                self.repeat(node, Cause::Turn).unwrap_or_else(|| {
                    self.visit(node, |node, world, acts| {
                        node.has_turn = false;
                        node.turn(world, acts)
                    })
                })
            }
            SimEvent::Connect { from, life, stream, to } => {
                let (streams, world) = self.streams();
                streams.connect(world, from, life, stream, to);
                None
            }
            SimEvent::Resume { node, life } => {
                let it = self.nodes.get_mut(node).filter(|it| it.life == life)?;
                if it.running != Running::Paused {
                    return None;
                }
                it.running = Running::Yes;
                // Timers that came due during the pause are handled after what waits in the sockets.
                it.is_overdue |= it.machine.poll_timeout().is_some_and(|due_us| due_us <= self.now_us);
                self.visit(node, |node, world, acts| node.turn(world, acts))
            }
        }
    }

    /// Calls a node and carries out its acts. Returns the node, if its machine was called.
    fn visit(
        &mut self,
        id: NodeId,
        call: impl FnOnce(&mut SimNode, &Surroundings, &mut VecDeque<Act>) -> bool,
    ) -> Option<NodeId> {
        let mut acts = std::mem::take(&mut self.acts);
        let node = self.nodes.get_mut(id)?;
        let world = Surroundings {
            now_us: self.now_us,
            cpu_us: self.network.conditions.cpu_us,
            merge_us: self.network.conditions.merge_us,
            hosts: &self.hosts,
            accepted: &self.deliveries.accepted,
        };
        let is_called = call(node, &world, &mut acts);
        acts.drain(..).for_each(|act| self.carry_out(id, act));
        self.acts = acts;
        is_called.then_some(id)
    }

    /// Carries out the acts of the next call that was made of a node ahead of time, if this is its cause; `None`
    /// if it is not. Returns the node inside, if its machine was called.
    fn repeat(&mut self, id: NodeId, cause: Cause) -> Option<Option<NodeId>> {
        let (step, mut acts) = self.nodes.next_step(id, cause)?;
        acts.drain(..step.acts).for_each(|act| self.carry_out(id, act));
        self.nodes.give_back(id, acts);
        Some(step.is_called.then_some(id))
    }

    /// Calls a node's machine, and carries out what it wants done.
    pub(super) fn with(&mut self, id: NodeId, call: impl FnOnce(&mut Machine, &mut Applying, Now)) {
        self.visit(id, |node, world, acts| {
            node.call(world, acts, call);
            true
        });
    }

    /// Carries out one act of a node.
    fn carry_out(&mut self, id: NodeId, act: Act) {
        match act {
            Act::Nothing => {}
            Act::Read(event) => {
                self.note(id, &event);
                if let SimEvent::Datagram { .. } = event {
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
            Act::Wake { at_us, token } => self.queue.push(at_us, SimEvent::Wake { node: id, token }),
            Act::Turn { at_us } => {
                let life = self.nodes.life(id);
                self.queue.push(at_us, SimEvent::Turn { node: id, life });
            }
            Act::Send { ready_us, to, bytes } => self.send(id, ready_us, to, bytes),
            Act::Effect(effect) => self.perform(id, effect),
        }
    }

    fn send(&mut self, id: NodeId, ready_us: u64, to: SocketAddr, bytes: Bytes) {
        #[cfg(test)]
        if let Some(recorded) = &mut self.recorded {
            recorded.push((self.nodes[id].address, to, bytes.clone()));
        }
        let from = self.nodes[id].place;
        let to = self.place(to);
        let Some(target) = self.hosts.node_at(to) else { return };
        let length = bytes.len() + DATAGRAM_HEADER_BYTES;
        let arrivals = self.network.send(ready_us, id, target, length);
        let Some((&last_us, others)) = arrivals.as_slice().split_first() else { return };
        for &at_us in others {
            self.queue.push(at_us, SimEvent::Datagram { from, to, bytes: bytes.clone() });
        }
        // Nearly always there is one arrival: it gets the bytes without another reference to them.
        self.queue.push(last_us, SimEvent::Datagram { from, to, bytes });
    }

    /// Carries out an effect of a machine, other than a datagram.
    fn perform(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Stream(StreamOutput::Connect { stream, to }) => {
                let to = self.place(to);
                let (streams, world) = self.streams();
                streams.request(world, id, stream, to);
            }
            Effect::Stream(StreamOutput::Write { stream, bytes }) => {
                let (streams, world) = self.streams();
                streams.write(world, id, stream, bytes);
            }
            Effect::Stream(StreamOutput::Close { stream }) => {
                let (streams, mut world) = self.streams();
                streams.close(&mut world, id, stream);
            }
            Effect::Replicated(replicated) => self.awaited.settle(&self.nodes, id, replicated),
            Effect::Datagram { .. }
            | Effect::MembersChanged
            | Effect::NameTaken { .. }
            | Effect::NewBoot { .. } => {}
        }
    }

    /// Mixes an event that a node has read into the digest.
    fn note(&mut self, id: NodeId, event: &SimEvent) {
        let (bytes, stream) = match event {
            SimEvent::Datagram { bytes, .. } => (bytes.as_ref(), 0),
            SimEvent::Stream { stream, event: StreamEvent::Received(bytes), .. } => {
                (bytes.as_ref(), stream.0)
            }
            SimEvent::Stream { stream, .. } => (&[][..], stream.0),
            _ => return,
        };
        let before = self.digest.rotate_left(17) ^ self.now_us;
        let what = before.wrapping_add(id.0 as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream;
        self.digest = xxh3_64_with_seed(bytes, what);
    }
}
