//! The only place that reads clocks or sleeps.
//!
//! Everyone else is given [`Now`]; so a test, or the simulator, can invent it.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::record::Now;

/// Both clocks of this machine. `mono_us` counts from the process's first reading.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let mono = START.get_or_init(Instant::now).elapsed();
    // A clock before 1970 reads as 1970: stamps are unsigned, and nothing better can be said.
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono_us: micros(mono), wall_us: micros(wall) }
}

/// Stands still for `us` microseconds. For threads that have nothing else to wait for.
#[allow(clippy::disallowed_methods)]
pub fn sleep(us: u64) {
    std::thread::sleep(Duration::from_micros(us));
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
