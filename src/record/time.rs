//! Time as a value: code is handed the current time and never reads a clock itself.

/// One reading of both clocks of a machine.
///
/// Timers and round trips are measured with `mono_us`; timestamps of records and times that users see are
/// taken from `wall_us`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds on the monotonic clock, which never goes back. Only differences have a meaning.
    pub mono_us: u64,
    /// Microseconds since the Unix epoch on the wall clock, which may be wrong and may be set back.
    pub wall_us: u64,
}

impl Now {
    /// Returns the reading that both clocks give `us` microseconds later.
    #[cfg(test)]
    pub fn plus_us(self, us: u64) -> Now {
        Now { mono_us: self.mono_us + us, wall_us: self.wall_us + us }
    }
}
