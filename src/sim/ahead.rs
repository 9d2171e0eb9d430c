//! Calls nodes ahead of time, side by side.
//!
//! A message is on its way for at least the shortest delay of all links. So all messages that arrive within
//! that delay from now on have been sent already, and until then no node can learn what another one does.
//! Each node can therefore be called with all that arrives at it in that time, on any thread
//! ([`NodeShare::work`]). The world then lets the same time pass event by event, in order; but where it would
//! call a node, it takes the acts of the call that was made ahead of time ([`EarlyCall`]). Random numbers are
//! drawn and messages are sent in the same order as without this, so a run is the same to the byte, however
//! many threads work on it.
//!
//! A node whose machine asks for anything but sending datagrams is called no further ahead, because others
//! may hear of that sooner than the shortest delay. For the same reason nothing is called ahead past the next
//! event of a stream.

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

/// Number of nodes whose memory is fetched into the processor's caches at a time.
pub(super) const WARMED: usize = 4;

/// The threads that work on a world: they call [`NodeShare::work`] of all shares, side by side.
pub trait Hands: Send {
    /// Returns into how many shares the nodes are to be dealt.
    fn count(&self) -> usize;
    /// Calls [`NodeShare::work`] of all shares, and gives them back in the same order.
    fn work(&mut self, shares: Vec<NodeShare>) -> Vec<NodeShare>;
}

/// The kind of event that a node was called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Datagram,
    Wake(u64),
    Turn,
}

/// A call of a node that was made ahead of time.
#[derive(Debug)]
pub(super) struct EarlyCall {
    cause: Cause,
    /// Whether the node's machine was called.
    pub is_called: bool,
    /// Number of acts that the call led to.
    pub acts: usize,
}

/// The events that one node is to be called with ahead of time, and the calls and acts that followed. All are
/// in order of time.
#[derive(Debug, Default)]
struct NodePlan {
    /// Index of the node in its share.
    place: usize,
    inputs: VecDeque<(u64, SimEvent)>,
    steps: VecDeque<EarlyCall>,
    acts: VecDeque<Act>,
}

/// The part of the world that all nodes see while they are called ahead of time.
#[derive(Debug)]
pub(super) struct EarlyWork {
    /// Time until which nodes are called with timers and turns that they set themselves.
    pub until_us: u64,
    /// Processor time that a datagram takes at each end, in microseconds.
    pub cpu_us: u64,
    /// Longest time until another thread of a node has merged a batch, in microseconds; 0: it is merged at once.
    pub merge_us: u64,
    /// The nodes that listen at each address.
    pub hosts: Arc<Hosts>,
    /// The records that were accepted so far.
    pub accepted: Arc<AcceptedRecords>,
}

/// Some of the nodes, and the events that they are to be called with ahead of time.
#[derive(Default)]
pub struct NodeShare {
    nodes: Vec<SimNode>,
    /// The first `used` of these are in use; the others are kept for their memory.
    plans: Vec<NodePlan>,
    used: usize,
    task: Option<EarlyWork>,
}

impl NodeShare {
    /// Calls the nodes with the events that are planned for them. Does nothing if nothing is planned.
    pub fn work(&mut self) {
        let Some(task) = self.task.take() else { return };
        let plans = self.plans.get_mut(..self.used).unwrap_or_default();
        for some in plans.chunks_mut(WARMED) {
            let coming = some.iter().filter_map(|plan| Some((&self.nodes.get(plan.place)?.machine, plan)));
            let coming = coming.filter_map(|(machine, plan)| match &plan.inputs.front()?.1 {
                SimEvent::Datagram { from, bytes, .. } => Some((machine, task.hosts.address(*from), bytes)),
                _ => None,
            });
            warm_up(coming);
            for plan in some {
                if let Some(node) = self.nodes.get_mut(plan.place) {
                    plan.work(node, &task);
                }
            }
        }
    }
}

/// Reads the memory that the next datagrams will need. Each arrives at another node, of which the
/// processor's caches hold nothing any more, and would wait for one piece of memory after the other; here
/// these waits overlap.
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
    /// Calls the node with its events, until one of its calls asks for more than sending datagrams.
    fn work(&mut self, node: &mut SimNode, task: &EarlyWork) {
        let mut decided: VecDeque<(u64, SimEvent)> = VecDeque::new();
        while let Some((now_us, event)) = self.next(&mut decided, task.until_us) {
            let EarlyWork { cpu_us, merge_us, ref hosts, ref accepted, .. } = *task;
            let world = Surroundings { now_us, cpu_us, merge_us, hosts, accepted };
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

    /// Takes the next event that the node is called with. Of two events at one time the one that comes from
    /// outside is first: it was decided earlier.
    fn next(&mut self, decided: &mut VecDeque<(u64, SimEvent)>, until_us: u64) -> Option<(u64, SimEvent)> {
        let own_us = decided.front().map(|own| own.0).filter(|at_us| *at_us < until_us);
        match (self.inputs.front().map(|input| input.0), own_us) {
            (Some(at_us), Some(own_us)) if own_us < at_us => decided.pop_front(),
            (None, Some(_)) => decided.pop_front(),
            _ => self.inputs.pop_front(),
        }
    }
}

/// Inserts an event behind all that are not later.
fn decide(decided: &mut VecDeque<(u64, SimEvent)>, at_us: u64, event: SimEvent) {
    let place = decided.partition_point(|own| own.0 <= at_us);
    decided.insert(place, (at_us, event));
}

/// All nodes of a world, dealt out to the shares in turn.
pub(super) struct Nodes {
    shares: Vec<NodeShare>,
    count: usize,
}

impl Nodes {
    /// Makes this number of shares, without nodes.
    pub fn new(shares: usize) -> Nodes {
        Nodes { shares: (0..shares.max(1)).map(|_| NodeShare::default()).collect(), count: 0 }
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Adds a node. Its number is the count of nodes before.
    pub fn push(&mut self, node: SimNode) {
        let share = self.count % self.shares.len();
        self.shares[share].nodes.push(node);
        self.count += 1;
    }

    fn place(&self, id: NodeId) -> (usize, usize) {
        (id.0 % self.shares.len(), id.0 / self.shares.len())
    }

    /// Returns the node of this number.
    pub fn get(&self, id: NodeId) -> Option<&SimNode> {
        let (share, place) = self.place(id);
        self.shares[share].nodes.get(place)
    }

    /// Returns the node of this number, to be changed.
    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut SimNode> {
        let (share, place) = self.place(id);
        self.shares[share].nodes.get_mut(place)
    }

    /// Returns all nodes, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &SimNode> {
        (0..self.count).filter_map(|id| self.get(NodeId(id)))
    }

    /// Returns which of its lives a node is in; 0 for one that does not exist.
    pub fn life(&self, id: NodeId) -> u32 {
        self.get(id).map_or(0, |node| node.life)
    }

    /// Plans to call a node with this event ahead of time.
    pub fn plan(&mut self, id: NodeId, at_us: u64, event: SimEvent) {
        let (share, place) = self.place(id);
        let NodeShare { nodes, plans, used, .. } = &mut self.shares[share];
        let plan = *nodes[place].plan.get_or_insert_with(|| {
            if plans.len() == *used {
                plans.push(NodePlan::default());
            }
            *used += 1;
            *used - 1
        });
        plans[plan].place = place;
        plans[plan].inputs.push_back((at_us, event));
    }

    /// Calls the nodes with all planned events.
    pub fn work(&mut self, hands: &mut dyn Hands, task: impl Fn() -> EarlyWork) {
        // So few plans are finished by one thread before another one could be woken.
        const FEW_PLANS: usize = 8;
        self.shares.iter_mut().for_each(|share| share.task = Some(task()));
        if self.shares.iter().map(|share| share.used).sum::<usize>() < FEW_PLANS {
            return self.shares.iter_mut().for_each(NodeShare::work);
        }
        self.shares = hands.work(std::mem::take(&mut self.shares));
    }

    fn plan_of(&mut self, id: NodeId) -> Option<&mut NodePlan> {
        let (share, place) = self.place(id);
        let NodeShare { nodes, plans, .. } = &mut self.shares[share];
        plans.get_mut(nodes.get(place)?.plan?)
    }

    /// Returns whether a node was called ahead of time and the world has not come to all of these calls.
    pub fn is_ahead(&mut self, id: NodeId) -> bool {
        self.plan_of(id).is_some_and(|plan| !plan.steps.is_empty())
    }

    /// Takes the next call that was made of a node ahead of time, if this is its cause, and the node's acts, of
    /// which the first belong to it. The others are to be given back.
    pub fn next_step(&mut self, id: NodeId, cause: Cause) -> Option<(EarlyCall, VecDeque<Act>)> {
        let plan = self.plan_of(id)?;
        let step = plan.steps.pop_front_if(|step| step.cause == cause)?;
        Some((step, std::mem::take(&mut plan.acts)))
    }

    /// Gives back a node's acts that belong to later calls.
    pub fn give_back(&mut self, id: NodeId, acts: VecDeque<Act>) {
        if let Some(plan) = self.plan_of(id) {
            plan.acts = acts;
        }
    }

    /// Takes the next datagram that a node was to be called with ahead of time and was not.
    pub fn next_datagram(&mut self, id: NodeId) -> Option<SimEvent> {
        let inputs = &mut self.plan_of(id)?.inputs;
        // Timers and turns among the inputs are in the world's queue, too.
        std::iter::from_fn(|| inputs.pop_front())
            .map(|input| input.1)
            .find(|it| matches!(it, SimEvent::Datagram { .. }))
    }

    /// Ends a round of calls ahead of time: the world has come to all of them.
    pub fn catch_up(&mut self) {
        for NodeShare { nodes, plans, used, .. } in &mut self.shares {
            for plan in plans.iter_mut().take(*used) {
                debug_assert!(plan.steps.is_empty() && plan.acts.is_empty(), "a step that never was");
                plan.inputs.clear();
                nodes[plan.place].plan = None;
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
