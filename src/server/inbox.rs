//! A worker's end of its mailbox: which change is handed out next, and how dropped changes are made up for.
//!
//! For every shard the inbox knows the version up to which its changes were handed out. A mailbox that
//! overflowed is emptied first. Then every shard of the map is asked for the sources that changed after that
//! version, and they are handed out as if their last changes had come through the mailbox. A shard is asked in
//! parts, and what changes while that is under way is left out: it comes through the mailbox. Changes in the
//! mailbox up to the version at which their shard was asked first are then skipped. So each subscriber gets
//! exactly the sources that it may have missed, with stamps that increase, and sessions need not know of the
//! overflow.
//!
//! Dropped changes count as pushed, and as handed out only once they are made up for: before that, no resume
//! token covers them. Rejected: closing the subscribers, who would all come back at the very moment when the
//! node cannot keep up; scanning for each subscriber by itself.

use std::collections::VecDeque;

use super::mailbox::Mailbox;
use crate::latest::{Change, Cursor, Latest};
use crate::limits::SHARDS;

/// The next item that an inbox gives its worker.
pub enum Mail {
    /// A change, to be handed to the sessions that want it.
    Change(Change),
    /// Changes were dropped. Sessions that want all of them cannot be served any longer; what the others
    /// missed follows.
    Overflow,
    /// A part of a shard was searched for missed changes, and no change is at hand yet.
    Scanned,
    /// No change waits.
    Empty,
}

/// One worker's end of its mailbox, which keeps how far the changes were handed out.
#[derive(Debug)]
pub struct Inbox {
    /// For each shard: changes up to this version were handed out, or no subscriber wanted them. Never falls.
    versions: Box<[u64; SHARDS]>,
    /// Changes that were taken from the mailbox, and are still to be handed out.
    taken: VecDeque<Change>,
    /// Number of changes of the mailbox that were handed out or skipped.
    popped: u64,
    /// Number of changes that the mailbox dropped and that were made up for.
    dropped: u64,
    rescan: Option<Rescan>,
}

/// A search of the map for missed changes that is under way. Changes in the mailbox wait for its end.
#[derive(Debug)]
struct Rescan {
    /// The shard of the map that is asked next.
    next_shard: usize,
    /// How far that shard was searched, and its version when the search of it began.
    cursor: Cursor,
    upto: Option<u64>,
    /// Changes that were found and are still to be handed out.
    found: VecDeque<Change>,
    /// Number of changes that the mailbox had dropped when the search began.
    dropped: u64,
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox { versions: Box::new([0; SHARDS]), taken: VecDeque::new(), popped: 0, dropped: 0, rescan: None }
    }
}

impl Inbox {
    /// Notes that the mailbox takes changes from now on. Earlier changes are found by snapshots.
    pub fn start(&mut self, latest: &Latest) {
        for (version, now) in self.versions.iter_mut().zip(latest.versions()) {
            *version = now.max(*version);
        }
    }

    /// The position of the mailbox ([`Mailbox::position`]) up to which everything was handed out. Never
    /// falls.
    pub fn position(&self) -> u64 {
        self.popped + self.dropped
    }

    /// Returns the next change to be handed out, or the event that stands in its place.
    pub fn next(&mut self, mailbox: &Mailbox, latest: &Latest) -> Mail {
        if self.rescan.is_some() {
            return self.catch_up(latest);
        }
        while !self.taken.is_empty() || mailbox.take(&mut self.taken) {
            let Some(change) = self.taken.pop_front() else { break };
            self.popped += 1;
            debug_assert!(self.position() <= mailbox.position(), "more was handed out than was pushed");
            if let Some(version) = self.versions.get_mut(usize::from(change.shard))
                && *version < change.version
            {
                *version = change.version;
                return Mail::Change(change);
            }
        }
        if !mailbox.take_overflow() {
            return Mail::Empty;
        }
        // Whoever drops a change holds its shard's lock. Behind the barrier everything that was dropped so
        // far is counted, and is in the map when its shard is read. What is dropped from now on belongs to
        // the next overflow.
        latest.barrier();
        let dropped = mailbox.dropped();
        debug_assert!(dropped >= self.dropped, "the number of dropped changes fell");
        let (cursor, upto) = (Cursor::default(), None);
        self.rescan = Some(Rescan { next_shard: 0, cursor, upto, found: VecDeque::new(), dropped });
        Mail::Overflow
    }

    fn catch_up(&mut self, latest: &Latest) -> Mail {
        let Some(rescan) = &mut self.rescan else { return Mail::Empty };
        if let Some(change) = rescan.found.pop_front() {
            return Mail::Change(change);
        }
        match self.versions.get_mut(rescan.next_shard) {
            Some(version) => {
                let Rescan { next_shard, cursor, upto, found, .. } = rescan;
                let now = latest.changes_since(*next_shard, (*version, upto), cursor, found);
                debug_assert!(*version <= now, "the version of a shard fell");
                if cursor.is_over() {
                    *version = now;
                    *next_shard += 1;
                    (*cursor, *upto) = (Cursor::default(), None);
                }
            }
            None => {
                self.dropped = rescan.dropped;
                self.rescan = None;
                // Sessions that subscribed to all changes meanwhile were handed only the last of each source.
                return Mail::Overflow;
            }
        }
        Mail::Scanned
    }
}

#[cfg(test)]
mod tests;
