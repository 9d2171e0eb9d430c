//! The only place that reads clocks, sleeps, or asks for chance.
//!
//! Everyone else is given [`Now`], and seeds; so a test, or the simulator, can invent them.

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

/// A number that no other process, and no other call, has: what seeds are made of.
#[allow(clippy::disallowed_methods)]
pub fn chance() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // A fresh hasher's keys come from the operating system.
    RandomState::new().hash_one((now().wall_us, std::process::id()))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
