//! The one thread that writes: takes what waits, writes it as one group, says how far it is durable.
//!
//! Group commit needs no tuning: while a group is synced the next one gathers, so a lone record is
//! written at once and a flood is written in large groups. After a group of some size the writer
//! rests as long as the commit took, at most [`REST_US_MAX`]: groups double, and a core is left to
//! the event loops.
//!
//! An error changes nothing but time: the same group is tried again, with growing pauses, until it
//! is written; meanwhile the queue merges. If it had to drop something, the writer reads the map
//! again ([`Latest`]) once the store works, and only then lets the tickets since become durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::engine::{Engine, Marks};
use super::log::Group;
use super::queue::Queue;
use super::{Clock, Health, Latest, Ticket};
use crate::cluster::Heads;
use crate::limits::SHARDS;

/// How far ahead of the stamps issued the clock's mark is kept, in microseconds. More: a life that
/// follows a kill stamps further ahead of a clock that was set back; less: more writes.
pub(super) const CLOCK_LEASE_US: u64 = 2_000_000;
/// How old the kept time of the last agreement may become, in microseconds: an idle node must not
/// sync every second.
const AGREED_US_MAX: u64 = 60_000_000;
/// Pauses between tries, in milliseconds: the first, and the longest.
const BACKOFF_MS_MIN: u64 = 100;
const BACKOFF_MS_MAX: u64 = 5_000;
/// Longest rest after a group.
const REST_US_MAX: u64 = 10_000;
/// Groups of fewer records are not rested after.
const REST_RECORDS_MIN: usize = 64;
/// Records written at a time when the map is read again.
const RESYNC_RECORDS: usize = 16_384;

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
        }
    }

    /// Wakes the writer.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            drop(self.control.lock());
            self.woken.notify_all();
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
        self.woken.notify_all();
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

    fn marks(&self) -> Marks {
        let issued = self.issued_us.load(Ordering::Relaxed);
        let lease = if issued > 0 { issued.saturating_add(CLOCK_LEASE_US) } else { 0 };
        Marks {
            clock_high_water_us: lease.max(self.kept_clock_us.load(Ordering::Relaxed)),
            agreed_us: self.agreed_us.load(Ordering::Relaxed),
        }
    }

    fn notify(&self) {
        for subscriber in &*self.subscribers.lock() {
            subscriber();
        }
    }

    fn set_trouble(&self, reason: Option<String>) {
        let mut trouble = self.trouble.lock();
        if *trouble == reason {
            return;
        }
        *trouble = reason;
        drop(trouble);
        self.notify();
    }

    /// Sleeps until rung or told to stop; `true`: to stop.
    fn wait_for_work(&self) -> bool {
        let mut control = self.control.lock();
        self.woken.wait_while(&mut control, |control| !control.stop && !self.rung.load(Ordering::Acquire));
        // Takes over what was stored before the ring.
        self.rung.swap(false, Ordering::AcqRel);
        control.stop
    }

    /// Pauses; ends at once if what waits is given up.
    fn pause(&self, time: Duration) {
        let mut control = self.control.lock();
        self.woken.wait_while_for(&mut control, |control| !control.abandon, time);
    }

    fn committed(&self, marks: Marks) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.kept_clock_us.store(marks.clock_high_water_us, Ordering::Relaxed);
        self.kept_agreed_us.store(marks.agreed_us, Ordering::Relaxed);
        self.set_trouble(None);
    }
}

/// What an error leaves to do.
enum Written {
    Yes,
    /// Told to end although the store fails.
    Abandoned,
}

/// The writer's own state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
    /// The last group written.
    written: Ticket,
    /// While the map is read again: the first ticket that was lost.
    resync_from: Option<Ticket>,
    /// The clock's mark when the store was opened, before the lease on it.
    clock_floor_us: u64,
    /// Whether the last turn ended in good health.
    was_open: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, engine: Arc<dyn Engine>, clock_floor_us: u64) -> Writer {
        Writer { shared, engine, written: Ticket(0), resync_from: None, clock_floor_us, was_open: true }
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        let end = End(self.shared.clone());
        loop {
            let stop = self.shared.wait_for_work();
            let Written::Yes = self.turn() else { break };
            if self.shared.queue.lost_from().is_some() {
                let Written::Yes = self.resync() else { break };
            }
            self.announce_health();
            if stop && self.shared.queue.is_empty() {
                self.write_exact_marks();
                self.write_heads();
                break;
            }
        }
        self.engine.close();
        drop(end);
    }

    /// Tells of a queue that became full, or is no more; errors tell of themselves.
    fn announce_health(&mut self) {
        let open = self.shared.health() == Health::Open;
        if std::mem::replace(&mut self.was_open, open) != open {
            self.shared.notify();
        }
    }

    /// Writes what waits.
    fn turn(&mut self) -> Written {
        let (ticket, group) = self.shared.queue.take();
        let mut rest_us = 0;
        if !group.is_empty() || self.shared.clock_is_due() || self.shared.agreed_is_due() {
            let began_us = (self.shared.clock)().mono_us;
            let Written::Yes = self.write(&group) else { return Written::Abandoned };
            rest_us = (self.shared.clock)().mono_us.saturating_sub(began_us);
            self.shared.commit_us.store(rest_us, Ordering::Relaxed);
        }
        self.shared.queue.written();
        self.written = ticket;
        self.move_durable();
        if group.records() >= REST_RECORDS_MIN && rest_us > 0 {
            self.rest(rest_us.min(REST_US_MAX));
        }
        Written::Yes
    }

    fn rest(&self, us: u64) {
        let mut control = self.shared.control.lock();
        self.shared.woken.wait_while_for(&mut control, |control| !control.stop, Duration::from_micros(us));
    }

    /// Writes a group, however long it takes.
    fn write(&self, group: &Group) -> Written {
        let mut pause_ms = BACKOFF_MS_MIN;
        let mut failed = false;
        while !self.shared.control.lock().abandon {
            let marks = self.shared.marks();
            let recovered = if failed { self.engine.recover() } else { Ok(()) };
            let Err(error) = recovered.and_then(|()| self.engine.commit(group, marks)) else {
                self.shared.committed(marks);
                return Written::Yes;
            };
            failed = true;
            tracing::error!(%error, records = group.records(), pause_ms, "the store failed to commit");
            self.shared.set_trouble(Some(error.to_string()));
            self.shared.pause(Duration::from_millis(pause_ms));
            pause_ms = (pause_ms * 2).min(BACKOFF_MS_MAX);
        }
        Written::Abandoned
    }

    fn move_durable(&self) {
        let lost = [self.resync_from, self.shared.queue.lost_from()].into_iter().flatten().min();
        let durable = lost.map_or(self.written, |lost| self.written.min(Ticket(lost.0.saturating_sub(1))));
        {
            let _lock = self.shared.moved_lock.lock();
            if self.shared.durable.fetch_max(durable.0, Ordering::AcqRel) >= durable.0 {
                return;
            }
        }
        self.shared.moved.notify_all();
        self.shared.notify();
    }

    /// Makes the store whole again after the queue had to drop: writes the map, then removes what
    /// the map does not hold. Pushes go on and are written in between. A drop before a shard is
    /// visited is made good by the visit, since a record is in the map before it is pushed; one
    /// after it is counted anew and makes the next turn start over.
    fn resync(&mut self) -> Written {
        let Some(latest) = self.shared.latest.lock().clone() else { return Written::Yes };
        self.shared.resyncing.store(true, Ordering::Release);
        self.resync_from = self.shared.queue.take_lost();
        let mut chunk = Vec::new();
        for shard in 0..SHARDS {
            latest.visit(shard, &mut |record| chunk.push(record.clone()));
            if chunk.len() < RESYNC_RECORDS && shard + 1 < SHARDS {
                continue;
            }
            for part in chunk.chunks(RESYNC_RECORDS) {
                let Written::Yes = self.write(&Group::of_records(part)) else { return Written::Abandoned };
                let Written::Yes = self.turn() else { return Written::Abandoned };
            }
            chunk.clear();
        }
        let Written::Yes = self.remove_unknown(&*latest) else { return Written::Abandoned };
        self.resync_from = None;
        self.shared.resyncing.store(false, Ordering::Release);
        self.move_durable();
        self.shared.notify();
        self.shared.ring();
        Written::Yes
    }

    /// Removes sources that the map does not hold. A source that enters the map after the look is
    /// pushed after it, and so written after the removal.
    fn remove_unknown(&mut self, latest: &dyn Latest) -> Written {
        let mut after: Option<String> = None;
        loop {
            let (mut removals, mut last) = (Vec::new(), None);
            let read = self.engine.sources(after.as_deref(), RESYNC_RECORDS, &mut |name, stamp| {
                last = Some(name.to_owned());
                if !latest.holds(name)
                    && let Ok(source) = crate::record::Source::parse(name)
                {
                    removals.push((source, stamp));
                }
            });
            if let Err(error) = read {
                tracing::error!(%error, "the store cannot be read");
                // Writing nothing waits until it works again.
                let Written::Yes = self.write(&Group::default()) else { return Written::Abandoned };
                continue;
            }
            if !removals.is_empty() {
                let Written::Yes = self.write(&Group::of_removals(removals)) else {
                    return Written::Abandoned;
                };
            }
            let Written::Yes = self.turn() else { return Written::Abandoned };
            match last {
                Some(last) => after = Some(last),
                None => return Written::Yes,
            }
        }
    }

    /// At an orderly end the clock's mark is what was issued, without the lease.
    fn write_exact_marks(&self) {
        let clock_high_water_us = self.shared.issued_us.load(Ordering::Relaxed).max(self.clock_floor_us);
        let marks = Marks { clock_high_water_us, agreed_us: self.shared.agreed_us.load(Ordering::Relaxed) };
        if let Err(error) = self.engine.commit(&Group::default(), marks) {
            tracing::warn!(%error, "the last marks were not kept; the lease on the clock stands");
        }
    }
}

impl Writer {
    /// At an orderly end everything that was pushed is written, unless some of it was dropped.
    fn write_heads(&self) {
        let heads = std::mem::take(&mut *self.shared.heads.lock());
        if heads.is_empty() || self.shared.needs_resync() {
            return;
        }
        if let Err(error) = self.engine.keep_heads(&heads) {
            tracing::warn!(%error, "resume tokens of this life will prove nothing after it");
        }
    }
}

/// Says that the writer ended, however it ended.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() { "the store's writer died" } else { "the store is closed" };
        self.0.set_trouble(Some(reason.into()));
        *self.0.moved_lock.lock() = true;
        self.0.moved.notify_all();
    }
}
