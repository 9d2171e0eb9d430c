//! What the handles of a store and its writer share: the queue, how far it is durable, how it fares.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::engine::Marks;
use super::queue::Queue;
use super::{Clock, Health, Latest, Ticket};
use crate::cluster::Heads;

/// How far ahead of the stamps issued the clock's mark is kept, in microseconds. More: a life that
/// follows a kill stamps further ahead of a clock that was set back; less: more writes.
pub(super) const CLOCK_LEASE_US: u64 = 2_000_000;
/// How old the kept time of the last agreement may become, in microseconds: an idle node must not
/// sync every second.
const AGREED_US_MAX: u64 = 60_000_000;

/// What the handles and the writer share.
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) clock: Clock,
    rung: AtomicBool,
    control: Mutex<Control>,
    woken: Condvar,
    durable: AtomicU64,
    /// Held while `durable` or `stopped` moves, so that no waiter misses it.
    moved_lock: Mutex<bool>,
    moved: Condvar,
    trouble: Mutex<Option<String>>,
    subscribers: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
    latest: Mutex<Option<Arc<dyn Latest>>>,
    resyncing: AtomicBool,
    /// Greatest stamp issued in this life.
    issued_us: AtomicU64,
    agreed_us: AtomicU64,
    /// The marks as they are in the store.
    kept_clock_us: AtomicU64,
    kept_agreed_us: AtomicU64,
    /// To be kept at an orderly end.
    heads: Mutex<Heads>,
    commits: AtomicU64,
    commit_us: AtomicU64,
    /// Rung beside `woken`, for a writer that does not wait for it.
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Why what is pushed is not durable for now, although it is taken.
    away: Mutex<Option<String>>,
    /// Records that wait on the disk.
    spilled: AtomicUsize,
}

#[derive(Default)]
struct Control {
    /// Write what waits, then end.
    stop: bool,
    /// End, whatever waits.
    abandon: bool,
}

impl Shared {
    /// `kept`: the marks as the store has them after opening.
    pub(super) fn new(clock: Clock, queue_bytes_max: usize, kept: Marks) -> Shared {
        Shared {
            queue: Queue::new(queue_bytes_max),
            clock,
            rung: AtomicBool::new(false),
            control: Mutex::default(),
            woken: Condvar::new(),
            durable: AtomicU64::new(0),
            moved_lock: Mutex::default(),
            moved: Condvar::new(),
            trouble: Mutex::default(),
            subscribers: Mutex::default(),
            latest: Mutex::default(),
            resyncing: AtomicBool::new(false),
            issued_us: AtomicU64::new(0),
            agreed_us: AtomicU64::new(kept.agreed_us),
            kept_clock_us: AtomicU64::new(kept.clock_high_water_us),
            kept_agreed_us: AtomicU64::new(kept.agreed_us),
            heads: Mutex::default(),
            commits: AtomicU64::new(0),
            commit_us: AtomicU64::new(0),
            bell: OnceLock::new(),
            away: Mutex::default(),
            spilled: AtomicUsize::new(0),
        }
    }

    pub(super) fn set_bell(&self, bell: Box<dyn Fn() + Send + Sync>) {
        // The writer sets it once, before anyone rings.
        let _ = self.bell.set(bell);
    }

    /// What a writer of another kind does with the rest of this state.
    pub(super) fn is_ending(&self) -> (bool, bool) {
        let control = self.control.lock();
        self.rung.swap(false, Ordering::AcqRel);
        (control.stop, control.abandon)
    }

    /// Told to write what waits and end.
    pub(super) fn is_stopping(&self) -> bool {
        self.control.lock().stop
    }

    pub(super) fn set_away(&self, reason: Option<String>) {
        let mut away = self.away.lock();
        if *away != reason {
            *away = reason;
            drop(away);
            self.notify();
        }
    }

    /// Why nothing becomes durable for now, if so.
    pub(super) fn away(&self) -> Option<String> {
        self.away.lock().clone()
    }

    pub(super) fn set_spilled(&self, records: usize) {
        self.spilled.store(records, Ordering::Relaxed);
    }

    /// Records that wait on the disk.
    pub(super) fn spilled(&self) -> usize {
        self.spilled.load(Ordering::Relaxed)
    }

    /// A commit took so long.
    pub(super) fn set_commit_us(&self, us: u64) {
        self.commit_us.store(us, Ordering::Relaxed);
    }

    pub(super) fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn latest(&self) -> Option<Arc<dyn Latest>> {
        self.latest.lock().clone()
    }

    pub(super) fn set_resyncing(&self, is_resyncing: bool) {
        if self.resyncing.swap(is_resyncing, Ordering::AcqRel) != is_resyncing {
            self.notify();
        }
    }

    pub(super) fn marks_are_due(&self) -> bool {
        self.clock_is_due() || self.agreed_is_due()
    }

    pub(super) fn keep_marks(&self, marks: Marks) {
        self.kept_clock_us.store(marks.clock_high_water_us, Ordering::Relaxed);
        self.kept_agreed_us.store(marks.agreed_us, Ordering::Relaxed);
    }

    pub(super) fn issued_us(&self) -> u64 {
        self.issued_us.load(Ordering::Relaxed)
    }

    pub(super) fn take_heads(&self) -> Heads {
        std::mem::take(&mut *self.heads.lock())
    }

    /// Everything up to `written` is durable, short of the first ticket that was `lost`.
    pub(super) fn move_durable(&self, written: Ticket, lost: Option<Ticket>) {
        let durable = lost.map_or(written, |lost| written.min(Ticket(lost.0.saturating_sub(1))));
        {
            let _lock = self.moved_lock.lock();
            if self.durable.fetch_max(durable.0, Ordering::AcqRel) >= durable.0 {
                return;
            }
        }
        self.moved.notify_all();
        self.notify();
    }

    /// Wakes the writer.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            drop(self.control.lock());
            self.wake();
        }
    }

    /// Wakes the writer after a push, at the cost of a read while the bell still rings: the lane's
    /// lock orders the push before the writer's look into the lane, or after its silencing the bell.
    pub(super) fn ring_for_push(&self) {
        if !self.rung.load(Ordering::Relaxed) {
            self.ring();
        }
    }

    pub(super) fn stop(&self, abandon: bool) {
        let mut control = self.control.lock();
        control.stop = true;
        control.abandon |= abandon;
        drop(control);
        self.wake();
    }

    fn wake(&self) {
        self.woken.notify_all();
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }

    pub(super) fn durable(&self) -> Ticket {
        Ticket(self.durable.load(Ordering::Acquire))
    }

    /// Waits until `ticket` is durable; `false` if it is not in time.
    pub(super) fn wait_durable(&self, ticket: Ticket, timeout: Duration) -> bool {
        let mut stopped = self.moved_lock.lock();
        let waiting = |stopped: &mut bool| !*stopped && self.durable() < ticket;
        self.moved.wait_while_for(&mut stopped, waiting, timeout);
        self.durable() >= ticket
    }

    /// Waits until the writer has ended.
    pub(super) fn wait_stopped(&self, timeout: Duration) -> bool {
        let mut stopped = self.moved_lock.lock();
        self.moved.wait_while_for(&mut stopped, |stopped| !*stopped, timeout);
        *stopped
    }

    pub(super) fn health(&self) -> Health {
        if let Some(reason) = &*self.trouble.lock() {
            return Health::Failing { reason: reason.clone() };
        }
        if self.needs_resync() {
            return Health::Failing { reason: "catching up with what was dropped while it failed".into() };
        }
        if self.queue.is_full() {
            return Health::Failing { reason: "the queue is full: writing is too slow".into() };
        }
        Health::Open
    }

    pub(super) fn needs_resync(&self) -> bool {
        self.resyncing.load(Ordering::Acquire) || self.queue.lost_from().is_some()
    }

    pub(super) fn subscribe(&self, subscriber: Box<dyn Fn() + Send + Sync>) {
        self.subscribers.lock().push(subscriber);
    }

    pub(super) fn attach(&self, latest: Arc<dyn Latest>) {
        *self.latest.lock() = Some(latest);
        self.ring();
    }

    pub(super) fn set_clock_high_water(&self, us: u64) {
        self.issued_us.fetch_max(us, Ordering::Relaxed);
        if self.clock_is_due() {
            self.ring();
        }
    }

    pub(super) fn set_agreed(&self, us: u64) {
        self.agreed_us.fetch_max(us, Ordering::Relaxed);
        if self.agreed_is_due() {
            self.ring();
        }
    }

    pub(super) fn keep_heads(&self, heads: Heads) {
        *self.heads.lock() = heads;
    }

    pub(super) fn agreed_us(&self) -> u64 {
        self.agreed_us.load(Ordering::Relaxed)
    }

    /// Commits so far, and how long the last one took, in microseconds.
    pub(super) fn commits(&self) -> (u64, u64) {
        (self.commits.load(Ordering::Relaxed), self.commit_us.load(Ordering::Relaxed))
    }

    fn clock_is_due(&self) -> bool {
        let issued = self.issued_us.load(Ordering::Relaxed);
        issued > 0 && issued.saturating_add(CLOCK_LEASE_US / 2) > self.kept_clock_us.load(Ordering::Relaxed)
    }

    fn agreed_is_due(&self) -> bool {
        let kept = self.kept_agreed_us.load(Ordering::Relaxed);
        self.agreed_us.load(Ordering::Relaxed)
            > kept.saturating_add(if kept == 0 { 0 } else { AGREED_US_MAX })
    }

    pub(super) fn marks(&self) -> Marks {
        let issued = self.issued_us.load(Ordering::Relaxed);
        let lease = if issued > 0 { issued.saturating_add(CLOCK_LEASE_US) } else { 0 };
        Marks {
            clock_high_water_us: lease.max(self.kept_clock_us.load(Ordering::Relaxed)),
            agreed_us: self.agreed_us.load(Ordering::Relaxed),
        }
    }

    pub(super) fn notify(&self) {
        for subscriber in &*self.subscribers.lock() {
            subscriber();
        }
    }

    pub(super) fn set_trouble(&self, reason: Option<String>) {
        let mut trouble = self.trouble.lock();
        if *trouble == reason {
            return;
        }
        *trouble = reason;
        drop(trouble);
        self.notify();
    }

    /// Sleeps until rung or told to stop, or for so long; `true`: to stop.
    pub(super) fn wait_for_work(&self, timeout: Option<Duration>) -> bool {
        let mut control = self.control.lock();
        let is_idle = |control: &mut Control| !control.stop && !self.rung.load(Ordering::Acquire);
        match timeout {
            Some(timeout) => drop(self.woken.wait_while_for(&mut control, is_idle, timeout)),
            None => self.woken.wait_while(&mut control, is_idle),
        }
        // Takes over what was stored before the ring.
        self.rung.swap(false, Ordering::AcqRel);
        control.stop
    }

    /// Told to give up what waits.
    pub(super) fn is_abandoned(&self) -> bool {
        self.control.lock().abandon
    }

    /// Leaves the next group to gather; ends at once if told to stop.
    pub(super) fn rest(&self, time: Duration) {
        let mut control = self.control.lock();
        self.woken.wait_while_for(&mut control, |control| !control.stop, time);
    }

    /// Pauses; ends at once if what waits is given up.
    pub(super) fn pause(&self, time: Duration) {
        let mut control = self.control.lock();
        self.woken.wait_while_for(&mut control, |control| !control.abandon, time);
    }

    pub(super) fn committed(&self, marks: Marks) {
        self.count_commit();
        self.keep_marks(marks);
        self.set_trouble(None);
    }
}

/// Says that the writer ended, however it ended.
pub(super) struct End(pub(super) Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() { "the store's writer died" } else { "the store is closed" };
        self.0.set_trouble(Some(reason.into()));
        *self.0.moved_lock.lock() = true;
        self.0.moved.notify_all();
    }
}
