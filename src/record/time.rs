//! Time, as it is handed round: taken, never read.

/// One reading of both clocks of a machine.
///
/// Timers and round trips are measured on `mono_us`; stamps and what users see are on `wall_us`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds on a clock that never goes back; its zero has no meaning.
    pub mono_us: u64,
    /// Microseconds since the Unix epoch, as this machine believes.
    pub wall_us: u64,
}

impl Now {
    /// The same instant, `us` microseconds later on both clocks.
    pub fn plus_us(self, us: u64) -> Now {
        Now { mono_us: self.mono_us + us, wall_us: self.wall_us + us }
    }
}
