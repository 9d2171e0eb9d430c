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

/// Changes handed out between two looks at the clock, and so before a flush even where time is short.
/// Sixty-four small records in one write cost a twentieth of as many writes.
const CHANGES_PER_LOOK: usize = 64;
/// The longest that changes are handed out before what they made is flushed, in microseconds.
const DRAIN_US_MAX: u64 = 20_000;

/// How much is handed out before it is flushed.
#[derive(Debug, PartialEq, Eq)]
struct Portion {
    /// Deliveries between two looks at the clock.
    deliveries: usize,
    /// Microseconds.
    us: u64,
}

impl Portion {
    /// Who flushes long, to many connections, is to have much to flush to each: a write costs more than
    /// what is written. But where peers wait for this very worker, it comes back to them soon.
    fn of(flush_us: u64, has_peers: bool) -> Portion {
        match has_peers {
            true => Portion { deliveries: 1_024, us: PART_US_MAX },
            false => Portion { deliveries: 65_536, us: flush_us.clamp(PART_US_MAX, DRAIN_US_MAX) },
        }
    }
}

impl Clients {
    /// Hands out changes. Whether there are more.
    pub(super) fn drain_mailbox(&mut self) -> bool {
        self.set_wanted();
        let shared = self.shared().clone();
        let Some(mailbox) = shared.mailboxes().get(self.parts.host.worker) else { return false };
        let mut now = clock::now();
        // The first worker has the gossip socket.
        let has_peers = self.parts.host.worker == 0 && shared.members().len() > 1;
        let portion = Portion::of(self.flush_us, has_peers);
        let end_us = now.mono_us + portion.us;
        while now.mono_us < end_us {
            let (mut changes, mut deliveries) = (0, 0);
            while changes < CHANGES_PER_LOOK && deliveries < portion.deliveries {
                changes += 1;
                match self.parts.inbox.next(mailbox, shared.ingest.latest()) {
                    Mail::Change(change) => deliveries += self.deliver(now, &change),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Worker 0 could hand changes to a thousand subscribers for 20 ms before it looked at the gossip
    /// socket again, four times as long as a peer waits for a receipt.
    #[test]
    fn peers_do_not_wait_for_many_subscribers() {
        for flush_us in [0, 10_000, u64::MAX] {
            let portion = Portion::of(flush_us, true);
            assert_eq!(portion, Portion { deliveries: 1_024, us: PART_US_MAX });
        }
        assert_eq!(Portion::of(0, false).us, PART_US_MAX);
        assert_eq!(Portion::of(10_000, false).us, 10_000);
        assert_eq!(Portion::of(u64::MAX, false).us, DRAIN_US_MAX);
    }
}
