//! The faults of a run over time: which begin, go on and end, on links and on machines.

pub mod chaos;

use std::collections::BTreeSet;

use anode_loadgen::Outcome;

use crate::checker::{Fault, Name, Seen};
use crate::load::recorder::Recorder;
use crate::profile::fault::{Event, Kind};
use crate::profile::rule::Rule;
use crate::testbed::{Script, Testbed};

/// State of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Active,
    Over,
}

/// A fault of some links.
struct LinkFault {
    rule: Rule,
    fault: Fault,
    begin_s: f64,
    end_s: f64,
    state: State,
}

/// A fault of a machine.
struct MachineFault {
    event: Event,
    fault: Fault,
    state: State,
}

/// Lets faults begin and end when it is their time.
pub struct Injector {
    links: Vec<LinkFault>,
    machines: Vec<MachineFault>,
    run_s: f64,
    seed: u64,
    /// What the faults have had to tell, for people.
    pub notes: Vec<String>,
}

impl Injector {
    /// Makes the faults of a run of `run_s` seconds.
    pub fn new(script: &Script, names: &[Name], run_s: f64, seed: u64) -> Injector {
        let changes = script.rules.iter().filter(|rule| !rule.is_always());
        let links: Vec<LinkFault> =
            changes.zip(0..).map(|(rule, id)| link_fault(rule, id, names, run_s)).collect();
        let first = links.len() as u32;
        let machines = script.events.iter().zip(first..).map(|(event, id)| {
            let fault = machine_fault(event, id, &names[event.node]);
            MachineFault { event: event.clone(), fault, state: State::Waiting }
        });
        Injector { links, machines: machines.collect(), run_s, seed, notes: Vec::new() }
    }

    /// Returns the nodes that are not there from the beginning.
    pub fn absent(&self) -> BTreeSet<usize> {
        let joins = self.machines.iter().filter(|fault| fault.event.fault.kind == Kind::Join);
        joins.map(|fault| fault.event.node).collect()
    }

    /// Returns the names of the faults that are active.
    pub fn active(&self) -> Vec<&str> {
        let links = self.links.iter().filter(|fault| fault.state == State::Active).map(|fault| &fault.fault);
        let machines = self.machines.iter().filter(|fault| fault.state == State::Active);
        links.chain(machines.map(|fault| &fault.fault)).map(|fault| &*fault.name).collect()
    }

    /// Returns the nodes that get less of the processor on purpose.
    pub fn bounded(&self) -> BTreeSet<usize> {
        let active = self.machines.iter().filter(|fault| fault.state == State::Active);
        let bounds = active.filter(|fault| fault.event.fault.kind == Kind::Cpu);
        bounds.map(|fault| fault.event.node).collect()
    }

    /// Returns whether no fault is active or to come.
    pub fn is_over(&self) -> bool {
        self.links.iter().all(|fault| fault.state == State::Over)
            && self.machines.iter().all(|fault| fault.state == State::Over)
    }

    /// Returns whether a fault is at a machine that may end its node.
    pub fn may_end(&self, node: usize) -> bool {
        let kinds = [Kind::DiskFails, Kind::DiskFull, Kind::DiskLies, Kind::Memory, Kind::Files];
        self.machines.iter().any(|fault| {
            fault.state == State::Active
                && fault.event.node == node
                && kinds.contains(&fault.event.fault.kind)
        })
    }

    /// Lets everything begin and end that is due `at_s` seconds after the begin of the run. The links themselves
    /// follow their rules; here, only their times are told.
    pub fn turn(&mut self, at_s: f64, testbed: &mut dyn Testbed, recorder: &Recorder) -> Outcome<()> {
        for link in &mut self.links {
            if link.state == State::Waiting && at_s >= link.begin_s {
                // Nodes may have other names than at the begin of the run.
                *link = link_fault(&link.rule, link.fault.id, &testbed.names(), self.run_s);
                link.state = State::Active;
                recorder.see(Seen::FaultBegan { fault: link.fault.clone() });
            }
            if link.state == State::Active && at_s >= link.end_s {
                link.state = State::Over;
                recorder.see(Seen::FaultEnded { fault: link.fault.id });
            }
        }
        // Faults of one machine that end come before those that begin.
        for index in 0..self.machines.len() {
            if self.machines[index].state == State::Active && at_s >= self.machines[index].event.end_s {
                self.end(index, testbed, recorder);
            }
        }
        for index in 0..self.machines.len() {
            if self.machines[index].state == State::Waiting && at_s >= self.machines[index].event.begin_s {
                self.begin(index, testbed, recorder);
            }
        }
        for fault in self.machines.iter().filter(|fault| fault.state == State::Active) {
            let event = &fault.event;
            let since_s = at_s - event.begin_s;
            let part = since_s / (event.end_s - event.begin_s).max(0.001);
            testbed.go_on(event, since_s, part)?;
        }
        Ok(())
    }

    fn begin(&mut self, index: usize, testbed: &mut dyn Testbed, recorder: &Recorder) {
        let MachineFault { event, fault, state } = &mut self.machines[index];
        *state = State::Active;
        let node = testbed.names()[event.node].clone();
        *fault = machine_fault(event, fault.id, &node);
        recorder.see(Seen::FaultBegan { fault: fault.clone() });
        if matches!(event.fault.kind, Kind::Kill | Kind::Restart | Kind::Upgrade) {
            recorder.see(Seen::NodeEnded { node: node.clone() });
        }
        if let Err(error) = testbed.begin(event) {
            self.notes.push(format!("{}: {error}", fault.name));
        }
        if event.fault.kind == Kind::Join {
            recorder.see(Seen::NodeStarted { node });
        }
    }

    fn end(&mut self, index: usize, testbed: &mut dyn Testbed, recorder: &Recorder) {
        let MachineFault { event, fault, state } = &mut self.machines[index];
        *state = State::Over;
        let node = testbed.names()[event.node].clone();
        if event.fault.kind == Kind::DiskLies {
            recorder.see(Seen::NodeEnded { node: node.clone() });
        }
        let starts = testbed.starts(event.node);
        match testbed.end(event, self.seed) {
            Ok(None) => {}
            Ok(Some(note)) => self.notes.push(format!("{}: {note}", fault.name)),
            Err(error) => self.notes.push(format!("{}: {error}", fault.name)),
        }
        if testbed.starts(event.node) > starts {
            recorder.see(Seen::NodeStarted { node });
        }
        recorder.see(Seen::FaultEnded { fault: fault.id });
    }
}

/// Returns whether other nodes are right to take a node for dead that a fault of this kind hits.
fn is_deadly(kind: Kind) -> bool {
    !matches!(kind, Kind::Join | Kind::DiskFull | Kind::DiskSlow | Kind::Clock | Kind::Files | Kind::Keys)
}

fn machine_fault(event: &Event, id: u32, node: &Name) -> Fault {
    let kind = event.fault.kind;
    let name = format!("{} {node}", kind.name()).into();
    Fault { id, name, nodes: vec![node.clone()], is_deadly: is_deadly(kind) }
}

fn link_fault(rule: &Rule, id: u32, names: &[Name], run_s: f64) -> LinkFault {
    let nodes = names.len();
    let (from, to) = (rule.from.nodes(nodes), rule.to.nodes(nodes));
    // A rule for the links of some nodes with all others is about those nodes.
    let hit: Vec<usize> = match (from.len() == nodes, to.len() == nodes) {
        (false, true) => from,
        (true, false) => to,
        _ => from.into_iter().chain(to).collect::<BTreeSet<_>>().into_iter().collect(),
    };
    let is_cut = rule.cut == Some(true);
    let is_bad = is_cut || rule.bursts.is_some() || rule.loss.is_some_and(|loss| loss >= 20.0);
    let what = match (is_cut, rule.corrupt, rule.bursts.is_some(), rule.loss, rule.delay_ms) {
        (true, ..) => "cut".to_owned(),
        (_, Some(percent), ..) => format!("corrupt {percent} %"),
        (_, _, true, ..) => "loss in bursts".to_owned(),
        (_, _, _, Some(percent), _) => format!("loss {percent} %"),
        (.., Some(ms)) => format!("delay {ms} ms"),
        _ => "link".to_owned(),
    };
    let of: Vec<&str> = hit.iter().map(|node| &*names[*node]).collect();
    let name = if of.len() == nodes { what } else { format!("{what} {}", of.join(" ")) };
    let end_s = if rule.until < 1.0 { rule.until * run_s } else { run_s };
    let fault = Fault {
        id,
        name: name.into(),
        nodes: hit.iter().map(|node| names[*node].clone()).collect(),
        is_deadly: is_bad && !hit.is_empty(),
    };
    LinkFault { rule: rule.clone(), fault, begin_s: rule.at * run_s, end_s, state: State::Waiting }
}
