//! One subscriber without its socket: the records that it has received, and whether these are all.

use crate::measure::{Tally, note};
use crate::names::Pattern;
use crate::payload::{HEADER_BYTES, Header, Payloads};
use crate::plan::{Plan, Published};
use crate::sequence::{Arrival, Seen};

/// The state of a subscriber.
pub struct Subscriber {
    /// The sources that the subscriber asked for.
    pub pattern: Pattern,
    /// Number of records received.
    pub received: u64,
    /// Offset of the header in the last frame: it is nearly always the same.
    guess: usize,
    /// The messages received of each source, by source, if the run verifies. As long as the greatest source
    /// needs.
    seen: Vec<Seen>,
    is_verifying: bool,
    is_latest: bool,
    has_batches: bool,
}

/// The instants between which a run counts, in absolute nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Time of the arrival.
    pub now_ns: u64,
    /// When the first message was due. Earlier records are not of this run.
    pub start_ns: u64,
    /// End of the warm-up, from which latencies count.
    pub counted_ns: u64,
}

/// Counts of the deliveries that a subscriber still lacks when nothing more arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Number of expected deliveries.
    pub expected: u64,
    /// Number of expected deliveries that did not happen.
    pub lost: u64,
    /// Number of sources whose newest value never arrived; counted only when verifying.
    pub stale: u64,
}

impl Subscriber {
    /// Makes subscriber `index` of the plan.
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

    /// Counts and checks the records of a frame.
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
        // The payload was right, so the plan has this source. The bound is there nevertheless, so that no
        // header can make the memory grow without end.
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
            Arrival::Late => tally.faults.out_of_order += 1,
            Arrival::Duplicate => tally.faults.duplicates += 1,
        }
    }

    /// Returns whether everything has arrived that must. With `mode=latest` that cannot be known unless it
    /// verifies; then this is false.
    pub fn is_complete(&self, published: &Published, plan: &Plan) -> bool {
        if !self.is_latest {
            return self.received >= published.matching(self.pattern);
        }
        self.is_verifying && self.missing(published, plan).stale == 0
    }

    /// Returns the counts of the deliveries that have not arrived.
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

/// Most sources of a run.
pub const SOURCES_MAX: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::RunArgs;

    const START_NS: u64 = 1_000;

    fn plan(options: &[&str]) -> Plan {
        RunArgs::parse(&[options, &["--verify", "--sources", "4"]].concat())
            .expect("options")
            .plan(None)
            .expect("a plan")
    }

    /// Gives a subscriber these records of (source, seq), while three of each source are published.
    fn gets(plan: &Plan, records: &[(u32, u32)]) -> (Missing, bool, Tally) {
        let (mut subscriber, mut tally) = (Subscriber::new(plan, 0), Tally::default());
        for (source, seq) in records {
            let mut frame = b"{\"source\":".to_vec();
            let header = Header { due_ns: START_NS + 5, source: *source, seq: *seq };
            plan.payloads.write(header, &mut frame);
            take(&mut subscriber, &frame, plan, &mut tally);
        }
        let published = Published::new(vec![3; 4], plan);
        (subscriber.missing(&published, plan), subscriber.is_complete(&published, plan), tally)
    }

    fn take(subscriber: &mut Subscriber, frame: &[u8], plan: &Plan, tally: &mut Tally) {
        let times = Times { now_ns: START_NS + 9, start_ns: START_NS, counted_ns: START_NS };
        subscriber.take(frame, times, &plan.payloads, tally);
    }

    fn all() -> Vec<(u32, u32)> {
        (0..3).flat_map(|seq| (0..4).map(move |source| (source, seq))).collect()
    }

    #[test]
    fn nothing_is_missing_when_all_came() {
        let (missing, is_complete, tally) = gets(&plan(&[]), &all());
        assert_eq!(missing, Missing { expected: 12, lost: 0, stale: 0 });
        assert!(is_complete);
        assert_eq!(tally.faults, Default::default());
        assert_eq!((tally.delivered, tally.latency.len(), tally.latency.max()), (12, 12, 4));
    }

    #[test]
    fn what_is_lost_or_comes_twice_or_late_is_told() {
        let mut records = all();
        records.remove(0);
        let (missing, is_complete, _) = gets(&plan(&[]), &records);
        assert_eq!(missing, Missing { expected: 12, lost: 1, stale: 0 });
        assert!(!is_complete);
        records.push((0, 0));
        let (missing, _, tally) = gets(&plan(&[]), &records);
        assert_eq!((missing.lost, tally.faults.out_of_order, tally.faults.duplicates), (0, 1, 0));
        records.push((0, 0));
        // A duplicate does not make up for a loss.
        records.retain(|record| *record != (3, 2));
        let (missing, _, tally) = gets(&plan(&[]), &records);
        assert_eq!((missing.lost, missing.stale, tally.faults.duplicates), (1, 1, 1));
    }

    #[test]
    fn with_mode_latest_only_the_newest_must_come() {
        let plan = plan(&["--mode", "latest"]);
        let (missing, is_complete, _) = gets(&plan, &[(0, 2), (1, 2), (2, 0), (2, 2), (3, 1)]);
        assert_eq!((missing.lost, missing.stale, is_complete), (7, 1, false));
        let (missing, is_complete, _) = gets(&plan, &[(0, 2), (1, 2), (2, 2), (3, 2)]);
        assert_eq!((missing.stale, is_complete), (0, true));
    }

    #[test]
    fn other_groups_are_not_missed() {
        let plan = plan(&["--groups", "2", "--patterns", "group"]);
        let records: Vec<_> = all().into_iter().filter(|(source, _)| source % 2 == 0).collect();
        assert_eq!(gets(&plan, &records).0, Missing { expected: 6, lost: 0, stale: 0 });
    }

    #[test]
    fn a_changed_payload_and_a_stranger_are_told() {
        let plan = plan(&[]);
        let (mut subscriber, mut tally) = (Subscriber::new(&plan, 0), Tally::default());
        let mut frame = Vec::new();
        plan.payloads.write(Header { due_ns: START_NS, source: 1, seq: 0 }, &mut frame);
        let last = frame.len() - 2;
        frame[last] ^= 1;
        take(&mut subscriber, &frame, &plan, &mut tally);
        assert_eq!((tally.faults.wrong, tally.faults.foreign), (1, 0));
        frame.clear();
        // From before the run began.
        plan.payloads.write(Header { due_ns: START_NS - 1, source: 1, seq: 0 }, &mut frame);
        take(&mut subscriber, &frame, &plan, &mut tally);
        take(&mut subscriber, b"{\"source\":\"x\",\"data\":1}", &plan, &mut tally);
        assert_eq!((tally.faults.wrong, tally.faults.foreign), (1, 2));
    }

    #[test]
    fn every_record_of_a_batch_is_taken() {
        let plan = plan(&["--subscribe-batch"]);
        let (mut subscriber, mut tally) = (Subscriber::new(&plan, 0), Tally::default());
        let mut frame = b"[".to_vec();
        for (source, seq) in all() {
            plan.payloads.write(Header { due_ns: START_NS, source, seq }, &mut frame);
            frame.push(b',');
        }
        take(&mut subscriber, &frame, &plan, &mut tally);
        assert_eq!((subscriber.received, tally.faults), (12, Default::default()));
    }
}
