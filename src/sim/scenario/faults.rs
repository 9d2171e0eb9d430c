//! The faults that a scenario can have, and their times: written down by hand, or drawn by chance.

use crate::cluster::random::Random;

/// The number of running nodes that a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Portion {
    /// This number of nodes.
    Count(usize),
    /// This part of the nodes, 0 to 1; at least one node.
    Part(f64),
}

impl Portion {
    /// Returns the number of nodes, if `running` nodes run.
    pub fn of(self, running: usize) -> usize {
        match self {
            Portion::Count(count) => count.min(running),
            Portion::Part(part) => (((running as f64) * part).round() as usize).clamp(1, running.max(1)),
        }
    }
}

/// A kind of fault. The nodes that it concerns are drawn by chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// Nothing passes between these nodes and the others, in either direction.
    Partition(Portion),
    /// Nothing reaches these nodes any more; what they send arrives.
    Deaf(Portion),
    /// Nothing passes from one node to another, for this number of pairs.
    Cut(usize),
    /// These nodes stand still.
    Pause(Portion),
    /// Again and again, this many other nodes stand still, each for up to a second.
    PauseInTurns(Portion),
    /// These nodes stop without telling anyone, and never come back.
    Kill(Portion),
    /// These nodes tell the others that they leave, and stop.
    Leave(Portion),
    /// These nodes stop, and start again at the end of the fault; with their data if the flag is set.
    Restart(Portion, bool),
    /// Every second this part of the nodes stops; each node starts again after a second, with its data.
    Churn(f64),
    /// This number of new nodes joins through running ones.
    Join(usize),
    /// The wall clocks of these nodes jump by so many microseconds.
    Clock(Portion, i64),
    /// This part of the datagrams, in parts per million, is lost in addition to the usual losses.
    Loss(u32),
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduledFault {
    /// Begin of the fault, in microseconds since the first record.
    pub at_us: u64,
    /// Duration of the fault, in microseconds; 0: it ends at once, or lasts until all faults end.
    pub for_us: u64,
    /// The kind of the fault.
    pub kind: FaultKind,
}

impl ScheduledFault {
    /// Returns when the fault ends, in microseconds since the first record.
    pub fn end_us(&self) -> u64 {
        self.at_us + self.for_us
    }
}

/// Draws faults of all kinds over a time of `for_us` microseconds. Fewer than half of `nodes` are lost for
/// good, so a majority of the nodes of the beginning stays.
pub fn draw(random: &mut Random, nodes: usize, for_us: u64) -> Vec<ScheduledFault> {
    /// Mean time between two faults, in microseconds.
    const MEAN_US: u64 = 700_000;
    let mut lost = 0;
    let mut joined = 0;
    let mut at_us = 0;
    let mut faults = Vec::new();
    loop {
        at_us += random.below(2 * MEAN_US) + 1;
        if at_us >= for_us {
            return faults;
        }
        let few = Portion::Count(1 + random.index((nodes / 4).max(1)));
        let some_us = 100_000 + random.below(4_000_000);
        let for_us = some_us.min(for_us - at_us);
        let kind = match random.below(12) {
            0 => FaultKind::Partition(Portion::Count(1 + random.index((nodes / 2).max(1)))),
            1 => FaultKind::Deaf(few),
            2 | 3 => FaultKind::Cut(1 + random.index(nodes)),
            4 | 5 => FaultKind::Pause(few),
            6 if 2 * (lost + 1) < nodes => {
                lost += 1;
                FaultKind::Kill(Portion::Count(1))
            }
            7 => FaultKind::Restart(few, true),
            8 => FaultKind::Restart(Portion::Count(1), false),
            9 if joined < nodes / 2 => {
                joined += 1;
                FaultKind::Join(1)
            }
            10 => FaultKind::Clock(few, random.below(6_000_000) as i64 - 3_000_000),
            _ => FaultKind::Loss(20_000 + random.below(300_000) as u32),
        };
        faults.push(ScheduledFault { at_us, for_us, kind });
    }
}
