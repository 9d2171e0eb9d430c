//! How much happens over time, and when it is again as much as it was before the faults.

use serde::Serialize;

/// Length of a slot of time, in microseconds.
const SLOT_US: u64 = 100_000;
/// Slots in which as much must happen as before, until the pace counts as back.
const WINDOW: u64 = 10;
/// Slots at the begin of the load that are not compared with.
const WARM_UP: u64 = 5;
/// Least number of slots before the first fault that can be compared with.
const BEFORE_MIN: u64 = 5;
/// Part of the pace before the faults at which it counts as back.
const BACK: f64 = 0.9;

/// The time from the end of the last fault until the pace was back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Back {
    /// There was no fault that ended, there was too little time before the first or after the last one, or nothing happened
    /// before.
    NotMeasured,
    /// It took so many microseconds.
    AfterUs(u64),
    /// It was not back when publishing ended, so many microseconds after the last fault.
    NotWithinUs(u64),
}

/// Counts of something over time.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    slots: Vec<u64>,
}

impl Pace {
    /// Counts one more at a time of the run.
    pub fn count(&mut self, at_us: u64) {
        let slot = (at_us / SLOT_US) as usize;
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, 0);
        }
        self.slots[slot] += 1;
    }

    /// Says when it was back after faults from `faults_us.0` to `faults_us.1`, while values were published from
    /// `publishing_us.0` to `publishing_us.1`.
    pub fn back(&self, faults_us: Option<(u64, u64)>, publishing_us: (u64, u64)) -> Back {
        let Some((began_us, ended_us)) = faults_us else { return Back::NotMeasured };
        let first = publishing_us.0 / SLOT_US + WARM_UP;
        let before = (began_us / SLOT_US).saturating_sub(first);
        let (begin, end) = (ended_us.div_ceil(SLOT_US), publishing_us.1 / SLOT_US);
        if before < BEFORE_MIN || end < begin.saturating_add(WINDOW) {
            return Back::NotMeasured;
        }
        let usual = self.sum(first, before);
        if usual == 0 {
            return Back::NotMeasured;
        }
        let enough = usual as f64 / before as f64 * WINDOW as f64 * BACK;
        match (begin..=end - WINDOW).find(|slot| self.sum(*slot, WINDOW) as f64 >= enough) {
            Some(slot) => Back::AfterUs(slot * SLOT_US - ended_us),
            None => Back::NotWithinUs(publishing_us.1 - ended_us),
        }
    }

    fn sum(&self, first: u64, length: u64) -> u64 {
        self.slots.iter().skip(first as usize).take(length as usize).sum()
    }
}
