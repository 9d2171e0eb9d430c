//! Runs a scenario: makes a world, publishes and injects faults, and checks the results.

use std::collections::BTreeMap;

use super::actions::{Action, Situation};
use super::checks::{Ledger, are_equal, believed_dead, overfull};
use super::faults;
use super::measure::{RunCounts, RunOutcome, measure};
use super::publisher::SimClients;
use super::{Beginning, Scenario};
use crate::cluster::random::Random;
use crate::sim::{Account, Conditions, Delay, Hands, NodeId, World};

/// Time between two comparisons of the nodes, in microseconds.
const LOOK_US: u64 = 50_000;
/// How long nodes must stay equal until it is certain that nothing was still on its way, in microseconds.
const CERTAIN_US: u64 = 500_000;
/// Most violations that an outcome lists.
const TOLD_MAX: usize = 5;

/// Runs a scenario. `progress` is called now and then with the part of the run that is done, 0 to 1.
///
/// Nothing here reads a clock: the caller measures how long a run takes.
pub fn run(scenario: &Scenario, seed: u64, progress: &mut dyn FnMut(f64)) -> RunOutcome {
    run_and_keep(scenario, seed, None, progress).0
}

/// Runs a scenario on several threads if `hands` are given, and returns the world as it is at the end, too.
pub fn run_and_keep(
    scenario: &Scenario,
    seed: u64,
    hands: Option<Box<dyn Hands>>,
    progress: &mut dyn FnMut(f64),
) -> (RunOutcome, World) {
    let mut run = Run::new(scenario, seed, hands);
    run.publish(progress);
    let converged_us = run.settle(progress);
    run.meet();
    run.outcome(seed, converged_us)
}

/// A run of a scenario.
struct Run<'a> {
    scenario: &'a Scenario,
    world: World,
    stage: Situation,
    publisher: SimClients,
    ledger: Ledger,
    /// Actions by time since the first record and, at one time, in the order in which they were decided.
    agenda: BTreeMap<(u64, u64), Action>,
    decided: u64,
    /// When the first record is due, in microseconds of the world.
    start_us: u64,
    /// The sum of the counts of all nodes when the first record was due.
    before: Account,
    /// Number of checks of single nodes so far: each looks at the next node.
    glances: usize,
    tally: RunCounts,
    violations: Vec<String>,
}

impl<'a> Run<'a> {
    /// Makes the world with its nodes, and lets it run until the first record is due.
    fn new(scenario: &'a Scenario, seed: u64, hands: Option<Box<dyn Hands>>) -> Run<'a> {
        let mut seeds = Random::new(seed);
        let mut world = World::with_hands(seeds.next_u64(), conditions(scenario), hands);
        let nodes = begin(&mut world, scenario);
        let stage = Situation::new(&world, nodes, scenario.zones, seeds.next_u64());
        let publisher = SimClients::new(&scenario.publishing, seeds.next_u64());
        let mut planned = scenario.faults.clone();
        if scenario.random_faults {
            let mut random = Random::new(seeds.next_u64());
            planned.extend(faults::draw(&mut random, scenario.nodes, scenario.publishing_us()));
        }
        let mut run = Run {
            scenario,
            world,
            stage,
            publisher,
            ledger: Ledger::default(),
            agenda: BTreeMap::new(),
            decided: 0,
            start_us: 0,
            before: Account::default(),
            glances: 0,
            tally: RunCounts::default(),
            violations: Vec::new(),
        };
        run.let_pass(scenario.warm_up_us);
        run.start_us = run.world.now_us();
        run.before = run.world.accounts();
        planned.into_iter().for_each(|fault| run.plan(fault.at_us, Action::Begin(fault)));
        run
    }

    /// Returns the time since the first record was due, in microseconds.
    fn at_us(&self) -> u64 {
        self.world.now_us() - self.start_us
    }

    fn plan(&mut self, at_us: u64, task: Action) {
        self.decided += 1;
        self.agenda.insert((at_us, self.decided), task);
    }

    /// Publishes all records, and does all planned actions.
    fn publish(&mut self, progress: &mut dyn FnMut(f64)) {
        let records = self.scenario.publishing.records as u64;
        let every_us = 1e6 / self.scenario.publishing.rate.max(1e-6);
        let mut published = 0;
        loop {
            let task_us = self.agenda.keys().next().map(|key| key.0);
            let record_us = (published < records).then_some((published as f64 * every_us) as u64);
            let Some(next_us) = [task_us, record_us].into_iter().flatten().min() else { return };
            self.let_pass(next_us.saturating_sub(self.at_us()));
            if task_us == Some(next_us) {
                self.do_next();
            } else {
                self.publish_one();
                published += 1;
                if published == records {
                    self.look_at_views();
                }
                progress(0.9 * published as f64 / records as f64);
            }
        }
    }

    fn look_at_views(&mut self) {
        let running = &self.stage.running;
        let known: usize = running.iter().map(|node| self.world.live(*node).min(running.len())).sum();
        let pairs = (running.len() * running.len()).max(1);
        self.tally.unknown_share = 1.0 - known as f64 / pairs as f64;
    }

    fn do_next(&mut self) {
        let Some(((at_us, _), task)) = self.agenda.pop_first() else { return };
        for (later_us, task) in self.stage.perform(&mut self.world, at_us, task) {
            self.plan(later_us, task);
        }
        for node in self.stage.wiped.drain(..) {
            self.ledger.wipe(node);
        }
    }

    fn publish_one(&mut self) {
        match self.publisher.publish(&mut self.world, &self.stage.running) {
            Some((node, record)) => {
                self.ledger.accept(node, &record);
                self.tally.records += 1;
                self.tally.wanted += self.stage.running.len() as u64 - 1;
                self.tally.origin = Some(node);
            }
            None => self.tally.refused += 1,
        }
    }

    /// Ends all faults and waits until all nodes are equal. Returns how long that took, in microseconds.
    fn settle(&mut self, progress: &mut dyn FnMut(f64)) -> Option<u64> {
        self.stage.heal(&mut self.world);
        let since_us = self.world.now_us();
        let mut equal_since_us = None;
        loop {
            let waited_us = self.world.now_us() - since_us;
            let is_equal = are_equal(&self.world, &self.stage.running);
            equal_since_us = equal_since_us.filter(|_| is_equal).or(is_equal.then_some(waited_us));
            match equal_since_us {
                Some(equal_us) if waited_us >= equal_us + CERTAIN_US => return Some(equal_us),
                None if waited_us >= self.scenario.settle_us => return None,
                _ => {}
            }
            progress(0.9 + 0.1 * waited_us as f64 / self.scenario.settle_us.max(1) as f64);
            self.let_pass(LOOK_US);
        }
    }

    /// Waits until no node believes a running one dead, or as long as nodes may take to be equal.
    fn meet(&mut self) {
        let since_us = self.world.now_us();
        while !believed_dead(&self.world, &self.stage.running).is_empty()
            && self.world.now_us() - since_us < self.scenario.settle_us
        {
            self.let_pass(LOOK_US);
        }
    }

    /// Lets time pass, and checks the queues: of one node afterwards, or of the called node after every event
    /// if the scenario is strict.
    fn let_pass(&mut self, for_us: u64) {
        if !self.scenario.is_strict {
            self.world.run_us(for_us);
            self.glances += 1;
            let node = self.stage.running.get(self.glances % self.stage.running.len().max(1));
            return look(&self.world, node, &mut self.violations);
        }
        let violations = &mut self.violations;
        self.world.run_with(for_us, &mut |world: &World, node: NodeId| look(world, Some(&node), violations));
    }

    fn outcome(mut self, seed: u64, converged_us: Option<u64>) -> (RunOutcome, World) {
        let running = &self.stage.running;
        let broken = self.world.deliveries.violations().iter().take(TOLD_MAX);
        let broken = broken.map(|it| format!("{:?} at n{}: {}", it.rule, it.node.0, it.record));
        self.violations.extend(broken);
        self.violations.extend(believed_dead(&self.world, running));
        let missing = self.ledger.missing(&self.world, running);
        let outcome = RunOutcome {
            scenario: self.scenario.name.clone(),
            seed,
            nodes: self.scenario.nodes,
            zones: self.scenario.zones,
            loss: f64::from(self.scenario.links.loss_per_million) / 1e6,
            is_bursty: self.scenario.links.is_bursty,
            missing: missing.all,
            unexplained_missing: missing.unexplained,
            converged_us,
            violations: self.violations,
            ..RunOutcome::default()
        };
        let publishers = self.scenario.publishing.publishers;
        self.tally.origin = self.tally.origin.filter(|_| publishers == 1);
        (measure(outcome, &self.world, &self.tally, &self.before, self.start_us), self.world)
    }
}

/// Checks the bounds of a node's queues.
fn look(world: &World, node: Option<&NodeId>, violations: &mut Vec<String>) {
    if violations.len() < TOLD_MAX
        && let Some(over) = node.and_then(|node| overfull(world, *node))
    {
        violations.push(over);
    }
}

/// Returns the conditions of the world that a scenario asks for.
fn conditions(scenario: &Scenario) -> Conditions {
    let links = &scenario.links;
    let (min_us, max_us) = links.zone_delay_us;
    Conditions {
        delay_us_min: links.delay_us.0,
        delay_us_max: links.delay_us.1,
        between_zones: (scenario.zones > 1).then_some(Delay { min_us, max_us }),
        loss_per_million: links.loss_per_million,
        is_bursty: links.is_bursty,
        duplicates_per_million: links.duplicates_per_million,
        reordered_per_million: links.reordered_per_million,
        egress_bytes_per_s: links.rate_bytes_per_s,
        cpu_us: links.cpu_us,
        ..Conditions::lan()
    }
}

/// Starts the nodes of a scenario.
fn begin(world: &mut World, scenario: &Scenario) -> Vec<NodeId> {
    let start = |index, seeds: &[_]| Situation::start_of(index, scenario.zones, seeds);
    match scenario.beginning {
        Beginning::Known => {
            let starts = (0..scenario.nodes).map(|index| start(index, &[])).collect();
            world.start_known_partly(starts, scenario.unknown_per_million)
        }
        Beginning::Joining => {
            let first = world.start(start(0, &[]));
            let seeds = [World::address_of(first)];
            let others = (1..scenario.nodes).map(|index| world.start(start(index, &seeds)));
            std::iter::once(first).chain(others.collect::<Vec<NodeId>>()).collect()
        }
    }
}
