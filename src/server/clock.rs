//! The only place that reads clocks, sleeps, or draws random numbers.
//!
//! All other code is given [`Now`], and seeds; so a test, or the simulator, can make them up.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cluster::seal::LifeSecret;
use crate::record::Now;

/// Both clocks of this machine, in microseconds.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Now {
    // Stamps are unsigned, so a wall clock that stands before 1970 is read as 1970.
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono_us: mono_us(), wall_us: micros(wall) }
}

/// The monotonic clock alone, in microseconds from the first call in this process: half the work of [`now`], for
/// whoever only measures how long something takes.
#[allow(clippy::disallowed_methods)]
pub fn mono_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    micros(START.get_or_init(Instant::now).elapsed())
}

/// Blocks the calling thread for `us` microseconds. For threads that have nothing else to wait for.
#[allow(clippy::disallowed_methods)]
pub fn sleep(us: u64) {
    std::thread::sleep(Duration::from_micros(us));
}

/// A random number, different at every call and in every process. Seeds are made of it.
#[allow(clippy::disallowed_methods)]
pub fn chance() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The keys of a new hasher come from the operating system.
    RandomState::new().hash_one((now().wall_us, std::process::id()))
}

/// Random bytes from the operating system that nobody else can know. Another life of a node never has the same.
#[allow(clippy::disallowed_methods)]
pub fn secret() -> LifeSecret {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; 32];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // No system is known on which this fails. The bytes differ between lives all the same.
        let random = std::iter::repeat_with(|| chance().to_le_bytes()).flatten();
        bytes.iter_mut().zip(random).for_each(|(byte, random)| *byte = random);
    }
    LifeSecret(bytes)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
