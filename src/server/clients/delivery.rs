//! The way out: changes of the mailbox go to the sessions that want them, and sessions answer the publishes
//! that waited for the store or the cluster.

use super::super::acks::Settled;
use super::super::clock;
use super::super::connection::ConnectionStage;
use super::super::inbox::Mail;
use super::super::session::{EncodedChange, FilterCounts};
use super::Clients;
use super::env::PART_US_MAX;
use super::run::FEW_CHANGES;
use crate::ingest::Change;
use crate::record::Now;
use crate::store::StoreHealth;

/// Number of changes that are handed out between two looks at the clock.
const CHANGES_PER_LOOK: usize = 512;
/// Longest time for which changes are handed out before what they made is flushed, in microseconds.
const MAIL_DRAIN_US_MAX: u64 = 20_000;
/// Number of bytes that are handed out between two looks at the clock.
const BYTES_PER_LOOK: usize = 64 * 1024 * 1024;
/// Bytes that may wait for one connection; once there are more, they are written before more are added.
const WRITE_BYTES_MAX: usize = 128 * 1024;
/// After a run of many changes, this number of waiting bytes is worth a write at once, while they are in the
/// core's caches: the write costs little more than having added them. Fewer bytes wait for the end of the
/// turn.
const WRITE_BYTES_MIN: usize = 16 * 1024;

/// The amount that a worker hands out before it flushes.
#[derive(Debug, PartialEq, Eq)]
struct Portion {
    /// Number of deliveries between two looks at the clock.
    deliveries: usize,
    /// Time until what was handed out is flushed, in microseconds.
    us: u64,
}

impl Portion {
    /// The portion of a worker whose last flush took `flush_us` microseconds. Where flushes take long,
    /// because there are many connections, more is collected for each of them first, since a write costs more
    /// than the bytes that it writes. But where peers wait for this very worker, it returns to them soon.
    fn of(flush_us: u64, has_peers: bool) -> Portion {
        match has_peers {
            true => Portion { deliveries: 1_024, us: PART_US_MAX },
            false => Portion { deliveries: 262_144, us: flush_us.clamp(PART_US_MAX, MAIL_DRAIN_US_MAX) },
        }
    }
}

impl Clients {
    /// Hands out changes of the mailbox. Returns whether there are more.
    pub(super) fn drain_mailbox(&mut self) -> bool {
        self.set_wanted();
        let shared = self.shared().clone();
        let Some(mailbox) = shared.mailboxes().get(self.env.host.worker) else { return false };
        let mut now = clock::now();
        // Worker 0 also serves the cluster's sockets.
        let has_peers = self.env.host.worker == 0 && shared.cluster.members().len() > 1;
        let portion = Portion::of(self.flush_us, has_peers);
        let end_us = now.mono_us + portion.us;
        while now.mono_us < end_us {
            let (mut changes, mut deliveries, mut bytes) = (0, 0, 0);
            while changes < CHANGES_PER_LOOK && deliveries < portion.deliveries && bytes < BYTES_PER_LOOK {
                changes += 1;
                match self.env.inbox.next(mailbox, shared.ingest.latest()) {
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

    /// Puts a change of `bytes` bytes of data into the run, if any connection wants it. Returns how many do.
    fn add_to_run(&mut self, now: Now, change: Change, bytes: usize) -> usize {
        let audience = self.env.work.index.audience(&change.record.source);
        let count = audience.len();
        if count > 0 {
            if !self.run.is_same(audience) {
                let audience = audience.clone();
                if !self.run.is_for(&audience) {
                    self.hand_out(now);
                }
                self.run.set_audience(audience);
            }
            if self.run.push(change, bytes) {
                self.hand_out(now);
            }
        }
        count
    }

    /// Hands the run to the connections that want it.
    fn hand_out(&mut self, now: Now) {
        if self.run.is_empty() {
            return;
        }
        self.env.work.filters.begin_run();
        let mut run = std::mem::take(&mut self.run);
        let traced = self.shared().traces().map_or_else(Vec::new, |traces| traces.sampled(run.changes()));
        let connections = run.hand_out(|key, changes, encoded| self.hand_out_to(now, key, changes, encoded));
        if !traced.is_empty()
            && let Some(traces) = self.shared().traces()
        {
            traces.handle_delivered(&traced, self.env.host.worker, connections);
        }
        self.run = run;
    }

    fn hand_out_to(&mut self, now: Now, key: usize, changes: &[Change], encoded: &mut [EncodedChange]) {
        let write_bytes = if changes.len() > FEW_CHANGES { WRITE_BYTES_MIN } else { WRITE_BYTES_MAX };
        let mut items = changes.iter().zip(encoded).peekable();
        while items.peek().is_some() {
            let Some(connection) = self.table.get_mut(key) else { return };
            let handled = self.env.with(now, key, connection, |session, turn| {
                // At least one, however many bytes wait already.
                for (change, encoded) in items.by_ref() {
                    session.handle_change(turn, encoded, change)?;
                    if turn.out.len() >= WRITE_BYTES_MAX {
                        break;
                    }
                }
                Ok(())
            });
            match handled {
                Some(Ok(())) => {}
                Some(Err(close)) => return self.env.close(now, key, connection, &close),
                None => return,
            }
            if connection.out.len() >= write_bytes {
                self.flush_one(now, key);
                // Until the end of the turn, slow readers could be handed more than there is memory for.
                self.count(now, key);
            }
        }
        self.queue_turn(key);
    }

    /// Adds what filters did to the metrics.
    pub(super) fn count_filters(&mut self) {
        let metrics = &self.env.host.shared.metrics.filters;
        let (FilterCounts { evaluations, errors, skipped }, len) = self.env.work.filters.take_counts();
        for (metric, count) in
            [(&metrics.evaluations, evaluations), (&metrics.errors, errors), (&metrics.skipped, skipped)]
        {
            if count > 0 {
                metric.add(count);
            }
        }
        let before = std::mem::replace(&mut self.traffic.filters, len);
        if before != len {
            metrics.distinct.add(len as i64 - before as i64);
        }
    }

    /// Handles that the mailbox dropped changes: closes the sessions that want all of them.
    fn handle_overflow(&mut self, now: Now) {
        tracing::warn!(
            "changes came faster than this worker could hand them out; subscribers are resynchronized"
        );
        self.env.work.filters.handle_overflow();
        for (key, connection) in &mut self.table {
            let handled = match &mut connection.stage {
                ConnectionStage::Open(open) => open.session.handle_overflow(),
                _ => Ok(()),
            };
            if let Err(close) = handled {
                self.env.close(now, key, connection, &close);
            }
        }
    }

    /// Lets sessions answer the publishes whose records every member holds by now, or did not hold in time.
    pub(super) fn handle_replicated(&mut self, now: Now) {
        let host = &self.env.host;
        for Settled { connection: key, token, reached } in host.shared.acks.take_settled(host.worker) {
            let Some(connection) = self.table.get_mut(key) else { continue };
            self.env.with(now, key, connection, |session, turn| {
                session.handle_replicated(turn, token, reached);
            });
        }
    }

    /// Lets sessions answer the publishes that waited for the store, if its mark or its health has changed.
    pub(super) fn handle_durable(&mut self, now: Now) {
        let store = self.env.host.shared.store();
        let durable = (store.durable().0, store.health() == StoreHealth::Open);
        if std::mem::replace(&mut self.durable, durable) == durable {
            return;
        }
        for (key, connection) in &mut self.table {
            let ConnectionStage::Open(open) = &connection.stage else { continue };
            if open.session.has_unanswered() {
                self.env.with(now, key, connection, |session, turn| session.handle_durable(turn));
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
        assert_eq!(Portion::of(u64::MAX, false).us, MAIL_DRAIN_US_MAX);
    }
}
