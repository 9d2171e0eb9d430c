//! What can go wrong, and when; by hand or by chance.

use crate::cluster::random::Random;

/// How many of the running nodes something is done to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Portion {
    /// So many.
    Count(usize),
    /// So large a part of them, 0 to 1; at least one.
    Part(f64),
}

impl Portion {
    /// How many of `running`.
    pub fn of(self, running: usize) -> usize {
        match self {
            Portion::Count(count) => count.min(running),
            Portion::Part(part) => (((running as f64) * part).round() as usize).clamp(1, running.max(1)),
        }
    }
}

/// Something goes wrong with nodes chosen by chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// Nothing passes between these nodes and the others, in either direction.
    Partition(Portion),
    /// Nothing reaches these nodes any more; what they send arrives.
    Deaf(Portion),
    /// Nothing passes from one node to another, for so many pairs.
    Cut(usize),
    /// They stand still.
    Pause(Portion),
    /// One after the other, each of so many at a time stands still for up to a second.
    PauseInTurns(Portion),
    /// They stop without a word and never come back.
    Kill(Portion),
    /// They tell the others that they go, and stop.
    Leave(Portion),
    /// They stop, and start again at the end of the fault, with what they held or with nothing.
    Restart(Portion, bool),
    /// So large a part of the nodes restarts every second, each after one second, with what it held.
    Churn(f64),
    /// New nodes join through running ones.
    Join(usize),
    /// Their wall clocks jump, by microseconds.
    Clock(Portion, i64),
    /// So many more datagrams are lost, in parts of a million.
    Loss(u32),
}

/// Something goes wrong at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduledFault {
    /// When, in microseconds since the first record.
    pub at_us: u64,
    /// For how long; 0: at once, or for ever.
    pub for_us: u64,
    /// What.
    pub kind: FaultKind,
}

impl ScheduledFault {
    /// When it is over.
    pub fn end_us(&self) -> u64 {
        self.at_us + self.for_us
    }
}

/// Faults of all kinds over `for_us`, drawn by chance. Fewer than half of `nodes` are lost for good,
/// so a majority of those that were there in the beginning stays.
pub fn draw(random: &mut Random, nodes: usize, for_us: u64) -> Vec<ScheduledFault> {
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
