//! A worker's end of its mailbox: what is handed out next, and how it is made good that changes were
//! dropped.
//!
//! The inbox knows of every shard up to which version its changes were handed out. A mailbox that
//! overflowed is emptied first; then every shard of the map is asked for the sources that changed
//! after that version, and they are handed out as if their last changes had come through the mailbox.
//! What the mailbox holds of a shard up to the version that was read there is then skipped. So each
//! subscriber is told of exactly the sources that it may have missed, with stamps that increase, and
//! sessions with their seams know nothing of it.
//!
//! Dropped changes count as pushed, and as handed out only once they are made good: no token speaks
//! of what was dropped before that. Rejected: closing the subscribers, who would all come back at the
//! very moment when the node cannot keep up; scanning for each subscriber by itself.

use std::collections::VecDeque;

use super::mailbox::Mailbox;
use crate::latest::{Change, Latest};
use crate::limits::SHARDS;

/// What comes out.
pub enum Mail {
    /// To be handed to the sessions that want it.
    Change(Change),
    /// Changes were dropped: who wants all of them cannot be served any longer. To the others, what
    /// they missed follows.
    Overflow,
    /// One step of the catching up was done.
    Scanned,
    /// Nothing waits.
    Empty,
}

/// The state of one worker's reading.
#[derive(Debug)]
pub struct Inbox {
    /// By shard: changes up to this version were handed out, or nobody wanted them.
    versions: Box<[u64; SHARDS]>,
    /// Taken from the mailbox, and still to be handed out.
    taken: VecDeque<Change>,
    /// How many were handed out of it.
    popped: u64,
    /// How many were dropped, and made good.
    dropped: u64,
    rescan: Option<Rescan>,
}

/// A catching up that is under way. Meanwhile the mailbox waits.
#[derive(Debug)]
struct Rescan {
    next_shard: usize,
    found: VecDeque<Change>,
    /// What the mailbox had dropped when it began.
    dropped: u64,
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox { versions: Box::new([0; SHARDS]), taken: VecDeque::new(), popped: 0, dropped: 0, rescan: None }
    }
}

impl Inbox {
    /// The mailbox takes changes from now on. What changed before, snapshots find.
    pub fn start(&mut self, latest: &Latest) {
        for (version, now) in self.versions.iter_mut().zip(latest.versions()) {
            *version = now.max(*version);
        }
    }

    /// Up to which position of the mailbox everything was handed out.
    pub fn position(&self) -> u64 {
        self.popped + self.dropped
    }

    /// What is next.
    pub fn next(&mut self, mailbox: &Mailbox, latest: &Latest) -> Mail {
        if self.rescan.is_some() {
            return self.catch_up(latest);
        }
        while !self.taken.is_empty() || mailbox.take(&mut self.taken) {
            let Some(change) = self.taken.pop_front() else { break };
            self.popped += 1;
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
        // Whoever drops something is in the middle of its change of the map: behind the barrier all
        // that was dropped so far is counted, and in the map when its shard is read. What is dropped
        // from now on belongs to the next overflow.
        latest.barrier();
        let dropped = mailbox.dropped();
        self.rescan = Some(Rescan { next_shard: 0, found: VecDeque::new(), dropped });
        Mail::Overflow
    }

    fn catch_up(&mut self, latest: &Latest) -> Mail {
        let Some(rescan) = &mut self.rescan else { return Mail::Empty };
        if let Some(change) = rescan.found.pop_front() {
            return Mail::Change(change);
        }
        match self.versions.get_mut(rescan.next_shard) {
            Some(version) => {
                *version = latest.changes_since(rescan.next_shard, *version, &mut rescan.found);
                rescan.next_shard += 1;
            }
            None => {
                self.dropped = rescan.dropped;
                self.rescan = None;
                // Who subscribed to every record meanwhile was handed only the last of each source.
                return Mail::Overflow;
            }
        }
        Mail::Scanned
    }
}

#[cfg(test)]
mod tests;
