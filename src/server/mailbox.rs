//! How changes reach the worker whose subscribers want them.
//!
//! Whoever merges a record pushes the change into the mailbox of every worker that has a
//! subscription, under the lock of the record's shard, so a mailbox holds a source's changes in the
//! order of their stamps. The push is memory only; the sleeping worker is woken once, at the end of
//! the pusher's turn ([`Mailbox::wake_if_wanted`]), however many changes were pushed.
//!
//! The queue is bounded in bytes. While it holds more than [`MAILBOX_BYTES_SOFT`], this node's publishers are
//! not read. Records of peers still come, since peers cannot be paused: beyond [`MAILBOX_BYTES_HARD`] changes
//! are dropped and counted, and the mailbox is marked as overflowed. Its worker ([`super::inbox`]) then reads
//! from the map which sources changed since what it handed out last. Rejected: a bounded channel, since a
//! push under a shard's lock must neither block nor fail half-way; an unbounded one, which costs seven locked
//! instructions for each change.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize, fence};
use std::{io, mem};

use parking_lot::Mutex;

use crate::ingest::Change;
use crate::limits::{MAILBOX_BYTES_HARD, MAILBOX_BYTES_SOFT};

/// Number of changes for which an empty mailbox keeps memory.
const KEPT_MAX: usize = 4096;
/// Number of changes that are taken out at a time.
const TAKEN_MAX: usize = 256;

/// One worker's mailbox. Every thread may push; the worker alone takes.
#[derive(Debug)]
pub struct Mailbox {
    queue: Mutex<MailQueue>,
    /// Copy of the queue's bytes, to be read without its lock.
    bytes: AtomicUsize,
    /// Bytes beyond which changes are dropped.
    bytes_max: usize,
    /// Whether the worker has any subscription.
    is_wanted: AtomicBool,
    waker: mio::Waker,
    /// Whether the worker blocks, or is about to: it must be woken through `waker`.
    is_asleep: AtomicBool,
    /// Whether the worker is to take another turn.
    is_nudged: AtomicBool,
    /// Whether something was pushed for which the worker has not been woken yet.
    is_wake_wanted: AtomicBool,
}

/// The changes that wait, behind one lock, which a push holds for a few memory writes.
#[derive(Debug, Default)]
struct MailQueue {
    changes: VecDeque<Change>,
    /// Memory of these changes and of those that were taken last, in bytes: the worker holds them until
    /// it comes for the next ones.
    bytes: usize,
    /// Memory of the changes that were taken last, in bytes.
    taken_bytes: usize,
    /// Number of changes that were put into the queue so far.
    pushed: u64,
    /// Number of changes that were dropped so far.
    dropped: u64,
    /// Whether changes are being dropped, until the worker has noticed.
    is_overflowed: bool,
}

/// Leaves a change with every worker that has a subscription. To be called under the lock of the change's
/// shard, so that changes of a source stay in their order.
pub fn deliver(mailboxes: &[Mailbox], change: Change) {
    let mut wanted = mailboxes.iter().filter(|mailbox| mailbox.is_wanted.load(SeqCst));
    let Some(mut mailbox) = wanted.next() else { return };
    for next in wanted {
        mailbox.push(change.clone());
        mailbox = next;
    }
    // Usually there is one such worker, and it is given the change itself rather than a clone.
    mailbox.push(change);
}

impl Mailbox {
    /// An empty mailbox of the worker whose poll `waker` wakes.
    pub fn new(waker: mio::Waker) -> Mailbox {
        Mailbox::bounded(waker, MAILBOX_BYTES_HARD)
    }

    /// An empty mailbox that drops changes beyond `bytes_max` bytes.
    pub(super) fn bounded(waker: mio::Waker, bytes_max: usize) -> Mailbox {
        Mailbox {
            queue: Mutex::default(),
            bytes: AtomicUsize::new(0),
            bytes_max,
            is_wanted: AtomicBool::new(false),
            waker,
            is_asleep: AtomicBool::new(false),
            is_nudged: AtomicBool::new(false),
            is_wake_wanted: AtomicBool::new(false),
        }
    }

    /// Sets whether the worker has any subscription; without one nothing is pushed. To be called before the
    /// snapshot of a first subscription starts, so that its scan finds the changes that were not pushed.
    pub fn set_wanted(&self, is_wanted: bool) {
        self.is_wanted.store(is_wanted, SeqCst);
    }

    fn push(&self, change: Change) {
        let cost_bytes = cost_of(&change);
        let mut queue = self.queue.lock();
        // Once a change is dropped, all later ones are, until the worker has emptied the mailbox and noticed.
        queue.is_overflowed |= queue.bytes + cost_bytes > self.bytes_max;
        if queue.is_overflowed {
            queue.dropped += 1;
        } else {
            queue.pushed += 1;
            queue.bytes += cost_bytes;
            self.bytes.store(queue.bytes, Relaxed);
            queue.changes.push_back(change);
        }
        drop(queue);
        // Read first: nearly always it is set, and a write would take the cache line from other cores.
        if !self.is_wake_wanted.load(SeqCst) {
            self.is_wake_wanted.store(true, SeqCst);
        }
    }

    /// Number of changes that were pushed so far, those that were dropped included. It never falls; a
    /// session compares it with how many were handed out.
    pub fn position(&self) -> u64 {
        let queue = self.queue.lock();
        queue.pushed + queue.dropped
    }

    /// Number of changes that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }

    /// Moves the oldest changes that wait to the end of `taken`. Those that were taken before must be done
    /// with. Returns `false` if nothing waits. For the worker alone.
    pub fn take(&self, taken: &mut VecDeque<Change>) -> bool {
        let mut queue = self.queue.lock();
        let count = queue.changes.len().min(TAKEN_MAX);
        queue.bytes -= mem::take(&mut queue.taken_bytes);
        self.bytes.store(queue.bytes, Relaxed);
        queue.taken_bytes = queue.changes.range(..count).map(cost_of).sum();
        taken.extend(queue.changes.drain(..count));
        debug_assert!(queue.taken_bytes <= queue.bytes, "changes weigh more than was counted");
        debug_assert!(
            !queue.changes.is_empty() || queue.taken_bytes == queue.bytes,
            "an empty queue holds what was taken, and nothing else"
        );
        if queue.changes.is_empty() && queue.changes.capacity() > KEPT_MAX {
            queue.changes = VecDeque::new();
        }
        count > 0
    }

    /// Returns whether nothing waits, and no overflow is still to be noticed.
    pub fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.changes.is_empty() && !queue.is_overflowed
    }

    /// Returns whether this node's publishers must wait for the worker.
    pub fn is_over_soft(&self) -> bool {
        self.bytes() > MAILBOX_BYTES_SOFT
    }

    /// Memory of the changes that wait, and of those that were taken last, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Returns whether changes were dropped since the last call; from now on they are taken again. For the
    /// worker alone, once nothing waits.
    pub fn take_overflow(&self) -> bool {
        mem::take(&mut self.queue.lock().is_overflowed)
    }

    /// Returns whether nothing waits, and nobody has asked for another turn since the last one began.
    pub fn is_quiet(&self) -> bool {
        !self.is_nudged.load(SeqCst) && self.is_empty()
    }

    /// Notes that the worker is about to block. Returns `false` if it must not, since something waits.
    pub fn fall_asleep(&self) -> bool {
        self.is_asleep.store(true, SeqCst);
        fence(SeqCst);
        if self.is_quiet() {
            return true;
        }
        self.is_asleep.store(false, SeqCst);
        false
    }

    /// Notes that the worker is awake, and will look at everything in the turn that begins.
    pub fn wake_up(&self) {
        self.is_asleep.store(false, SeqCst);
        self.is_nudged.store(false, SeqCst);
    }

    /// Wakes the worker, if it sleeps and something was pushed since the last call.
    pub fn wake_if_wanted(&self) {
        if self.is_wake_wanted.load(SeqCst) && self.is_wake_wanted.swap(false, SeqCst) {
            self.wake();
        }
    }

    /// Makes the worker take another turn: wakes it, if it sleeps.
    pub fn wake(&self) {
        self.is_nudged.store(true, SeqCst);
        fence(SeqCst);
        if !self.is_asleep.swap(false, SeqCst) {
            return;
        }
        match self.waker.wake() {
            Ok(()) => {}
            // The pipe is full, so wakes wait in it already: one of them is enough.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => tracing::error!(%error, "a worker could not be woken"),
        }
    }
}

/// Memory that a waiting change holds, in bytes.
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
