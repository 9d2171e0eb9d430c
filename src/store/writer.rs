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
use std::time::Duration;

use super::engine::{Engine, Marks};
use super::log::Group;
use super::shared::{End, Shared};
use super::{Health, Latest, Ticket};
use crate::limits::SHARDS;

/// Pauses between tries, in milliseconds: the first, and the longest.
const BACKOFF_MS_MIN: u64 = 100;
const BACKOFF_MS_MAX: u64 = 5_000;
/// Longest rest after a group: what a commit costs whatever it writes, and a little more. A longer one
/// only makes a group wait for records that cost as much in the next.
const REST_US_MAX: u64 = 2_000;
/// Groups of fewer records are not rested after.
const REST_RECORDS_MIN: usize = 64;
/// After so long without work the engine does what it put off.
const IDLE_US: u64 = 20_000;
/// Records written at a time when the map is read again.
const RESYNC_RECORDS: usize = 16_384;

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
            let put_off = self.engine.owes().then_some(Duration::from_micros(IDLE_US));
            let stop = self.shared.wait_for_work(put_off);
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
        if !group.is_empty() || self.shared.marks_are_due() || self.engine.owes() {
            let began_us = (self.shared.clock)().mono_us;
            let Written::Yes = self.write(&group) else { return Written::Abandoned };
            rest_us = (self.shared.clock)().mono_us.saturating_sub(began_us);
            self.shared.set_commit_us(rest_us);
        }
        self.shared.queue.written();
        self.written = ticket;
        self.move_durable();
        if group.records() >= REST_RECORDS_MIN && rest_us > 0 {
            self.shared.rest(Duration::from_micros(rest_us.min(REST_US_MAX)));
        }
        Written::Yes
    }

    /// Writes a group, however long it takes.
    fn write(&self, group: &Group) -> Written {
        let mut pause_ms = BACKOFF_MS_MIN;
        let mut failed = false;
        while !self.shared.is_abandoned() {
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
        self.shared.move_durable(self.written, lost);
    }

    /// Makes the store whole again after the queue had to drop: writes the map, then removes what
    /// the map does not hold. Pushes go on and are written in between. A drop before a shard is
    /// visited is made good by the visit, since a record is in the map before it is pushed; one
    /// after it is counted anew and makes the next turn start over.
    fn resync(&mut self) -> Written {
        let Some(latest) = self.shared.latest() else { return Written::Yes };
        self.shared.set_resyncing(true);
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
        self.shared.set_resyncing(false);
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
        let clock_high_water_us = self.shared.issued_us().max(self.clock_floor_us);
        let marks = Marks { clock_high_water_us, agreed_us: self.shared.agreed_us() };
        if let Err(error) = self.engine.commit(&Group::default(), marks) {
            tracing::warn!(%error, "the last marks were not kept; the lease on the clock stands");
        }
    }
}

impl Writer {
    /// At an orderly end everything that was pushed is written, unless some of it was dropped.
    fn write_heads(&self) {
        let heads = self.shared.take_heads();
        if heads.is_empty() || self.shared.needs_resync() {
            return;
        }
        if let Err(error) = self.engine.keep_heads(&heads) {
            tracing::warn!(%error, "resume tokens of this life will prove nothing after it");
        }
    }
}
