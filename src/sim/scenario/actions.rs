//! Applies faults to a world, and ends them.

use std::net::SocketAddr;

use super::faults::{FaultKind, Portion, ScheduledFault};
use crate::cluster::random::Random;
use crate::sim::{Keeps, NodeId, Start, World};

/// How long a restarted node of a churning cluster is away, in microseconds.
const AWAY_US: u64 = 1_000_000;
/// How long a node that leaves goes on running to tell the cluster, in microseconds.
const LEAVING_US: u64 = 2_000_000;
/// Longest time for which a node that is paused in turn stands still, and the time after which the next nodes
/// follow, in microseconds.
const TURN_US: u64 = 1_000_000;
/// Number of members through which a node joins.
const SEEDS: usize = 3;

/// A change of the world that is due at a certain time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    /// Begins a fault.
    Begin(ScheduledFault),
    /// Ends a fault, by its number among those that were begun.
    End(usize),
    /// Starts a node again that was stopped.
    Up(NodeId, Keeps),
    /// Stops a node that has told the others that it leaves.
    Gone(NodeId),
    /// Repeats a fault that continues, until the time of its end, in microseconds.
    Again(FaultKind, u64),
}

/// A lasting fault of the network or of clocks, with the data that is needed to end it.
#[derive(Debug)]
enum Active {
    Sides(Vec<NodeId>, Vec<NodeId>),
    Cuts(Vec<(NodeId, NodeId)>),
    Clocks(Vec<NodeId>, i64),
    Loss(u32),
}

/// The nodes that run, and the faults that last at the moment.
#[derive(Debug)]
pub(super) struct Situation {
    /// The nodes that were not stopped, ascending; some of them may be paused.
    pub running: Vec<NodeId>,
    /// Nodes that were restarted without their data since the caller last emptied this list.
    pub wiped: Vec<NodeId>,
    active: Vec<Option<Active>>,
    random: Random,
    loss_per_million: u32,
    zones: usize,
}

impl Situation {
    /// Describes a world with these nodes and without faults.
    pub fn new(world: &World, running: Vec<NodeId>, zones: usize, seed: u64) -> Situation {
        Situation {
            running,
            wiped: Vec::new(),
            active: Vec::new(),
            random: Random::new(seed),
            loss_per_million: world.network.conditions.loss_per_million,
            zones,
        }
    }

    /// Returns how a node is started: its name and zone follow from its number.
    pub fn start_of(index: usize, zones: usize, seeds: &[SocketAddr]) -> Start {
        let zone = if zones > 1 { format!("z{}", index % zones) } else { String::new() };
        Start { zone, ..Start::new(format!("n{index}"), seeds) }
    }

    /// Carries out an action, `at_us` microseconds after the first record. Returns the later actions that
    /// follow from it.
    pub fn perform(&mut self, world: &mut World, at_us: u64, task: Action) -> Vec<(u64, Action)> {
        match task {
            Action::Begin(fault) => self.begin(world, &fault),
            Action::End(index) => {
                let over = self.active.get_mut(index).and_then(Option::take);
                if let Some(Active::Clocks(nodes, by_us)) = over {
                    nodes.iter().for_each(|node| world.jump_clock(*node, -by_us));
                }
                self.apply(world);
                Vec::new()
            }
            Action::Up(node, keeps) => {
                let seeds = self.seeds();
                if keeps == Keeps::Nothing {
                    self.wiped.push(node);
                }
                world.restart(node, keeps, &seeds);
                self.joined(node);
                Vec::new()
            }
            Action::Gone(node) => {
                self.stop(world, node);
                Vec::new()
            }
            Action::Again(kind, until_us) => self.again(world, at_us, kind, until_us),
        }
    }

    fn begin(&mut self, world: &mut World, fault: &ScheduledFault) -> Vec<(u64, Action)> {
        let end_us = fault.end_us();
        let active = match fault.kind {
            FaultKind::Partition(share) => {
                let side = self.choose(share);
                let others = self.running.iter().filter(|node| !side.contains(node)).copied().collect();
                Active::Sides(side, others)
            }
            FaultKind::Deaf(share) => {
                let deaf = self.choose(share);
                let all = &self.running;
                let to =
                    |to: NodeId| all.iter().filter(move |from| **from != to).map(move |from| (*from, to));
                Active::Cuts(deaf.iter().flat_map(|node| to(*node)).collect())
            }
            FaultKind::Cut(pairs) => Active::Cuts((0..pairs).filter_map(|_| self.pair()).collect()),
            FaultKind::Clock(share, by_us) => {
                let nodes = self.choose(share);
                nodes.iter().for_each(|node| world.jump_clock(*node, by_us));
                Active::Clocks(nodes, by_us)
            }
            FaultKind::Loss(per_million) => Active::Loss(per_million),
            _ => return self.stop_or_start(world, fault),
        };
        self.active.push(Some(active));
        self.apply(world);
        // A fault without an end lasts until all faults are ended.
        if fault.for_us == 0 { Vec::new() } else { vec![(end_us, Action::End(self.active.len() - 1))] }
    }

    /// Begins a fault of nodes, as opposed to one of links.
    fn stop_or_start(&mut self, world: &mut World, fault: &ScheduledFault) -> Vec<(u64, Action)> {
        let end_us = fault.end_us();
        match fault.kind {
            FaultKind::Pause(share) => {
                self.choose(share).iter().for_each(|node| world.pause(*node, fault.for_us));
                Vec::new()
            }
            FaultKind::Kill(share) => {
                for node in self.choose(share) {
                    self.stop(world, node);
                }
                Vec::new()
            }
            FaultKind::Leave(share) => {
                let nodes = self.choose(share);
                nodes.iter().for_each(|node| world.leave(*node));
                nodes.iter().map(|node| (fault.at_us + LEAVING_US, Action::Gone(*node))).collect()
            }
            FaultKind::Restart(share, keeps_data) => {
                let keeps = if keeps_data { Keeps::Everything } else { Keeps::Nothing };
                let nodes = self.choose(share);
                nodes.iter().filter_map(|node| Some((end_us, self.restart(world, *node, keeps)?))).collect()
            }
            FaultKind::Join(count) => {
                (0..count).for_each(|_| {
                    let start = Situation::start_of(world.nodes(), self.zones, &self.seeds());
                    self.running.push(world.start(start));
                });
                Vec::new()
            }
            kind => self.again(world, fault.at_us, kind, end_us),
        }
    }

    /// Repeats a fault that continues for a while.
    fn again(&mut self, world: &mut World, at_us: u64, kind: FaultKind, until_us: u64) -> Vec<(u64, Action)> {
        if at_us >= until_us {
            return Vec::new();
        }
        let mut follow = Vec::new();
        let next_us = match kind {
            FaultKind::Churn(part) => {
                if let Some(node) = self.choose(Portion::Count(1)).pop()
                    && let Some(up) = self.restart(world, node, Keeps::Everything)
                {
                    follow.push((at_us + AWAY_US, up));
                }
                (1e6 / (part * self.running.len() as f64).max(1e-3)) as u64
            }
            FaultKind::PauseInTurns(share) => {
                for node in self.choose(share) {
                    world.pause(node, self.random.below(TURN_US) + 1);
                }
                TURN_US
            }
            _ => return follow,
        };
        follow.push((at_us + next_us.max(1), Action::Again(kind, until_us)));
        follow
    }

    /// Ends all faults of the network.
    pub fn heal(&mut self, world: &mut World) {
        self.active.iter_mut().for_each(|active| *active = None);
        self.apply(world);
    }

    /// Applies the faults that last at the moment to the network.
    fn apply(&self, world: &mut World) {
        world.network.heal();
        let mut loss = self.loss_per_million;
        for active in self.active.iter().flatten() {
            match active {
                Active::Sides(one, other) => world.network.partition(one, other),
                Active::Cuts(pairs) => pairs.iter().for_each(|(from, to)| world.network.cut(*from, *to)),
                Active::Loss(more) => loss = (loss + more).min(1_000_000),
                Active::Clocks(..) => {}
            }
        }
        world.network.conditions.loss_per_million = loss;
    }

    fn restart(&mut self, world: &mut World, node: NodeId, keeps: Keeps) -> Option<Action> {
        self.stop(world, node).then_some(Action::Up(node, keeps))
    }

    /// Stops a node unless it is the last. Returns whether it was stopped.
    fn stop(&mut self, world: &mut World, node: NodeId) -> bool {
        let Ok(at) = self.running.binary_search(&node) else { return false };
        if self.running.len() == 1 {
            return false;
        }
        self.running.remove(at);
        world.kill(node);
        true
    }

    fn joined(&mut self, node: NodeId) {
        if let Err(at) = self.running.binary_search(&node) {
            self.running.insert(at, node);
        }
    }

    fn choose(&mut self, share: Portion) -> Vec<NodeId> {
        debug_assert!(self.running.is_sorted(), "nodes are looked up by halving");
        let mut nodes = self.running.clone();
        self.random.shuffle(&mut nodes);
        nodes.truncate(share.of(self.running.len()));
        nodes.sort_unstable();
        nodes
    }

    fn pair(&mut self) -> Option<(NodeId, NodeId)> {
        let pair = self.choose(Portion::Count(2));
        let is_other_way = self.random.below(2) == 1;
        let (first, second) = (*pair.first()?, *pair.get(1)?);
        Some(if is_other_way { (second, first) } else { (first, second) })
    }

    fn seeds(&mut self) -> Vec<SocketAddr> {
        self.choose(Portion::Count(SEEDS)).into_iter().map(World::address_of).collect()
    }
}
