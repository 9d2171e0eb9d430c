//! Nodes called ahead of time, side by side.
//!
//! Whatever a node sends takes as long as the shortest way; so what happens within less than that from now on
//! is on its way already, and until then no node can hear of what another does. So each can be called with all
//! that comes to it in that time, on whichever thread ([`NodeShare::work`]). The world then lets the same time pass
//! as ever, event by event in order, but where it would call a node it takes what came of it ([`EarlyCall`]): chance
//! is drawn and everything is sent in the same order, and a run is the same to the byte, however many work on it.
//!
//! A node that wants more than datagrams sent is called no further: what comes of that may be heard sooner.
//! The same goes for the time from a stream's next event on.

use std::collections::VecDeque;
use std::hint::black_box;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use super::accepted::AcceptedRecords;
use super::act::{Act, Surroundings};
use super::place::{Hosts, NodeId};
use super::process::SimNode;
use super::queue::SimEvent;
use crate::cluster::Machine;

/// Nodes whose memory is asked for at a time.
pub(super) const WARMED: usize = 4;

/// Who works on a world: calls [`NodeShare::work`] of all shares, side by side, and gives them back in the same order.
pub trait Hands: Send {
    /// Into how many shares the nodes are to be dealt.
    fn count(&self) -> usize;
    /// Has all the shares worked on.
    fn work(&mut self, shares: Vec<NodeShare>) -> Vec<NodeShare>;
}

/// What a node was called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Datagram,
    Wake(u64),
    Turn,
}

/// A call of a node ahead of time.
#[derive(Debug)]
pub(super) struct EarlyCall {
    cause: Cause,
    /// Whether its machine was called.
    pub is_called: bool,
    /// How many of the node's acts came of it.
    pub acts: usize,
}

/// What a node is called with ahead of time, and what came of it. In the order of time.
#[derive(Debug, Default)]
struct NodePlan {
    /// Where the node is in its share.
    place: usize,
    inputs: VecDeque<(u64, SimEvent)>,
    steps: VecDeque<EarlyCall>,
    acts: VecDeque<Act>,
}

/// What all nodes see when they are called.
#[derive(Debug)]
pub(super) struct EarlyWork {
    /// Up to when they are called with what they decided themselves.
    pub until_us: u64,
    pub cpu_us: u64,
    pub hosts: Arc<Hosts>,
    pub accepted: Arc<AcceptedRecords>,
}

/// Some of the nodes, and what they are to be called with.
#[derive(Default)]
pub struct NodeShare {
    nodes: Vec<SimNode>,
    /// The first of these are in use; the others keep their memory.
    parts: Vec<NodePlan>,
    used: usize,
    task: Option<EarlyWork>,
}

impl NodeShare {
    /// Calls the nodes with what is planned for them.
    pub fn work(&mut self) {
        let Some(task) = self.task.take() else { return };
        let parts = self.parts.get_mut(..self.used).unwrap_or_default();
        for some in parts.chunks_mut(WARMED) {
            let coming = some.iter().filter_map(|part| Some((&self.nodes.get(part.place)?.machine, part)));
            let coming = coming.filter_map(|(machine, part)| match &part.inputs.front()?.1 {
                SimEvent::Datagram { from, bytes, .. } => Some((machine, task.hosts.address(*from), bytes)),
                _ => None,
            });
            warm_up(coming);
            for part in some {
                if let Some(node) = self.nodes.get_mut(part.place) {
                    part.work(node, &task);
                }
            }
        }
    }
}

/// Reads what the next datagrams will need. Each finds another node, of which no cache holds anything any
/// more, and waits for one piece of memory after the other; here they wait for that side by side.
pub(super) fn warm_up<'a>(
    coming: impl Iterator<Item = (&'a Machine, std::net::SocketAddr, &'a bytes::Bytes)> + Clone,
) {
    coming.clone().for_each(|(machine, _, bytes)| {
        black_box((machine.poll_timeout(), bytes.first()));
    });
    coming.for_each(|(machine, from, _)| {
        black_box(machine.warm_link(from));
    });
}

impl NodePlan {
    fn work(&mut self, node: &mut SimNode, task: &EarlyWork) {
        let mut decided: VecDeque<(u64, SimEvent)> = VecDeque::new();
        while let Some((now_us, event)) = self.next(&mut decided, task.until_us) {
            let EarlyWork { cpu_us, ref hosts, ref accepted, .. } = *task;
            let world = Surroundings { now_us, cpu_us, hosts, accepted };
            let before = self.acts.len();
            let (cause, is_called) = match event {
                SimEvent::Wake { token, .. } if token != node.token => continue,
                SimEvent::Wake { token, .. } => (Cause::Wake(token), node.wake(&world, &mut self.acts)),
                SimEvent::Turn { .. } => {
                    node.has_turn = false;
                    (Cause::Turn, node.turn(&world, &mut self.acts))
                }
                event => (Cause::Datagram, node.arrive(&world, event, &mut self.acts)),
            };
            let mut is_heard_soon = false;
            for act in self.acts.range(before..) {
                match *act {
                    Act::Wake { at_us, token } => {
                        decide(&mut decided, at_us, SimEvent::Wake { node: node.id, token })
                    }
                    Act::Turn { at_us } => {
                        decide(&mut decided, at_us, SimEvent::Turn { node: node.id, life: node.life });
                    }
                    Act::Effect(_) => is_heard_soon = true,
                    _ => {}
                }
            }
            self.steps.push_back(EarlyCall { cause, is_called, acts: self.acts.len() - before });
            if is_heard_soon {
                return;
            }
        }
    }

    /// The next that it is called with. Of two things at one time what came in was decided first.
    fn next(&mut self, decided: &mut VecDeque<(u64, SimEvent)>, until_us: u64) -> Option<(u64, SimEvent)> {
        let own_us = decided.front().map(|own| own.0).filter(|at_us| *at_us < until_us);
        match (self.inputs.front().map(|input| input.0), own_us) {
            (Some(at_us), Some(own_us)) if own_us < at_us => decided.pop_front(),
            (None, Some(_)) => decided.pop_front(),
            _ => self.inputs.pop_front(),
        }
    }
}

/// Puts an event in behind all that are not later.
fn decide(decided: &mut VecDeque<(u64, SimEvent)>, at_us: u64, event: SimEvent) {
    let place = decided.partition_point(|own| own.0 <= at_us);
    decided.insert(place, (at_us, event));
}

/// All nodes, dealt out in turn.
pub(super) struct Nodes {
    shares: Vec<NodeShare>,
    count: usize,
}

impl Nodes {
    /// None yet.
    pub fn new(shares: usize) -> Nodes {
        Nodes { shares: (0..shares.max(1)).map(|_| NodeShare::default()).collect(), count: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Adds the next one, whose number is how many there were.
    pub fn push(&mut self, node: SimNode) {
        let share = self.count % self.shares.len();
        self.shares[share].nodes.push(node);
        self.count += 1;
    }

    fn place(&self, id: NodeId) -> (usize, usize) {
        (id.0 % self.shares.len(), id.0 / self.shares.len())
    }

    pub fn get(&self, id: NodeId) -> Option<&SimNode> {
        let (share, place) = self.place(id);
        self.shares[share].nodes.get(place)
    }

    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut SimNode> {
        let (share, place) = self.place(id);
        self.shares[share].nodes.get_mut(place)
    }

    /// All nodes, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &SimNode> {
        (0..self.count).filter_map(|id| self.get(NodeId(id)))
    }

    /// Returns which of its lives a node is in; 0 for one that does not exist.
    pub fn life(&self, id: NodeId) -> u32 {
        self.get(id).map_or(0, |node| node.life)
    }

    /// Plans to call a node with this.
    pub fn plan(&mut self, id: NodeId, at_us: u64, event: SimEvent) {
        let (share, place) = self.place(id);
        let NodeShare { nodes, parts, used, .. } = &mut self.shares[share];
        let part = *nodes[place].part.get_or_insert_with(|| {
            if parts.len() == *used {
                parts.push(NodePlan::default());
            }
            *used += 1;
            *used - 1
        });
        parts[part].place = place;
        parts[part].inputs.push_back((at_us, event));
    }

    /// Calls the nodes with all that was planned.
    pub fn work(&mut self, hands: &mut dyn Hands, task: impl Fn() -> EarlyWork) {
        // What one thread does by itself sooner than another has heard of it.
        const FEW_PARTS: usize = 8;
        self.shares.iter_mut().for_each(|share| share.task = Some(task()));
        if self.shares.iter().map(|share| share.used).sum::<usize>() < FEW_PARTS {
            return self.shares.iter_mut().for_each(NodeShare::work);
        }
        self.shares = hands.work(std::mem::take(&mut self.shares));
    }

    fn part(&mut self, id: NodeId) -> Option<&mut NodePlan> {
        let (share, place) = self.place(id);
        let NodeShare { nodes, parts, .. } = &mut self.shares[share];
        parts.get_mut(nodes.get(place)?.part?)
    }

    /// Whether a node was called ahead of now.
    pub fn is_ahead(&mut self, id: NodeId) -> bool {
        self.part(id).is_some_and(|part| !part.steps.is_empty())
    }

    /// The step that a node did next, if this was the cause, and its acts in front of all later ones: they are to
    /// be given back.
    pub fn next_step(&mut self, id: NodeId, cause: Cause) -> Option<(EarlyCall, VecDeque<Act>)> {
        let part = self.part(id)?;
        let step = part.steps.pop_front_if(|step| step.cause == cause)?;
        Some((step, std::mem::take(&mut part.acts)))
    }

    /// Gives back what was left of a node's acts.
    pub fn give_back(&mut self, id: NodeId, acts: VecDeque<Act>) {
        if let Some(part) = self.part(id) {
            part.acts = acts;
        }
    }

    /// The datagram that a node was to be called with next, and was not.
    pub fn next_datagram(&mut self, id: NodeId) -> Option<SimEvent> {
        let inputs = &mut self.part(id)?.inputs;
        // It has its timers from the world again.
        std::iter::from_fn(|| inputs.pop_front())
            .map(|input| input.1)
            .find(|it| matches!(it, SimEvent::Datagram { .. }))
    }

    /// Time has come to where all nodes are.
    pub fn catch_up(&mut self) {
        for NodeShare { nodes, parts, used, .. } in &mut self.shares {
            for part in parts.iter_mut().take(*used) {
                debug_assert!(part.steps.is_empty() && part.acts.is_empty(), "a step that never was");
                part.inputs.clear();
                nodes[part.place].part = None;
            }
            *used = 0;
        }
    }
}

impl Index<NodeId> for Nodes {
    type Output = SimNode;

    fn index(&self, id: NodeId) -> &SimNode {
        self.get(id).expect("a node of this world")
    }
}

impl IndexMut<NodeId> for Nodes {
    fn index_mut(&mut self, id: NodeId) -> &mut SimNode {
        self.get_mut(id).expect("a node of this world")
    }
}
