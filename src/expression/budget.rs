//! The work that one evaluation may do.

use super::error::Stop;

/// Bytes of text that are copied, compared or searched at the cost of one unit of work.
const BYTES_PER_UNIT: usize = 16;

/// What is left of the work that an evaluation may do. A unit is about ten nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkBudget {
    left: u32,
}

impl WorkBudget {
    pub(super) fn new(units: u32) -> WorkBudget {
        WorkBudget { left: units }
    }

    /// Takes the cost of `units` steps.
    pub(super) fn charge<'v>(&mut self, units: usize) -> Result<(), Stop<'v>> {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.left = self.left.checked_sub(units).ok_or(Stop::Exhausted)?;
        Ok(())
    }

    /// Takes the cost of `bytes` of text that are copied, compared or searched.
    pub(super) fn charge_bytes<'v>(&mut self, bytes: usize) -> Result<(), Stop<'v>> {
        self.charge(1 + bytes / BYTES_PER_UNIT)
    }
}
