//! Requests over HTTP that wait for a change of one source (long polling).
//!
//! A request registers before it looks at the map, so it misses no change. A change of its source takes it out of the
//! list under the lock of the source's shard, which takes the time of one lookup, however many requests wait for this
//! source. They are woken afterwards, at the end of the turn in which the change was made.
//!
//! While nobody waits, a record costs one load of a number that is never written. A node that traces records has the
//! number never be 0, so that every change is looked at behind the same check.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use parking_lot::Mutex;

use crate::http::{Nudge, WATCHES_MAX};
use crate::ingest::Change;

/// The requests that wait for one source, by their numbers.
type WaitingRequests = BTreeMap<u64, Nudge>;

/// All requests of a node that wait for a change of a source.
#[derive(Default)]
pub struct Watches {
    /// Number of requests that are registered, and [`Watches::least`].
    count: AtomicUsize,
    /// The count when no request is registered: 1 if changes are looked at in any case.
    least: usize,
    /// Number of the request that was registered last.
    last: AtomicU64,
    by_source: Mutex<BTreeMap<Box<str>, WaitingRequests>>,
    /// The requests whose sources have changed, until they are woken.
    changed: Mutex<Vec<WaitingRequests>>,
    has_changed: AtomicBool,
}

impl Watches {
    /// Makes a list that is never idle.
    pub fn never_idle() -> Watches {
        Watches { count: AtomicUsize::new(1), least: 1, ..Watches::default() }
    }

    /// Returns whether changes need not be looked at.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Takes the requests that wait for the source of a change out of the list. To be called under the lock of the
    /// source's shard.
    pub fn handle_change(&self, change: &Change) {
        // A request that registers after this has not looked at the map so far, since that takes the same lock.
        if self.count.load(Relaxed) > self.least {
            self.take(change.record.source.as_str());
        }
    }

    fn take(&self, source: &str) {
        if let Some(waiting) = self.by_source.lock().remove(source) {
            self.changed.lock().push(waiting);
            self.has_changed.store(true, Relaxed);
        }
    }

    /// Wakes the requests whose sources have changed since the last call.
    pub fn wake_changed(&self) {
        if !self.has_changed.load(Relaxed) || !self.has_changed.swap(false, Relaxed) {
            return;
        }
        let changed = std::mem::take(&mut *self.changed.lock());
        changed.iter().flat_map(BTreeMap::values).for_each(Nudge::wake);
    }

    /// Registers a request that waits for a change of the source, and is woken by `nudge`. Returns its number, or `None` if
    /// too many requests wait.
    pub fn register(&self, source: &str, nudge: Nudge) -> Option<u64> {
        if self.count.fetch_add(1, Relaxed) >= WATCHES_MAX + self.least {
            self.count.fetch_sub(1, Relaxed);
            return None;
        }
        let number = self.last.fetch_add(1, Relaxed);
        self.by_source.lock().entry(source.into()).or_default().insert(number, nudge);
        Some(number)
    }

    /// Takes a request out of the list.
    pub fn remove(&self, source: &str, number: u64) {
        let mut by_source = self.by_source.lock();
        if let Some(waiting) = by_source.get_mut(source) {
            waiting.remove(&number);
            if waiting.is_empty() {
                by_source.remove(source);
            }
        }
        drop(by_source);
        self.count.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Birth, NodeName, Payload, Record, Source, Stamp};

    fn change(source: &str) -> Change {
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: 1 };
        let (source, stamp) = (Source::parse(source).expect("source"), Stamp::of_data(1, b"1"));
        let record = Record::new(source, stamp, Payload::Json("1".into()), birth, 0, 0);
        Change { record: Arc::new(record), is_expiry: false, shard: 0, version: 1 }
    }

    #[test]
    fn those_who_wait_for_a_source_are_woken_once_and_no_others() {
        let watches = Watches::default();
        let nudges = [(); 3].map(|()| Nudge::default());
        let register = |source, at: usize| watches.register(source, nudges[at].clone()).expect("a place");
        let (first, _, other) = (register("a", 0), register("a", 1), register("b", 2));
        watches.handle_change(&change("c"));
        watches.wake_changed();
        assert_eq!(nudges.each_ref().map(Nudge::has_woken), [false; 3]);
        watches.handle_change(&change("a"));
        watches.handle_change(&change("a"));
        assert_eq!(nudges.each_ref().map(Nudge::has_woken), [false; 3], "not under the lock of the shard");
        watches.wake_changed();
        assert_eq!(nudges.each_ref().map(Nudge::has_woken), [true, true, false]);
        watches.remove("a", first);
        watches.remove("b", other);
        assert_eq!((watches.count.load(Relaxed), watches.by_source.lock().len()), (1, 0));
    }

    #[test]
    fn no_more_wait_than_may() {
        let watches = Watches::default();
        for _ in 0..WATCHES_MAX {
            assert!(watches.register("a", Nudge::default()).is_some());
        }
        assert!(watches.register("a", Nudge::default()).is_none());
        watches.remove("a", 0);
        assert!(watches.register("b", Nudge::default()).is_some());
    }
}
