//! The sending half of a worker's turn: which publishers are due, and sending what they have.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::connection::{Connection, Part};
use super::shared::Shared;
use super::subscriber::Times;
use crate::measure::{Tally, note};
use crate::payload::Header;
use crate::plan::{Patterns, Plan};
use crate::wire::Message;

/// Bytes that are gathered for one write.
const WRITE_BYTES: usize = 64 * 1024;

/// The publishers of one thread that have something to send, and how much they have sent.
#[derive(Default)]
pub struct Sender {
    /// Publishers that may send: the time at which each must (absolute nanoseconds), and the connection.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// Connections of publishers that wait until enough is delivered.
    waiting: Vec<usize>,
    /// How many turns were given out at saturation. Everyone is due at once there, so publishers take
    /// turns in the order in which they were queued: a turn is a due time in the distant past.
    turns: u64,
    /// Memory for one payload on its way into a connection's buffer.
    payload: Vec<u8>,
    sent: u64,
    expected: u64,
}

/// The state of a thread that sending uses, borrowed for one call.
pub struct Sending<'a> {
    /// The plan that says which records are sent and when.
    pub plan: &'a Plan,
    /// The counters of all threads.
    pub shared: &'a Shared,
    /// All connections of this thread, by token.
    pub connections: &'a mut [Connection],
    /// This thread's measurements.
    pub tally: &'a mut Tally,
    /// The instants between which the run counts.
    pub times: Times,
}

/// A connection that was lost while writing: its token, and the reason.
pub type Lost = (usize, String);

impl Sender {
    /// Returns the number of messages sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns the number of deliveries that the sent messages must lead to.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// Returns the time at which the next publisher must send, in absolute nanoseconds. A time in the past
    /// means at once.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// Returns whether any publisher waits until more of what was sent is delivered.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Queues the publisher of a connection if it has something to send and may send it.
    pub fn queue(&mut self, with: &mut Sending<'_>, token: usize) {
        let Some(connection) = with.connections.get_mut(token) else { return };
        let Part::Publisher(publisher) = &mut connection.part else { return };
        let is_free = !connection.is_broken && !connection.is_choked && !publisher.is_blocked();
        if let (Some(due_ns), true, false) = (publisher.due_ns(), is_free, publisher.is_queued) {
            publisher.is_queued = true;
            let at_ns = if with.plan.is_saturating() {
                next_turn(&mut self.turns)
            } else {
                with.times.start_ns + due_ns
            };
            self.due.push(Reverse((at_ns, token)));
        }
    }

    /// Sends what is due. Returns the connections that were lost meanwhile.
    pub fn publish(&mut self, with: &mut Sending<'_>, now_ns: u64) -> Vec<Lost> {
        let mut credit = credit(with.plan, with.shared);
        if credit > 0 {
            let turns = &mut self.turns;
            self.due.extend(self.waiting.drain(..).map(|token| Reverse((next_turn(turns), token))));
        }
        // Everyone who is due now gets one turn; whoever has more to send is queued again.
        let (mut again, mut lost) = (Vec::new(), Vec::new());
        while let Some(&Reverse((due_ns, token))) = self.due.peek() {
            if due_ns > now_ns {
                break;
            }
            self.due.pop();
            if let Part::Publisher(publisher) = &mut with.connections[token].part {
                publisher.is_queued = false;
            }
            match self.send(with, token, now_ns, &mut credit) {
                Ok(true) => again.push(token),
                Ok(false) => {}
                Err(reason) => lost.push((token, reason)),
            }
        }
        for token in again {
            self.queue(with, token);
        }
        lost
    }

    /// Sends what is due on one connection. Returns whether there is more that it could send at once,
    /// or why the connection is lost.
    fn send(
        &mut self,
        with: &mut Sending<'_>,
        token: usize,
        now_ns: u64,
        credit: &mut u64,
    ) -> Result<bool, String> {
        let connection = &mut with.connections[token];
        if connection.is_broken {
            return Ok(false);
        }
        let Part::Publisher(publisher) = &mut connection.part else { return Ok(false) };
        let is_saturating = with.plan.is_saturating();
        let mut has_more = false;
        let mut share = with.plan.share();
        while let Some(due_ns) = publisher.due_ns() {
            let due_ns = if is_saturating { now_ns } else { with.times.start_ns + due_ns };
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
                note(&mut with.tally.send_lag, now_ns - due_ns);
            }
            self.payload.clear();
            let header = Header { due_ns, source: due.source, seq: due.seq };
            with.plan.payloads.write(header, &mut self.payload);
            let id = publisher.send(due_ns);
            let message = Message { source: due.source, payload: &self.payload, id };
            connection.wire.publish(&message, &mut connection.out);
            let fan_out = u64::from(with.plan.fan_out(due.source));
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
        flushed.map(|()| has_more).map_err(|broken| broken.0)
    }
}

/// Gives out a turn: a time in the past, after all that were given out before.
fn next_turn(turns: &mut u64) -> u64 {
    *turns += 1;
    *turns
}

/// Returns how many deliveries this thread may add to those under way: at saturation `in_flight` bounds
/// them, and each thread has an equal share.
fn credit(plan: &Plan, shared: &Shared) -> u64 {
    if !plan.is_saturating() || plan.subscribers == 0 || plan.common.is_latest {
        return u64::MAX;
    }
    let under_way = shared
        .sum(|counters| &counters.expected)
        .saturating_sub(shared.sum(|counters| &counters.delivered))
        .saturating_sub(shared.sum(|counters| &counters.given_up));
    let fan_out = match plan.patterns {
        Patterns::All => u64::from(plan.subscribers),
        Patterns::Group => u64::from(plan.subscribers / plan.groups),
        Patterns::Each => u64::from(plan.subscribers / plan.sources),
    };
    let most = plan.in_flight.saturating_mul(fan_out.max(1));
    let threads = shared.counters.len() as u64;
    most.saturating_sub(under_way) / threads.max(1)
}
