//! The sending half of a worker's turn.

use std::cmp::Reverse;

use super::connection::Part;
use super::worker::Worker;
use crate::measure::note;
use crate::payload::Header;
use crate::plan::Patterns;

/// Bytes that are gathered for one write.
const WRITE_BYTES: usize = 64 * 1024;

/// At saturation everyone is due at once: they take turns, in the order in which they were queued.
#[derive(Default)]
pub(super) struct Turns(u64);

impl Turns {
    /// A time in the past, after all before it.
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

impl Worker {
    /// Queues the publisher of a connection if it has something to send and may.
    pub(super) fn queue(&mut self, token: usize) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let Part::Publisher(publisher) = &mut connection.part else { return };
        let is_free = !connection.is_broken && !connection.is_choked && !publisher.is_blocked();
        if let (Some(due_ns), true, false) = (publisher.due_ns(), is_free, publisher.is_queued) {
            publisher.is_queued = true;
            let at_ns =
                if self.plan.is_saturating() { self.turns.next() } else { self.times.start_ns + due_ns };
            self.due.push(Reverse((at_ns, token)));
        }
    }

    /// Sends what is due.
    pub(super) fn publish(&mut self, now_ns: u64) {
        let mut credit = self.credit();
        if credit > 0 {
            let turns = &mut self.turns;
            self.due.extend(self.waiting.drain(..).map(|token| Reverse((turns.next(), token))));
        }
        // Everyone who is due now gets one turn; who has more is queued again.
        let mut again = Vec::new();
        while let Some(&Reverse((due_ns, token))) = self.due.peek() {
            if due_ns > now_ns {
                break;
            }
            self.due.pop();
            if let Part::Publisher(publisher) = &mut self.connections[token].part {
                publisher.is_queued = false;
            }
            let has_more = self.send(token, now_ns, &mut credit);
            if has_more {
                again.push(token);
            }
        }
        for token in again {
            self.queue(token);
        }
    }

    /// Deliveries that may be added to those under way: at saturation `in_flight` bounds them.
    fn credit(&self) -> u64 {
        if !self.plan.is_saturating() || self.plan.subscribers == 0 || self.plan.common.is_latest {
            return u64::MAX;
        }
        let under_way = self
            .shared
            .sum(|counters| &counters.expected)
            .saturating_sub(self.shared.sum(|counters| &counters.delivered))
            .saturating_sub(self.shared.sum(|counters| &counters.given_up));
        let fan_out = match self.plan.patterns {
            Patterns::All => u64::from(self.plan.subscribers),
            Patterns::Group => u64::from(self.plan.subscribers / self.plan.groups),
            Patterns::Each => u64::from(self.plan.subscribers / self.plan.sources),
        };
        let most = self.plan.in_flight.saturating_mul(fan_out.max(1));
        let threads = self.shared.counters.len() as u64;
        most.saturating_sub(under_way) / threads.max(1)
    }

    /// Sends what is due on one connection; whether there is more that it could send at once.
    fn send(&mut self, token: usize, now_ns: u64, credit: &mut u64) -> bool {
        let connection = &mut self.connections[token];
        if connection.is_broken {
            return false;
        }
        let Part::Publisher(publisher) = &mut connection.part else { return false };
        let mut has_more = false;
        let mut share = self.plan.share();
        while let Some(due_ns) = publisher.due_ns() {
            let is_saturating = self.plan.is_saturating();
            let due_ns = if is_saturating { now_ns } else { self.times.start_ns + due_ns };
            if due_ns > now_ns {
                publisher.is_held = false;
                has_more = true;
                break;
            }
            if publisher.is_blocked() {
                publisher.is_held = true;
                break;
            }
            if *credit == 0 {
                publisher.is_queued = true;
                self.waiting.push(token);
                break;
            }
            if connection.out.len() >= WRITE_BYTES || share == 0 {
                has_more = true;
                break;
            }
            let Some(due) = publisher.take() else { break };
            if !is_saturating && !publisher.is_held {
                note(&mut self.tally.send_lag, now_ns - due_ns);
            }
            self.payload.clear();
            let header = Header { due_ns, source: due.source, seq: due.seq };
            self.plan.payloads.write(header, &mut self.payload);
            let message = crate::wire::Message {
                source: due.source,
                payload: &self.payload,
                id: publisher.send(due_ns),
            };
            connection.wire.publish(&message, &mut connection.out);
            let fan_out = u64::from(self.plan.fan_out(due.source));
            *credit = credit.saturating_sub(fan_out);
            share -= 1;
            self.sent += 1;
            self.expected += fan_out;
        }
        connection.wire.seal(&mut connection.out);
        let flushed = connection.flush();
        if let (true, Part::Publisher(publisher)) = (connection.is_choked, &mut connection.part) {
            publisher.is_held = true;
        }
        if let Err(broken) = flushed {
            self.give_up(token, broken.0);
            return false;
        }
        has_more
    }
}
