//! Files that are read again while the node runs: when they change, and when the operator asks for it with
//! SIGHUP.
//!
//! A part of the node that depends on files implements [`Reloadable`] and keeps them as
//! [`WatchedFiles`](crate::config::watched::WatchedFiles). The loading thread looks at all parts about once a second,
//! and at once after SIGHUP ([`Reloader`]). Rejected: notifications of the file system, which miss changes of mounted
//! and linked directories, such as the secrets of Kubernetes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::record::Now;

/// Time between two looks at the files, in microseconds. A change is noticed within this time.
const LOOK_US: u64 = 1_000_000;

/// Something that depends on files, and can take a new state of them while the node runs.
pub trait Reloadable: Send {
    /// Reads the files if they have changed, or in any case if `is_asked`, and uses what they say. If that cannot
    /// be used, logs an error and goes on with what was used so far.
    fn look(&mut self, now: Now, is_asked: bool);
}

/// The flag by which an operator asks that all files be read again. The handler of the signal sets it.
#[derive(Clone, Debug, Default)]
pub struct ReloadFlag(Arc<AtomicBool>);

impl Reloadable for Box<dyn Reloadable> {
    fn look(&mut self, now: Now, is_asked: bool) {
        self.as_mut().look(now, is_asked);
    }
}

impl ReloadFlag {
    /// Makes SIGHUP set this flag. Without this, SIGHUP ends the process.
    pub fn watch_signal(&self) -> io::Result<()> {
        signal_hook::flag::register(signal_hook::consts::SIGHUP, self.0.clone()).map(drop)
    }

    fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}

/// All parts of a node that depend on files.
#[derive(Default)]
pub struct Reloader {
    flag: ReloadFlag,
    parts: Vec<Box<dyn Reloadable>>,
    /// Monotonic time of the next look, in microseconds.
    next_us: u64,
}

impl Reloader {
    /// A reloader without parts, which the operator asks through `flag`.
    pub fn new(flag: ReloadFlag) -> Reloader {
        Reloader { flag, ..Reloader::default() }
    }

    /// Adds a part, which is looked at from now on.
    pub fn add(&mut self, part: impl Reloadable + 'static) {
        self.parts.push(Box::new(part));
    }

    /// Lets all parts look at their files, if they are due or the operator asks for it. May be called as often as
    /// one likes.
    pub fn handle_turn(&mut self, now: Now) {
        let is_asked = self.flag.take();
        if is_asked {
            tracing::info!(
                "reading certificates, cluster keys, rights and the configuration file again, as SIGHUP asks for"
            );
        }
        if is_asked || now.mono_us >= self.next_us {
            self.next_us = now.mono_us + LOOK_US;
            self.parts.iter_mut().for_each(|part| part.look(now, is_asked));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn parts_look_once_a_second_and_when_asked() {
        #[derive(Clone, Default)]
        struct Counts(Arc<AtomicUsize>, Arc<AtomicUsize>);
        impl Reloadable for Counts {
            fn look(&mut self, _: Now, is_asked: bool) {
                if is_asked { &self.1 } else { &self.0 }.fetch_add(1, Relaxed);
            }
        }
        let (flag, counts) = (ReloadFlag::default(), Counts::default());
        let mut reloader = Reloader::new(flag.clone());
        reloader.add(counts.clone());
        for mono_us in (0..3_000_000).step_by(50_000) {
            reloader.handle_turn(Now { mono_us, wall_us: 0 });
        }
        flag.0.store(true, Relaxed);
        reloader.handle_turn(Now { mono_us: 3_000_000, wall_us: 0 });
        reloader.handle_turn(Now { mono_us: 3_050_000, wall_us: 0 });
        assert_eq!((counts.0.load(Relaxed), counts.1.load(Relaxed)), (3, 1));
    }
}
