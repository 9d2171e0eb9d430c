//! Batches too large for datagrams: announced down the tree, pulled over TCP.
//!
//! A part with a large batch carries its name, length and checksum alone. Who gets it says that it
//! is pulling, asks the sender for the bytes over a stream, verifies them, and only then takes
//! custody: what follows is as if the bytes had come with the part. So the tree, its retries and its
//! stand-ins are the same for records of every size, and a large one costs the datagram links a
//! hundred bytes a hop.
//!
//! [`pulling`] asks, [`serving`] answers; both keep one stream a peer, and both are bounded in
//! streams, names and bytes whatever the other side does. What fails is not mended here: the part is
//! announced again, by the same peer or by another.

mod pulling;
mod serving;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use self::pulling::{Pulling, Whole};
use self::serving::Serving;
use super::Spread;
use super::batch::{Announced, Batch, BatchId};
use super::duty::Duty;
use super::receive::Taken;
use super::timers::Timer;
use super::wire::Header;
use crate::cluster::purpose::Purpose;
use crate::cluster::ring::Ring;
use crate::cluster::{Replica, StreamEvent, StreamId};
use crate::record::Now;

/// A part whose body is being pulled is announced again after this long, in microseconds: the pull
/// may have failed since.
const ANNOUNCE_US: u64 = 250_000;
/// A peer may be busy pulling one body for so long, in microseconds; then its part is tried as any.
const PULL_US_MAX: u64 = 30_000_000;
/// Bytes of this node's own batches that others still have to pull.
const OWN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What is to be done with streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Output {
    /// Open a stream.
    Connect {
        /// Its number: one of [`Purpose::Bodies`].
        stream: StreamId,
        /// Where to.
        to: SocketAddr,
    },
    /// Write on a stream.
    Write {
        /// Which.
        stream: StreamId,
        /// What.
        bytes: Bytes,
    },
    /// Close a stream once what was written is out. Nothing more is said of it here.
    Close {
        /// Which.
        stream: StreamId,
    },
}

/// A part that waits for its body.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Who sent it.
    pub from: SocketAddr,
    /// In which life.
    pub boot: u64,
    /// Its number.
    pub number: u64,
    /// What it asks.
    pub header: Header,
    /// When it came.
    pub since_us: u64,
}

impl Waiter {
    fn is_same(&self, other: &Waiter) -> bool {
        (self.from, self.boot, self.number) == (other.from, other.boot, other.number)
    }
}

/// A batch that peers were told of and may pull.
#[derive(Debug)]
struct OnDuty {
    batch: Arc<Batch>,
    /// In how many parts.
    parts: usize,
    /// Whether it is counted as this node's own.
    is_own: bool,
}

/// Both sides, and the batches that peers were told of.
#[derive(Debug)]
pub(super) struct Bodies {
    pulling: Pulling,
    serving: Serving,
    on_duty: BTreeMap<BatchId, OnDuty>,
    own_bytes: usize,
    outputs: VecDeque<Output>,
}

impl Bodies {
    /// No streams.
    pub fn new() -> Bodies {
        Bodies {
            pulling: Pulling::new(),
            serving: Serving::default(),
            on_duty: BTreeMap::new(),
            own_bytes: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Whether there are no streams.
    pub fn is_empty(&self) -> bool {
        self.pulling.is_empty() && self.serving.is_empty()
    }

    /// Bytes of own batches that may be announced now.
    pub fn room_bytes(&self) -> usize {
        OWN_BYTES_MAX.saturating_sub(self.own_bytes)
    }

    /// Whether one of these numbers of a line is being pulled.
    pub fn pulls_any(&self, line: u64, (first, last): (u64, u64)) -> bool {
        self.pulling.has_between((line, first), (line, last))
    }

    /// Somebody is told of this batch.
    pub fn announce(&mut self, batch: &Arc<Batch>, is_own: bool) {
        let new = || OnDuty { batch: batch.clone(), parts: 0, is_own: false };
        let on_duty = self.on_duty.entry(batch.id).or_insert_with(new);
        on_duty.parts += 1;
        if is_own && !on_duty.is_own {
            on_duty.is_own = true;
            self.own_bytes += batch.encoded.len();
        }
    }

    /// Somebody who was told of this batch has it, or was given up.
    pub fn settle(&mut self, batch: &Batch) {
        let Some(on_duty) = self.on_duty.get_mut(&batch.id) else { return };
        on_duty.parts -= 1;
        if on_duty.parts == 0 {
            if on_duty.is_own {
                self.own_bytes -= batch.encoded.len();
            }
            self.on_duty.remove(&batch.id);
        }
    }

    /// Does what is due once a second.
    pub fn sweep(&mut self, now_us: u64) {
        self.pulling.sweep(now_us, &mut self.outputs);
        self.serving.sweep(now_us, &mut self.outputs);
    }
}

impl Spread {
    /// Something happened to a stream of [`Purpose::Bodies`].
    pub fn handle_stream(
        &mut self,
        now: Now,
        stream: StreamId,
        event: StreamEvent,
        ring: &Ring,
        replica: &mut dyn Replica,
    ) {
        self.begin(now, ring);
        let bodies = &mut self.bodies;
        if Purpose::of_connected(stream) == Some(Purpose::Bodies) {
            let mut whole = Vec::new();
            bodies.pulling.handle(self.now_us, stream, event, &mut whole, &mut bodies.outputs);
            whole.into_iter().for_each(|whole| self.take_body(now, ring, replica, whole));
        } else {
            let (lines, on_duty) = (&self.lines, &bodies.on_duty);
            let find = |id| {
                let batch = lines.batch(id).or_else(|| on_duty.get(&id).map(|on_duty| &on_duty.batch));
                batch.map(|batch| batch.encoded.clone())
            };
            let served = bodies.serving.handle(self.now_us, stream, event, &find, &mut bodies.outputs);
            self.stats.data_bytes_sent += served as u64;
        }
        self.end();
    }

    /// What is to be done next with streams of [`Purpose::Bodies`].
    pub(in crate::cluster) fn poll_stream(&mut self) -> Option<Output> {
        self.bodies.outputs.pop_front()
    }

    /// A part came whose batch is to be pulled from who sent it.
    pub(super) fn take_announced(
        &mut self,
        ring: &Ring,
        id: usize,
        number: u64,
        announced: Announced,
        header: Header,
    ) -> Taken {
        match self.take_question(ring, id, number, announced.batch, header.clone()) {
            Taken::Wanted => {}
            taken => return taken,
        }
        let Some(link) = self.links.get(id) else { return Taken::No };
        let (from, boot) = (link.to, link.boot);
        let waiter = Waiter { from, boot, number, header, since_us: self.now_us };
        let bodies = &mut self.bodies;
        if bodies.pulling.pull(self.now_us, from, announced, waiter, &mut bodies.outputs) {
            return Taken::Pulling;
        }
        self.stats.refused += 1;
        Taken::No
    }

    /// A body came: what waited for it goes on as if it had come with the part.
    fn take_body(&mut self, now: Now, ring: &Ring, replica: &mut dyn Replica, whole: Whole) {
        let Whole { announced, body, waiters } = whole;
        if xxh3_64(&body) != announced.checksum {
            self.stats.corrupt += 1;
            return;
        }
        for Waiter { from, boot, number, mut header, since_us } in waiters {
            let Some(id) = self.open_link(from) else { continue };
            let waited_us = self.now_us.saturating_sub(since_us);
            header.age_us = header.age_us.saturating_add(u32::try_from(waited_us).unwrap_or(u32::MAX));
            let taken = match self.lines.batch(announced.batch).is_some() {
                true => self.take_question(ring, id, number, announced.batch, header),
                false => self.take_whole(now, ring, replica, id, (number, header, body.clone())),
            };
            // A new life of the peer counts anew.
            if self.links.get(id).is_some_and(|link| link.boot == boot) {
                self.answer(id, number, taken);
            }
        }
    }

    /// The peer is pulling a part's body: it needs no second try for now.
    pub(super) fn take_pulling(&mut self, id: usize, number: u64) {
        let now_us = self.now_us;
        let Some(link) = self.links.get_mut(id) else { return };
        let Some(sent) = link.sent.get(number).filter(|sent| sent.flying > 0) else { return };
        let is_patient = |duty: &Duty| {
            Announced::of(&duty.batch).is_some() && now_us.saturating_sub(duty.since_us) < PULL_US_MAX
        };
        if !self.duties.get(sent.duty).is_some_and(is_patient) {
            return;
        }
        let answered_us = (sent.tries == 1).then(|| now_us.saturating_sub(sent.first_us).max(1));
        let due_us = now_us + ANNOUNCE_US;
        link.pulls(number, now_us, due_us);
        self.timers.push(due_us, Timer::Try { link: id, number });
        if let Some(us) = answered_us {
            self.links.sample_rtt(id, us);
        }
    }
}
