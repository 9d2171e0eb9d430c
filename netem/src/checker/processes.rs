//! When which node ran, and which faults hit it.

use std::collections::{BTreeMap, BTreeSet};

use super::observation::Fault;

/// A fault with the time for which it lasted.
#[derive(Clone, Debug)]
pub(super) struct FaultSpan {
    /// Name for people.
    pub(super) name: String,
    /// Numbers of the nodes that it hits; empty for all.
    nodes: Vec<u32>,
    is_deadly: bool,
    /// Time at which it began, in microseconds.
    pub(super) began_us: u64,
    /// Time at which it ended, in microseconds; `None` while it lasts.
    pub(super) ended_us: Option<u64>,
}

/// Time after the first start of a node within which it may still be unknown to others, in microseconds.
const FIRST_START_US: u64 = 4_000_000;

/// The lives of the nodes' processes, and the faults.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// For each node the times of its starts and ends, in order: `true` for a start.
    events: BTreeMap<u32, Vec<(u64, bool)>>,
    faults: BTreeMap<u32, FaultSpan>,
    /// Numbers of the faults that last.
    lasting: BTreeSet<u32>,
}

impl Processes {
    /// Notes that a node's process was started or has ended.
    pub(super) fn handle_process(&mut self, at_us: u64, node: u32, is_start: bool) {
        self.events.entry(node).or_default().push((at_us, is_start));
    }

    /// Notes that a fault begins, which hits these nodes.
    pub(super) fn handle_fault(&mut self, at_us: u64, fault: &Fault, nodes: Vec<u32>) {
        let span = FaultSpan {
            name: fault.name.to_string(),
            nodes,
            is_deadly: fault.is_deadly,
            began_us: at_us,
            ended_us: None,
        };
        self.faults.insert(fault.id, span);
        self.lasting.insert(fault.id);
    }

    /// Notes that a fault is over. Returns whether no fault is left.
    pub(super) fn handle_fault_end(&mut self, at_us: u64, fault: u32) -> bool {
        if let Some(span) = self.faults.get_mut(&fault) {
            span.ended_us = Some(at_us);
        }
        self.lasting.remove(&fault);
        self.lasting.is_empty()
    }

    /// Returns whether a node ran from one time to another without an end or a start in between. A node whose start
    /// was not seen has always run.
    pub(super) fn is_same_life(&self, node: u32, from_us: u64, to_us: u64) -> bool {
        let events = self.events.get(&node).map_or(&[][..], Vec::as_slice);
        let before = events.iter().rev().find(|(at_us, _)| *at_us <= from_us);
        let was_running =
            before.map_or_else(|| events.first().is_none_or(|(_, is_start)| !is_start), |(_, on)| *on);
        was_running && !events.iter().any(|(at_us, _)| *at_us > from_us && *at_us <= to_us)
    }

    /// Returns whether a node runs at the end of what was seen.
    pub(super) fn runs_at_end(&self, node: u32) -> bool {
        self.events.get(&node).and_then(|events| events.last()).is_none_or(|(_, is_start)| *is_start)
    }

    /// Returns whether a deadly fault hit the node, or its process started or ended, between two times.
    pub(super) fn was_hit(&self, node: u32, from_us: u64, to_us: u64) -> bool {
        let is_hit = |span: &FaultSpan| {
            span.is_deadly
                && (span.nodes.is_empty() || span.nodes.contains(&node))
                && span.began_us <= to_us
                && span.ended_us.is_none_or(|ended_us| ended_us >= from_us)
        };
        self.faults.values().any(is_hit) || !self.is_same_life(node, from_us, to_us)
    }

    /// Returns whether a deadly fault hit the node, or its process ended or started again, between two times. The first
    /// start of a node counts for a short time only: nobody can have taken it for dead before.
    pub(super) fn was_disturbed(&self, node: u32, from_us: u64, to_us: u64) -> bool {
        let first = self.events.get(&node).and_then(|events| events.first());
        let first_us = first.filter(|(_, is_start)| *is_start).map(|(at_us, _)| *at_us);
        match first_us.filter(|first_us| *first_us >= from_us) {
            Some(first_us) => {
                first_us.saturating_add(FIRST_START_US) > to_us || self.was_hit(node, first_us, to_us)
            }
            None => self.was_hit(node, from_us, to_us),
        }
    }

    /// Returns whether a fault of any kind lasts that hits the node.
    pub(super) fn is_hit_now(&self, node: u32) -> bool {
        let mut spans = self.lasting.iter().filter_map(|fault| self.faults.get(fault));
        spans.any(|span| span.nodes.is_empty() || span.nodes.contains(&node))
    }

    /// All faults, in the order of their numbers.
    pub(super) fn faults(&self) -> impl Iterator<Item = &FaultSpan> {
        self.faults.values()
    }

    /// The time at which the first fault began, and the time at which the last one ended. `None` without faults; a
    /// fault that was never ended counts until the greatest time.
    pub(super) fn faulty_us(&self) -> Option<(u64, u64)> {
        let began_us = self.faults.values().map(|span| span.began_us).min()?;
        let ended_us = self.faults.values().map(|span| span.ended_us.unwrap_or(u64::MAX)).max()?;
        Some((began_us, ended_us))
    }
}
