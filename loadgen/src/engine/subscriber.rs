//! One subscriber: what it has got, and whether that is all. It knows no socket.

use crate::measure::{Tally, note};
use crate::names::Pattern;
use crate::payload::{HEADER_BYTES, Header, Payloads};
use crate::plan::{Plan, Published};
use crate::sequence::{Arrival, Seen};

/// A subscriber's state.
pub struct Subscriber {
    /// What it asked for.
    pub pattern: Pattern,
    /// Deliveries.
    pub received: u64,
    /// Where the last frame's header stood.
    guess: usize,
    /// By source, when verifying; as long as it need be.
    seen: Vec<Seen>,
    is_verifying: bool,
    is_latest: bool,
    has_batches: bool,
}

/// The instants between which a run counts.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Of the arrival.
    pub now_ns: u64,
    /// Of the first message; records of before are not this run's.
    pub start_ns: u64,
    /// From which latencies count.
    pub counted_ns: u64,
}

/// What is missing when nothing more comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Deliveries that should have been.
    pub expected: u64,
    /// Of these, the ones that never were.
    pub lost: u64,
    /// Sources whose newest value never came; counted only when verifying.
    pub stale: u64,
}

impl Subscriber {
    /// Subscriber `index` of the plan.
    pub fn new(plan: &Plan, index: u32) -> Subscriber {
        Subscriber {
            pattern: plan.pattern(index),
            received: 0,
            guess: 0,
            seen: Vec::new(),
            is_verifying: plan.verify,
            is_latest: plan.common.is_latest,
            has_batches: plan.common.subscribe_batch,
        }
    }

    /// Takes the records of a frame.
    #[inline]
    pub fn take(&mut self, bytes: &[u8], times: Times, payloads: &Payloads, tally: &mut Tally) {
        let Some((mut at, mut header)) = Header::find(bytes, self.guess) else {
            tally.faults.foreign += 1;
            return;
        };
        self.guess = at;
        loop {
            let after = &bytes[at + HEADER_BYTES..];
            self.record(header, after, times, payloads, tally);
            if !self.has_batches {
                return;
            }
            let Some((further, next)) = Header::find(after, 0) else { return };
            at += HEADER_BYTES + further;
            header = next;
        }
    }

    #[inline]
    fn record(&mut self, header: Header, after: &[u8], times: Times, payloads: &Payloads, tally: &mut Tally) {
        if header.due_ns < times.start_ns || times.start_ns == 0 {
            tally.faults.foreign += 1;
            return;
        }
        self.received += 1;
        tally.delivered += 1;
        if header.due_ns >= times.counted_ns {
            note(&mut tally.latency, times.now_ns.saturating_sub(header.due_ns));
        }
        if self.is_verifying {
            self.verify(header, after, payloads, tally);
        }
    }

    fn verify(&mut self, header: Header, after: &[u8], payloads: &Payloads, tally: &mut Tally) {
        if !payloads.follows(header, after) {
            tally.faults.wrong += 1;
            return;
        }
        // A source that matches is one the plan has, or the payload would not have been right; a bound
        // all the same, so that no header makes this grow without end.
        let source = header.source as usize;
        if source >= SOURCES_MAX {
            tally.faults.wrong += 1;
            return;
        }
        if source >= self.seen.len() {
            self.seen.resize(source + 1, Seen::default());
        }
        match self.seen[source].note(header.seq) {
            Arrival::New => {}
            Arrival::Late => tally.faults.late += 1,
            Arrival::Duplicate => tally.faults.duplicates += 1,
        }
    }

    /// Whether everything that must come has come. With `mode=latest` unverified this cannot be known.
    pub fn is_complete(&self, published: &Published, plan: &Plan) -> bool {
        if !self.is_latest {
            return self.received >= published.matching(self.pattern);
        }
        self.is_verifying && self.missing(published, plan).stale == 0
    }

    /// What has not come.
    pub fn missing(&self, published: &Published, plan: &Plan) -> Missing {
        let expected = published.matching(self.pattern);
        if !self.is_verifying {
            return Missing { expected, lost: expected.saturating_sub(self.received), stale: 0 };
        }
        let mut missing = Missing { expected, ..Missing::default() };
        for (source, &count) in published.of.iter().enumerate() {
            if count > 0 && plan.names().matches(self.pattern, source as u32) {
                let seen = self.seen.get(source).copied().unwrap_or_default();
                missing.lost += u64::from(count.saturating_sub(seen.distinct()));
                missing.stale += u64::from(seen.next() < count);
            }
        }
        missing
    }
}

/// The most sources of a run.
pub const SOURCES_MAX: usize = 1 << 24;
