//! The way out: changes of the mailbox to the sessions that want them, and the store's mark to those
//! that wait for it.

use super::super::clock;
use super::super::connection::{Connection, Stage};
use super::super::inbox::Mail;
use super::{Clients, PART_US_MAX, queue_turn_of};
use crate::ingest::Change;
use crate::limits::ALL_QUEUE_BYTES_MAX;
use crate::record::Now;
use crate::store::Health;

/// Deliveries between two looks at the clock, and so before a flush even where time is short; a change
/// counts as at least so many. Sixty-four small records in one write cost a twentieth of as many writes.
const DELIVERIES_PER_LOOK: usize = 64 * DELIVERIES_PER_CHANGE;
const DELIVERIES_PER_CHANGE: usize = 1_024;
/// The longest that changes are handed out before what they made is flushed, in microseconds.
const DRAIN_US_MAX: u64 = 20_000;

impl Clients {
    /// Hands out changes. Whether there are more.
    pub(super) fn drain_mailbox(&mut self) -> bool {
        self.set_wanted();
        let shared = self.shared().clone();
        let Some(mailbox) = shared.mailboxes().get(self.parts.host.worker) else { return false };
        let mut now = clock::now();
        // Who flushes long, to many connections, is to have much to flush to each: a write costs more
        // than what is written. Where little is flushed, or little waits, nothing is put off by this.
        let end_us = now.mono_us + self.flush_us.clamp(PART_US_MAX, DRAIN_US_MAX);
        while now.mono_us < end_us {
            let mut deliveries = 0;
            while deliveries < DELIVERIES_PER_LOOK {
                match self.parts.inbox.next(mailbox, shared.ingest.latest()) {
                    Mail::Change(change) => {
                        deliveries += DELIVERIES_PER_CHANGE.max(self.deliver(now, &change))
                    }
                    Mail::Overflow => self.handle_overflow(now),
                    Mail::Scanned => break,
                    Mail::Empty => {
                        shared.handle_room();
                        return false;
                    }
                }
            }
            now = clock::now();
        }
        shared.handle_room();
        true
    }

    /// Returns to how many connections.
    fn deliver(&mut self, now: Now, change: &Change) -> usize {
        let mut hits = std::mem::take(&mut self.hits);
        self.parts.work.index.matches(change.record.source.as_str(), &mut hits);
        self.frames.start();
        let count = hits.len();
        for key in hits.drain(..) {
            let is_full = |connection: &Connection| {
                connection.out.len() > ALL_QUEUE_BYTES_MAX / 2 && connection.is_writable
            };
            if self.table.get(key).is_some_and(is_full) {
                self.flush_one(now, key);
            }
            let Some(connection) = self.table.get_mut(key) else { continue };
            let frames = &mut self.frames;
            let handled = self
                .parts
                .with(now, key, connection, |session, turn| session.handle_change(turn, frames, change));
            if let Some(Err(close)) = handled {
                self.parts.close(now, key, connection, &close);
            }
            queue_turn_of(&mut self.turning, key, connection);
        }
        self.hits = hits;
        count
    }

    /// The mailbox dropped changes: who wants all of them is closed.
    fn handle_overflow(&mut self, now: Now) {
        tracing::warn!(
            "changes came faster than this worker could hand them out; subscribers are resynchronized"
        );
        for (key, connection) in &mut self.table {
            let handled = match &mut connection.stage {
                Stage::Open(open) => open.session.handle_overflow(),
                _ => Ok(()),
            };
            if let Err(close) = handled {
                self.parts.close(now, key, connection, &close);
            }
        }
    }

    /// Sessions answer what every member holds by now, or too late.
    pub(super) fn handle_replicated(&mut self, now: Now) {
        let host = &self.parts.host;
        for (key, token, reached) in host.shared.replications.take_settled(host.worker) {
            let Some(connection) = self.table.get_mut(key) else { continue };
            self.parts.with(now, key, connection, |session, turn| {
                session.handle_replicated(turn, token, reached);
            });
        }
    }

    /// If the store's mark or health moved, sessions answer what waited for it.
    pub(super) fn handle_durable(&mut self, now: Now) {
        let store = self.parts.host.shared.store();
        let durable = (store.durable().0, store.health() == Health::Open);
        if std::mem::replace(&mut self.durable, durable) == durable {
            return;
        }
        for (key, connection) in &mut self.table {
            let Stage::Open(open) = &connection.stage else { continue };
            if open.session.has_unanswered() {
                self.parts.with(now, key, connection, |session, turn| session.handle_durable(turn));
            }
        }
    }
}
