//! The processor time that a guest may take for one call.
//!
//! Processor time is counted, not time by the clock: a node whose processors are busy with other programs may stand still
//! for many milliseconds in the middle of a call, and the guest is not to blame for that. Short calls never ask for the
//! time, because it is looked at only when an epoch ends during the call.

use rustix::time::{ClockId, clock_gettime};

use super::super::bounds::WASM_CALL_US_MAX;
use super::ticker::EPOCH_US;

/// Most processor time of a call, in microseconds. One epoch may have been over before the time was first looked at.
const CALL_US: u64 = WASM_CALL_US_MAX - EPOCH_US;
/// Most processor time for the making of an instance, in microseconds, which is rare and copies all of its memory.
const INSTANCE_US: u64 = 10 * CALL_US;

const _: () = assert!(WASM_CALL_US_MAX >= 2 * EPOCH_US);

/// What is left of the time of the call that runs.
#[derive(Debug)]
pub struct Allowance {
    /// Most processor time after the first look, in microseconds.
    most_us: u64,
    /// Processor time of the thread at the first look during the call, in microseconds.
    first_us: Option<u64>,
}

impl Default for Allowance {
    /// The time for the making of an instance, which is the first thing that is done with it.
    fn default() -> Allowance {
        Allowance { most_us: INSTANCE_US, first_us: None }
    }
}

impl Allowance {
    /// The time for one record.
    pub fn for_call() -> Allowance {
        Allowance { most_us: CALL_US, first_us: None }
    }

    /// Returns whether the guest that runs on this thread has taken all its time. Asked at the end of every epoch.
    pub fn is_used_up(&mut self) -> bool {
        let now_us = thread_us();
        let first_us = *self.first_us.get_or_insert(now_us);
        now_us.saturating_sub(first_us) >= self.most_us
    }
}

/// The processor time of this thread since it began, in microseconds.
fn thread_us() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    (time.tv_sec as u64) * 1_000_000 + (time.tv_nsec as u64) / 1_000
}
