//! How changes reach the worker whose subscribers want them.
//!
//! Whoever merges a record pushes the change into the mailbox of every worker that has a
//! subscription, under the lock of the record's shard, so a mailbox holds a source's changes in the
//! order of their stamps. The push is memory only; the sleeping worker is woken once, at the end of
//! the pusher's turn ([`Mailbox::wake_if_wanted`]), however many changes were pushed.
//!
//! The queue is bounded in bytes. Over [`MAILBOX_BYTES_SOFT`] this node's publishers are not read;
//! over [`MAILBOX_BYTES_HARD`] (peers cannot be paused) changes are dropped and counted, and the
//! mailbox says so: its worker ([`super::inbox`]) then reads from the map which sources changed since
//! what it handed out last. Rejected: a bounded channel, since a push under a shard's lock must neither
//! block nor fail half-way; an unbounded one, which costs a change seven locked instructions.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize, fence};
use std::{io, mem};

use parking_lot::Mutex;

use crate::ingest::Change;
use crate::limits::{MAILBOX_BYTES_HARD, MAILBOX_BYTES_SOFT};

/// Room for changes that an empty mailbox keeps.
const KEPT_MAX: usize = 4096;
/// Changes that are taken out at a time.
const TAKEN_MAX: usize = 256;

/// One worker's mailbox. Everyone pushes; the worker alone takes.
#[derive(Debug)]
pub struct Mailbox {
    line: Mutex<Line>,
    /// The line's, for those who only look.
    bytes: AtomicUsize,
    bytes_max: usize,
    is_wanted: AtomicBool,
    waker: mio::Waker,
    is_asleep: AtomicBool,
    is_nudged: AtomicBool,
    is_wake_wanted: AtomicBool,
}

/// What waits. Under one lock, which a push holds for a few memory writes.
#[derive(Debug, Default)]
struct Line {
    changes: VecDeque<Change>,
    /// Of these and of those taken last: they are held until the worker comes for the next.
    bytes: usize,
    taken_bytes: usize,
    pushed: u64,
    dropped: u64,
    is_overflowed: bool,
}

/// Leaves a change with every worker that has a subscription. Called under the lock of its shard.
pub fn deliver(mailboxes: &[Mailbox], change: Change) {
    let mut wanted = mailboxes.iter().filter(|mailbox| mailbox.is_wanted.load(SeqCst));
    let Some(mut mailbox) = wanted.next() else { return };
    for next in wanted {
        mailbox.push(change.clone());
        mailbox = next;
    }
    // One worker is usual, and takes the change itself.
    mailbox.push(change);
}

impl Mailbox {
    /// An empty mailbox of the worker that `waker` wakes.
    pub fn new(waker: mio::Waker) -> Mailbox {
        Mailbox::bounded(waker, MAILBOX_BYTES_HARD)
    }

    /// The same with another bound.
    pub(super) fn bounded(waker: mio::Waker, bytes_max: usize) -> Mailbox {
        Mailbox {
            line: Mutex::default(),
            bytes: AtomicUsize::new(0),
            bytes_max,
            is_wanted: AtomicBool::new(false),
            waker,
            is_asleep: AtomicBool::new(false),
            is_nudged: AtomicBool::new(false),
            is_wake_wanted: AtomicBool::new(false),
        }
    }

    /// Whether the worker has any subscription; without one nothing is pushed. Set before the
    /// subscription's snapshot starts: what was not pushed is then seen by the scan.
    pub fn set_wanted(&self, is_wanted: bool) {
        self.is_wanted.store(is_wanted, SeqCst);
    }

    fn push(&self, change: Change) {
        let cost_bytes = cost_of(&change);
        let mut line = self.line.lock();
        // Once one is dropped all are, until the worker has emptied the mailbox and noticed.
        line.is_overflowed |= line.bytes + cost_bytes > self.bytes_max;
        if line.is_overflowed {
            line.dropped += 1;
        } else {
            line.pushed += 1;
            line.bytes += cost_bytes;
            self.bytes.store(line.bytes, Relaxed);
            line.changes.push_back(change);
        }
        drop(line);
        // Looked at first: nearly always it is set, and a write would take the line from other cores.
        if !self.is_wake_wanted.load(SeqCst) {
            self.is_wake_wanted.store(true, SeqCst);
        }
    }

    /// How many changes were pushed so far, those that were dropped included. Compared with how many
    /// were handed out.
    pub fn position(&self) -> u64 {
        let line = self.line.lock();
        line.pushed + line.dropped
    }

    /// How many of them were dropped.
    pub fn dropped(&self) -> u64 {
        self.line.lock().dropped
    }

    /// Moves the oldest changes that wait behind those in `taken`; those taken before are done with.
    /// `false`: nothing waits. For the worker alone.
    pub fn take(&self, taken: &mut VecDeque<Change>) -> bool {
        let mut line = self.line.lock();
        let count = line.changes.len().min(TAKEN_MAX);
        line.bytes -= mem::take(&mut line.taken_bytes);
        self.bytes.store(line.bytes, Relaxed);
        line.taken_bytes = line.changes.range(..count).map(cost_of).sum();
        taken.extend(line.changes.drain(..count));
        if line.changes.is_empty() && line.changes.capacity() > KEPT_MAX {
            line.changes = VecDeque::new();
        }
        count > 0
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        let line = self.line.lock();
        line.changes.is_empty() && !line.is_overflowed
    }

    /// Whether this node's publishers must wait for the worker.
    pub fn is_over_soft(&self) -> bool {
        self.bytes.load(Relaxed) > MAILBOX_BYTES_SOFT
    }

    /// Whether changes were dropped since the last time; from now on they are taken again. For the
    /// worker, once nothing waits.
    pub fn take_overflow(&self) -> bool {
        mem::take(&mut self.line.lock().is_overflowed)
    }

    /// Whether nothing waits and nobody has called since the last turn.
    pub fn is_quiet(&self) -> bool {
        !self.is_nudged.load(SeqCst) && self.is_empty()
    }

    /// The worker is about to block. `false`: it must not, something waits.
    pub fn fall_asleep(&self) -> bool {
        self.is_asleep.store(true, SeqCst);
        fence(SeqCst);
        if self.is_quiet() {
            return true;
        }
        self.is_asleep.store(false, SeqCst);
        false
    }

    /// The worker is awake, and looks at everything in the turn that begins.
    pub fn wake_up(&self) {
        self.is_asleep.store(false, SeqCst);
        self.is_nudged.store(false, SeqCst);
    }

    /// Wakes the worker if something was pushed since the last time, and it sleeps.
    pub fn wake_if_wanted(&self) {
        if self.is_wake_wanted.load(SeqCst) && self.is_wake_wanted.swap(false, SeqCst) {
            self.wake();
        }
    }

    /// The worker is to take another turn: wakes it, if it sleeps.
    pub fn wake(&self) {
        self.is_nudged.store(true, SeqCst);
        fence(SeqCst);
        if !self.is_asleep.swap(false, SeqCst) {
            return;
        }
        match self.waker.wake() {
            Ok(()) => {}
            // The pipe is full of wakes already.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => tracing::error!(%error, "a worker could not be woken"),
        }
    }
}

fn cost_of(change: &Change) -> usize {
    change.record.cost_bytes() + mem::size_of::<Change>()
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;
    use std::sync::Arc;

    use super::*;
    use crate::record::{Birth, NodeName, Payload, Record, Source, Stamp};

    fn mailbox() -> (mio::Poll, Mailbox) {
        let poll = mio::Poll::new().expect("poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("waker");
        (poll, Mailbox::new(waker))
    }

    fn change(data_bytes: usize) -> Change {
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: 1 };
        let data = vec![b'1'; data_bytes];
        let stamp = Stamp::of_data(1, &data);
        let source = Source::parse("a").expect("source");
        let record = Record::new(source, stamp, Payload::Json(data.into()), birth, 0, 0);
        Change { record: Arc::new(record), is_expiry: false, shard: 0, version: 1 }
    }

    fn taken(mailbox: &Mailbox) -> usize {
        let mut taken = VecDeque::new();
        while mailbox.take(&mut taken) {}
        taken.len()
    }

    #[test]
    fn nothing_is_kept_for_a_worker_without_subscriptions() {
        let (_poll, mailbox) = mailbox();
        deliver(from_ref(&mailbox), change(1));
        assert_eq!((taken(&mailbox), mailbox.position()), (0, 0));
        mailbox.set_wanted(true);
        deliver(from_ref(&mailbox), change(1));
        assert_eq!(mailbox.position(), 1);
        assert!(!mailbox.fall_asleep(), "something waits");
        assert_eq!(taken(&mailbox), 1);
        assert!(mailbox.fall_asleep());
    }

    /// Unbounded queues under load: hashicorp/consul#9927, prometheus/alertmanager#1409.
    #[test]
    fn a_mailbox_that_nobody_drains_stays_within_its_bound_and_says_so() {
        let (_poll, mailbox) = mailbox();
        mailbox.set_wanted(true);
        let big = change(1024 * 1024);
        for _ in 0..100 {
            mailbox.push(big.clone());
        }
        assert!(mailbox.is_over_soft());
        let kept = taken(&mailbox);
        assert!((16..=MAILBOX_BYTES_HARD / (1024 * 1024)).contains(&kept), "{kept}");
        assert!(mailbox.take_overflow() && !mailbox.take_overflow());
        mailbox.push(big);
        assert_eq!(taken(&mailbox), 1);
        assert_eq!(mailbox.bytes.load(Relaxed), 0);
    }
}
