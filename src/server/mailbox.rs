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
//! what it handed out last. Rejected: a bounded channel, since
//! a push under a shard's lock must neither block nor fail half-way.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender};

use crate::ingest::Change;
use crate::limits::{MAILBOX_BYTES_HARD, MAILBOX_BYTES_SOFT};

/// One worker's mailbox. Everyone pushes; the worker alone drains.
#[derive(Debug)]
pub struct Mailbox {
    sender: Sender<Change>,
    receiver: Receiver<Change>,
    bytes: AtomicUsize,
    pushed: AtomicU64,
    dropped: AtomicU64,
    bytes_max: usize,
    is_overflowed: AtomicBool,
    is_wanted: AtomicBool,
    waker: mio::Waker,
    is_asleep: AtomicBool,
    is_nudged: AtomicBool,
    is_wake_wanted: AtomicBool,
}

impl Mailbox {
    /// An empty mailbox of the worker that `waker` wakes.
    pub fn new(waker: mio::Waker) -> Mailbox {
        Mailbox::bounded(waker, MAILBOX_BYTES_HARD)
    }

    /// The same with another bound.
    pub(super) fn bounded(waker: mio::Waker, bytes_max: usize) -> Mailbox {
        let (sender, receiver) = crossbeam_channel::unbounded();
        Mailbox {
            sender,
            receiver,
            bytes: AtomicUsize::new(0),
            pushed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            bytes_max,
            is_overflowed: AtomicBool::new(false),
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

    /// Leaves a change. Called under the lock of its shard.
    pub fn push(&self, change: &Change) {
        if !self.is_wanted.load(SeqCst) {
            return;
        }
        // Once one is dropped all are, until the worker has emptied the mailbox and noticed.
        let cost = change.record.cost_bytes() + mem::size_of::<Change>();
        if self.is_overflowed.load(SeqCst) {
            self.dropped.fetch_add(1, SeqCst);
        } else if self.bytes.fetch_add(cost, Relaxed) + cost > self.bytes_max {
            self.bytes.fetch_sub(cost, Relaxed);
            self.dropped.fetch_add(1, SeqCst);
            self.is_overflowed.store(true, SeqCst);
        } else {
            // Counted before it is sent: whoever reads the count then knows that what is drained up
            // to it holds every change that was finished before the reading.
            self.pushed.fetch_add(1, SeqCst);
            // The receiver lives as long as the sender: this cannot fail.
            let _ = self.sender.send(change.clone());
        }
        self.is_wake_wanted.store(true, SeqCst);
    }

    /// How many changes were pushed so far, those that were dropped included. Compared with how many
    /// were handed out.
    pub fn position(&self) -> u64 {
        self.pushed.load(SeqCst) + self.dropped()
    }

    /// How many of them were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(SeqCst)
    }

    /// The oldest change that waits. For the worker alone.
    pub fn pop(&self) -> Option<Change> {
        let change = self.receiver.try_recv().ok()?;
        self.bytes.fetch_sub(change.record.cost_bytes() + mem::size_of::<Change>(), Relaxed);
        Some(change)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty() && !self.is_overflowed.load(SeqCst)
    }

    /// Whether this node's publishers must wait for the worker.
    pub fn is_over_soft(&self) -> bool {
        self.bytes.load(Relaxed) > MAILBOX_BYTES_SOFT
    }

    /// Whether changes were dropped since the last time; from now on they are taken again. For the
    /// worker, once nothing waits.
    pub fn take_overflow(&self) -> bool {
        self.is_overflowed.load(SeqCst) && self.is_overflowed.swap(false, SeqCst)
    }

    /// The worker is about to block. `false`: it must not, something waits.
    pub fn fall_asleep(&self) -> bool {
        self.is_asleep.store(true, SeqCst);
        fence(SeqCst);
        if self.is_empty() && !self.is_nudged.load(SeqCst) {
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

#[cfg(test)]
mod tests {
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

    #[test]
    fn nothing_is_kept_for_a_worker_without_subscriptions() {
        let (_poll, mailbox) = mailbox();
        mailbox.push(&change(1));
        assert!(mailbox.pop().is_none() && mailbox.position() == 0);
        mailbox.set_wanted(true);
        mailbox.push(&change(1));
        assert_eq!(mailbox.position(), 1);
        assert!(!mailbox.fall_asleep(), "something waits");
        assert!(mailbox.pop().is_some());
        assert!(mailbox.fall_asleep());
    }

    /// Unbounded queues under load: hashicorp/consul#9927, prometheus/alertmanager#1409.
    #[test]
    fn a_mailbox_that_nobody_drains_stays_within_its_bound_and_says_so() {
        let (_poll, mailbox) = mailbox();
        mailbox.set_wanted(true);
        let big = change(1024 * 1024);
        for _ in 0..100 {
            mailbox.push(&big);
        }
        assert!(mailbox.is_over_soft());
        let kept = std::iter::from_fn(|| mailbox.pop()).count();
        assert!((16..=MAILBOX_BYTES_HARD / (1024 * 1024)).contains(&kept), "{kept}");
        assert!(mailbox.take_overflow() && !mailbox.take_overflow());
        mailbox.push(&big);
        assert_eq!(mailbox.pop().map(|change| change.version), Some(1));
        assert_eq!(mailbox.bytes.load(Relaxed), 0);
    }
}
