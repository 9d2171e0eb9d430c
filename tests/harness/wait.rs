//! Waits with a deadline. This is the only file of the tests that reads the clock.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

/// The deadline for anything that should take milliseconds, long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The point in time until which a test waits for something.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: Instant,
    length: Duration,
}

impl Deadline {
    /// Makes a deadline that is `length` from now.
    pub fn after(length: Duration) -> Deadline {
        Deadline { start: Instant::now(), length }
    }

    /// Returns the time that is left; `None` once the deadline has passed.
    pub fn left(&self) -> Option<Duration> {
        self.length.checked_sub(self.start.elapsed()).filter(|left| !left.is_zero())
    }

    /// Returns the time since the deadline was made.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Calls `what` until it returns `Some`, and returns that. Fails with `label` if that takes longer than
/// `within`.
pub fn eventually<T>(label: &str, within: Duration, mut what: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(within);
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(deadline.left().is_some(), "not within {within:?}: {label}");
        pause();
    }
}

/// Checks again and again for as long as `length` that `holds` returns true. It is for what must *not*
/// happen, and for durations that the contract promises.
pub fn throughout(label: &str, length: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Deadline::after(length);
    while deadline.left().is_some() {
        assert!(holds(), "{label}, after {:?}", deadline.elapsed());
        pause();
    }
}

/// Sleeps between two checks.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Sleeps for some time: for a counterpart of a node that is slow.
pub fn pause_for(length: Duration) {
    std::thread::sleep(length);
}
