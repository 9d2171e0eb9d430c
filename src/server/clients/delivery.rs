//! The way out: changes of the mailbox to the sessions that want them, and the store's mark to those
//! that wait for it.

use std::sync::Arc;

use super::super::acks::Settled;
use super::super::clock;
use super::super::connection::Stage;
use super::super::inbox::Mail;
use super::super::session::EncodedChange;
use super::{Clients, PART_US_MAX};
use crate::ingest::Change;
use crate::record::Now;
use crate::store::StoreHealth;
use crate::subscriptions::Audience;

/// Changes handed out between two looks at the clock.
const CHANGES_PER_LOOK: usize = 512;
/// The longest that changes are handed out before what they made is flushed, in microseconds.
const DRAIN_US_MAX: u64 = 20_000;
/// Bytes handed out between two looks at the clock.
const BYTES_PER_LOOK: usize = 64 * 1024 * 1024;
/// So many bytes for one connection are written before more are added.
const WRITE_BYTES_MAX: usize = 128 * 1024;
/// So many are written at the end of a run of several, while they are in the core's caches: a write costs
/// little more than they do. Fewer wait for the end of the turn.
const WRITE_BYTES_MIN: usize = 16 * 1024;
/// Bytes of data of a run, which is in the core's caches as a whole, and encoded for a moment.
const RUN_BYTES_MAX: usize = 256 * 1024;
/// So few connections are handed so few changes at a time: what is known of them stays in the caches anyway, and
/// what is handed over should, too.
const FEW_CONNECTIONS: usize = 3;
const FEW_CHANGES: usize = 16;

/// Changes in a row that the same connections want.
///
/// They are handed out connection by connection: what is known of one, and the end of its buffer, is
/// fetched once for all of them.
#[derive(Debug, Default)]
pub(super) struct Run {
    changes: Vec<Change>,
    /// Of the changes' data.
    bytes: usize,
    connections: Audience,
    /// For the changes, encoded. There may be more of them than changes.
    frames: Vec<EncodedChange>,
}

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
            false => Portion { deliveries: 262_144, us: flush_us.clamp(PART_US_MAX, DRAIN_US_MAX) },
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
            let (mut changes, mut deliveries, mut bytes) = (0, 0, 0);
            while changes < CHANGES_PER_LOOK && deliveries < portion.deliveries && bytes < BYTES_PER_LOOK {
                changes += 1;
                match self.parts.inbox.next(mailbox, shared.ingest.latest()) {
                    Mail::Change(change) => {
                        let size = change.record.payload.bytes().len();
                        let count = self.add_to_run(now, change, size);
                        (deliveries, bytes) = (deliveries + count, bytes + count * size);
                    }
                    Mail::Overflow => {
                        self.hand_out(now);
                        self.handle_overflow(now);
                    }
                    Mail::Scanned => break,
                    Mail::Empty => {
                        self.hand_out(now);
                        shared.handle_room();
                        return false;
                    }
                }
            }
            self.hand_out(now);
            now = clock::now();
        }
        shared.handle_room();
        true
    }

    /// Returns how many connections want it.
    fn add_to_run(&mut self, now: Now, change: Change, bytes: usize) -> usize {
        let audience = self.parts.work.index.audience(change.shard, &change.record.source);
        let count = audience.len();
        if count > 0 {
            if !Arc::ptr_eq(audience, &self.run.connections) {
                let audience = audience.clone();
                if audience != self.run.connections {
                    self.hand_out(now);
                }
                self.run.connections = audience;
            }
            self.run.changes.push(change);
            self.run.bytes += bytes;
            let is_enough = count <= FEW_CONNECTIONS && self.run.changes.len() >= FEW_CHANGES;
            if is_enough || self.run.bytes >= RUN_BYTES_MAX {
                self.hand_out(now);
            }
        }
        count
    }

    /// Hands the run to those who want it.
    fn hand_out(&mut self, now: Now) {
        if self.run.changes.is_empty() {
            return;
        }
        let mut run = std::mem::take(&mut self.run);
        let missing = run.changes.len().saturating_sub(run.frames.len());
        run.frames.extend(std::iter::repeat_with(EncodedChange::default).take(missing));
        for &key in run.connections.iter() {
            self.hand_out_to(now, key, &run.changes, &mut run.frames);
        }
        run.frames.iter_mut().zip(&run.changes).for_each(|(frames, _)| frames.clear());
        run.changes.clear();
        run.bytes = 0;
        self.run = run;
    }

    fn hand_out_to(&mut self, now: Now, key: usize, changes: &[Change], frames: &mut [EncodedChange]) {
        let write_bytes = if changes.len() > FEW_CHANGES { WRITE_BYTES_MIN } else { WRITE_BYTES_MAX };
        let mut items = changes.iter().zip(frames).peekable();
        while items.peek().is_some() {
            let Some(connection) = self.table.get_mut(key) else { return };
            let handled = self.parts.with(now, key, connection, |session, turn| {
                // At least one, whatever waits already.
                for (change, frames) in items.by_ref() {
                    session.handle_change(turn, frames, change)?;
                    if turn.out.len() >= WRITE_BYTES_MAX {
                        break;
                    }
                }
                Ok(())
            });
            match handled {
                Some(Ok(())) => {}
                Some(Err(close)) => return self.parts.close(now, key, connection, &close),
                None => return,
            }
            if connection.out.len() >= write_bytes {
                self.flush_one(now, key);
            }
        }
        self.queue_turn(key);
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
        for Settled { connection: key, token, reached } in host.shared.acks.take_settled(host.worker) {
            let Some(connection) = self.table.get_mut(key) else { continue };
            self.parts.with(now, key, connection, |session, turn| {
                session.handle_replicated(turn, token, reached);
            });
        }
    }

    /// If the store's mark or health moved, sessions answer what waited for it.
    pub(super) fn handle_durable(&mut self, now: Now) {
        let store = self.parts.host.shared.store();
        let durable = (store.durable().0, store.health() == StoreHealth::Open);
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
