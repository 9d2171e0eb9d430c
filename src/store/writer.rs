//! The thread that writes a [`StoreEngine`]: takes what waits, writes it as one group, and raises the durable
//! mark.
//!
//! Group commit needs no tuning: while a group is synced the next one gathers, so a lone record is
//! written at once and a flood is written in large groups. After a group of some size the writer
//! rests as long as the commit took, at most [`REST_US_MAX`]: groups double, and a core is left to
//! the event loops.
//!
//! An error changes nothing but time: the same group is tried again, with growing pauses, until it
//! is written; meanwhile the queue merges. If the queue had to drop something, the writer reads the map
//! again ([`LatestRecords`]) once the store works, and only then lets the tickets since become durable.

use std::sync::Arc;
use std::time::Duration;

use super::engine::StoreEngine;
use super::queue::{Ticket, WriteGroup};
use super::write_path::{LatestRecords, WritePath, WriterGuard};
use crate::limits::SHARDS;
use crate::record::Source;

/// Shortest pause between two attempts to commit, in milliseconds: the first one.
const BACKOFF_MS_MIN: u64 = 100;
/// Longest pause between two attempts to commit, in milliseconds.
const BACKOFF_MS_MAX: u64 = 5_000;
/// Longest rest after a group, in microseconds: what a commit costs whatever it writes, and a little more.
/// A longer one only makes a group wait for records that cost as much in the next.
const REST_US_MAX: u64 = 2_000;
/// Least number of records in a group after which the writer rests.
const RESTED_GROUP_RECORDS_MIN: usize = 64;
/// Time without work, in microseconds, after which the engine does what it put off.
const IDLE_US: u64 = 20_000;
/// Least time between two lines in the log about commits that fail, in microseconds.
const FAILURE_LOG_US: u64 = 60_000_000;
/// Number of records written at a time when the map is read again.
const RESYNC_RECORDS: usize = 16_384;

/// Result of an attempt to write.
enum WriteEnd {
    /// Everything is durable.
    Done,
    /// The writer was told to end although the store fails.
    Abandoned,
}

/// The writer of an engine, on a thread of its own.
pub(super) struct GroupWriter {
    path: Arc<WritePath>,
    engine: Arc<dyn StoreEngine>,
    /// Ticket of the last group written.
    written: Ticket,
    /// While the map is read again: the first ticket that was lost.
    resync_from: Option<Ticket>,
}

impl GroupWriter {
    /// Makes a writer that has written nothing.
    pub(super) fn new(path: Arc<WritePath>, engine: Arc<dyn StoreEngine>) -> GroupWriter {
        GroupWriter { path, engine, written: Ticket(0), resync_from: None }
    }

    /// Runs until told to stop, then closes the engine.
    pub(super) fn run(mut self) {
        let guard = WriterGuard(self.path.clone());
        loop {
            let put_off = self.engine.has_deferred_work().then_some(Duration::from_micros(IDLE_US));
            let stop = self.path.bell.wait_for_work(put_off);
            let WriteEnd::Done = self.turn() else { break };
            if self.path.queue.lost_from().is_some() {
                let WriteEnd::Done = self.resync() else { break };
            }
            self.path.announce_health();
            if stop && self.path.queue.is_empty() {
                self.engine.keep_last_marks(self.path.marks.current());
                self.write_heads();
                break;
            }
        }
        self.engine.close();
        drop(guard);
    }

    /// Takes everything that waits in the queue and writes it as one group.
    fn turn(&mut self) -> WriteEnd {
        let (ticket, group) = self.path.queue.take();
        let mut rest_us = 0;
        if !group.is_empty() || self.path.marks.are_due() || self.engine.has_deferred_work() {
            let began_us = (self.path.clock)().mono_us;
            let WriteEnd::Done = self.write(&group) else { return WriteEnd::Abandoned };
            rest_us = (self.path.clock)().mono_us.saturating_sub(began_us);
            if !group.is_empty() {
                self.path.note_commit(rest_us);
            }
        }
        self.path.queue.handle_written();
        debug_assert!(self.written < ticket, "groups are written in their order");
        self.written = ticket;
        self.raise_durable();
        if group.records() >= RESTED_GROUP_RECORDS_MIN && rest_us > 0 {
            self.path.bell.rest(Duration::from_micros(rest_us.min(REST_US_MAX)));
        }
        WriteEnd::Done
    }

    /// Writes a group, however long that takes.
    fn write(&self, group: &WriteGroup) -> WriteEnd {
        let mut pause_ms = BACKOFF_MS_MIN;
        let mut has_failed = false;
        let mut log_at_us = 0;
        while !self.path.bell.is_abandoned() {
            let marks = self.path.marks.current();
            let recovered = if has_failed { self.engine.recover() } else { Ok(()) };
            let Err(error) = recovered.and_then(|()| self.engine.commit(group, marks)) else {
                self.path.handle_committed(marks);
                if has_failed {
                    tracing::info!(records = group.records(), "the store commits again");
                }
                return WriteEnd::Done;
            };
            has_failed = true;
            let now_us = (self.path.clock)().mono_us;
            if now_us >= log_at_us {
                log_at_us = now_us + FAILURE_LOG_US;
                tracing::error!(
                    %error,
                    records = group.records(),
                    "the store failed to commit; it is tried again all the time, and logged once a minute"
                );
            }
            self.path.set_trouble(Some(error.to_string()));
            self.path.bell.pause(Duration::from_millis(pause_ms));
            pause_ms = (pause_ms * 2).min(BACKOFF_MS_MAX);
        }
        WriteEnd::Abandoned
    }

    fn raise_durable(&self) {
        let lost = [self.resync_from, self.path.queue.lost_from()].into_iter().flatten().min();
        self.path.raise_durable(self.written, lost);
    }

    /// Makes up for changes that the queue had to drop: writes the map, then removes what the map does not
    /// hold. Pushes go on and are written in between. A drop before a shard is visited is made up for by the
    /// visit, since a record is in the map before it is pushed; one after it is counted anew and makes the
    /// next turn start over.
    fn resync(&mut self) -> WriteEnd {
        let Some(latest) = self.path.latest() else { return WriteEnd::Done };
        self.path.set_resyncing(true);
        self.resync_from = self.path.queue.take_lost();
        let mut chunk = Vec::new();
        for shard in 0..SHARDS {
            latest.visit(shard, &mut |record| chunk.push(record.clone()));
            if chunk.len() < RESYNC_RECORDS && shard + 1 < SHARDS {
                continue;
            }
            for part in chunk.chunks(RESYNC_RECORDS) {
                let WriteEnd::Done = self.write(&WriteGroup::of_records(part)) else {
                    return WriteEnd::Abandoned;
                };
                let WriteEnd::Done = self.turn() else { return WriteEnd::Abandoned };
            }
            chunk.clear();
        }
        let WriteEnd::Done = self.remove_unknown(&*latest) else { return WriteEnd::Abandoned };
        self.resync_from = None;
        self.path.set_resyncing(false);
        self.raise_durable();
        self.path.notify();
        self.path.bell.ring();
        WriteEnd::Done
    }

    /// Removes sources that the map does not hold. A source that enters the map after the look is
    /// pushed after it, and so written after the removal.
    fn remove_unknown(&mut self, latest: &dyn LatestRecords) -> WriteEnd {
        let mut after: Option<String> = None;
        loop {
            let (mut removals, mut last) = (Vec::new(), None);
            let read = self.engine.sources(after.as_deref(), RESYNC_RECORDS, &mut |name, stamp| {
                last = Some(name.to_owned());
                if !latest.holds(name)
                    && let Ok(source) = Source::parse(name)
                {
                    removals.push((source, stamp));
                }
            });
            if let Err(error) = read {
                tracing::error!(%error, "the store cannot be read");
                // Writing an empty group waits until the store works again.
                let WriteEnd::Done = self.write(&WriteGroup::default()) else { return WriteEnd::Abandoned };
                continue;
            }
            if !removals.is_empty() {
                let WriteEnd::Done = self.write(&WriteGroup::of_removals(removals)) else {
                    return WriteEnd::Abandoned;
                };
            }
            let WriteEnd::Done = self.turn() else { return WriteEnd::Abandoned };
            match last {
                Some(last) => after = Some(last),
                None => return WriteEnd::Done,
            }
        }
    }

    /// Keeps the heads at an orderly end, unless some of the pushed changes were dropped.
    fn write_heads(&self) {
        let heads = self.path.marks.take_heads();
        if heads.is_empty() || self.path.needs_resync() {
            return;
        }
        if let Err(error) = self.engine.keep_heads(&heads) {
            tracing::warn!(%error, "resume tokens of this life will prove nothing after it");
        }
    }
}
