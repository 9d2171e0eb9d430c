//! Waiting, always bounded. The one file of the tests that reads the clock.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

/// How long anything may take that should take milliseconds: long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The end of a wait.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: Instant,
    length: Duration,
}

impl Deadline {
    /// So long from now on.
    pub fn after(length: Duration) -> Deadline {
        Deadline { start: Instant::now(), length }
    }

    /// What is left of it; `None` when it is over.
    pub fn left(&self) -> Option<Duration> {
        self.length.checked_sub(self.start.elapsed()).filter(|left| !left.is_zero())
    }

    /// How long ago it began.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Asks `what` until it answers `Some`, and fails with `label` when `within` is over.
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

/// Holds as long as `length` lasts; for what must *not* happen, and for what the contract itself
/// states in time.
pub fn throughout(label: &str, length: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Deadline::after(length);
    while deadline.left().is_some() {
        assert!(holds(), "{label}, after {:?}", deadline.elapsed());
        pause();
    }
}

/// The breath between two questions.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
