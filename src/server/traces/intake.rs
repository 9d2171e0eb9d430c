//! What threads see of traced records, as spans in a bounded queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::super::clock;
use super::span::{Stage, TraceSpan};
use crate::config::trace::TraceConfig;
use crate::ingest::Change;
use crate::metrics::Metrics;
use crate::record::{NodeName, Record, SharedRecord, Source};

/// Most spans that wait to be sent, at most 500 bytes each. Further ones are dropped and counted.
const SPANS_WAITING_MAX: usize = 8192;
/// Most spans that wait until their record is durable. Further ones are dropped and counted.
const UNSTORED_MAX: usize = 8192;
/// Number of traced records of which the time of their arrival is remembered, for the spans that begin with it.
const ARRIVALS_MAX: usize = 4096;

/// What a node that traces records keeps of them. All threads share it.
#[derive(Debug)]
pub struct Traces {
    /// The share of records that are traced, and the receiver of the traces.
    pub(super) config: TraceConfig,
    /// Name of this node.
    pub(super) name: NodeName,
    boot: u64,
    /// The node's metrics.
    pub(super) metrics: Arc<Metrics>,
    queue: (Sender<TraceSpan>, Receiver<TraceSpan>),
    arrivals: Mutex<Arrivals>,
    /// Spans of records that are not durable so far, with the store's ticket of each.
    unstored: Mutex<VecDeque<(u64, TraceSpan)>>,
}

impl Traces {
    /// Makes the traces of the node with this name, which started with this boot number.
    pub fn new(config: TraceConfig, (name, boot): (NodeName, u64), metrics: Arc<Metrics>) -> Traces {
        let queue = bounded(SPANS_WAITING_MAX);
        let (arrivals, unstored) = (Mutex::default(), Mutex::default());
        Traces { config, name, boot, metrics, queue, arrivals, unstored }
    }

    /// The spans that wait to be sent.
    pub(super) fn waiting(&self) -> &Receiver<TraceSpan> {
        &self.queue.1
    }

    /// Memory of the spans that wait to be sent, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting().len() * size_of::<TraceSpan>()
    }

    /// Returns whether a record is traced. Records of the nodes themselves are not.
    pub fn is_sampled(&self, record: &Record) -> bool {
        record.checksum <= self.config.checksum_max && !Source::is_system(record.source.as_str())
    }

    /// Handles that a sampled record has become the latest of its source. Its store's ticket is given if this node
    /// stores it.
    pub fn handle_applied(&self, record: &SharedRecord, ticket: Option<u64>) {
        let now_us = clock::now().wall_us;
        let is_own = record.birth.origin == self.name && record.birth.boot == self.boot;
        let stage = if is_own { Stage::Accept } else { Stage::Apply };
        self.push(TraceSpan::new(record, &self.name, stage, (record.accepted_us, now_us)));
        self.arrivals.lock().note(record.checksum, now_us);
        if let Some(ticket) = ticket {
            let mut unstored = self.unstored.lock();
            if unstored.len() < UNSTORED_MAX {
                unstored
                    .push_back((ticket, TraceSpan::new(record, &self.name, Stage::Store, (now_us, now_us))));
            } else {
                self.metrics.traces.dropped_queue.increment();
            }
        }
    }

    /// Handles that everything up to the store's ticket `durable` is durable.
    pub fn handle_durable(&self, durable: u64) {
        let mut unstored = self.unstored.lock();
        if unstored.is_empty() {
            return;
        }
        let end_us = clock::now().wall_us;
        unstored.retain_mut(|(ticket, span)| {
            let is_waiting = *ticket > durable;
            if !is_waiting {
                self.push(TraceSpan { end_us: end_us.max(span.start_us), ..span.clone() });
            }
            is_waiting
        });
    }

    /// Handles that records which were published here are handed to the links to other nodes.
    pub fn handle_passed_on(&self, records: &[SharedRecord]) {
        let sampled = records.iter().filter(|record| self.is_sampled(record));
        sampled.for_each(|record| self.push(self.since_arrival(record, Stage::PassOn)));
    }

    /// Returns the sampled records among changes that are about to be handed to subscribers.
    pub fn sampled(&self, changes: &[Change]) -> Vec<SharedRecord> {
        let is_traced = |change: &&Change| !change.is_expiry && self.is_sampled(&change.record);
        changes.iter().filter(is_traced).map(|change| change.record.clone()).collect()
    }

    /// Handles that the event loop `worker` has handed sampled records to this number of subscribers.
    pub fn handle_delivered(&self, records: &[SharedRecord], worker: usize, subscribers: usize) {
        for record in records {
            let span = self.since_arrival(record, Stage::Deliver);
            self.push(span.handed(&self.name, worker, subscribers));
        }
    }

    /// The span from the arrival of a record at this node until now.
    fn since_arrival(&self, record: &SharedRecord, stage: Stage) -> TraceSpan {
        let now_us = clock::now().wall_us;
        let start_us = self.arrivals.lock().of(record.checksum).unwrap_or(now_us);
        TraceSpan::new(record, &self.name, stage, (start_us, now_us))
    }

    fn push(&self, span: TraceSpan) {
        if self.queue.0.try_send(span).is_err() {
            self.metrics.traces.dropped_queue.increment();
        }
    }
}

/// When traced records have come to this node, of the last ones.
#[derive(Debug, Default)]
struct Arrivals {
    /// Wall clocks in microseconds, by the records' checksums.
    times: BTreeMap<u64, u64>,
    /// The checksums, oldest first.
    order: VecDeque<u64>,
}

impl Arrivals {
    fn note(&mut self, checksum: u64, now_us: u64) {
        if self.times.insert(checksum, now_us).is_some() {
            return;
        }
        self.order.push_back(checksum);
        if self.order.len() > ARRIVALS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.times.remove(&oldest);
        }
    }

    fn of(&self, checksum: u64) -> Option<u64> {
        self.times.get(&checksum).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostPort;
    use crate::config::trace::TraceEndpoint;
    use crate::record::{Birth, Payload, Stamp};

    fn traces_of(checksum_max: u64) -> Traces {
        let host = HostPort { host: "127.0.0.1".into(), port: 1 };
        let endpoint = TraceEndpoint { is_tls: false, host, path: "/".into() };
        let who = (NodeName::parse("n").expect("name"), 1);
        Traces::new(TraceConfig { checksum_max, endpoint }, who, Arc::new(Metrics::default()))
    }

    fn record(source: &str, ts: u64) -> SharedRecord {
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: ts };
        let source = Source::parse(source).expect("source");
        Arc::new(Record::new(source, Stamp::of_data(ts, b"1"), Payload::Json("1".into()), birth, ts, 0))
    }

    fn stages(traces: &Traces) -> Vec<Stage> {
        traces.queue.1.try_iter().map(|span| span.stage).collect()
    }

    #[test]
    fn the_share_of_traced_records_is_that_of_the_setting() {
        let traces = traces_of(u64::MAX / 10);
        let sampled = (1..=10_000).filter(|ts| traces.is_sampled(&record("s", *ts))).count();
        assert!((900..1_100).contains(&sampled), "{sampled}");
        assert!(!traces_of(u64::MAX).is_sampled(&record("$n/x", 1)), "records of nodes are not traced");
    }

    #[test]
    fn a_record_is_stored_once_the_mark_has_reached_it() {
        let traces = traces_of(u64::MAX);
        traces.handle_applied(&record("s", 1), Some(5));
        traces.handle_applied(&record("s", 2), Some(7));
        traces.handle_applied(&record("s", 3), None);
        traces.handle_durable(4);
        assert_eq!(stages(&traces), [Stage::Accept; 3]);
        traces.handle_durable(6);
        assert_eq!(stages(&traces), [Stage::Store]);
        traces.handle_durable(7);
        traces.handle_durable(8);
        assert_eq!(stages(&traces), [Stage::Store]);
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let traces = traces_of(u64::MAX);
        (0..2 * SPANS_WAITING_MAX as u64).for_each(|ts| traces.handle_applied(&record("s", ts), Some(1)));
        assert_eq!(traces.queue.1.len(), SPANS_WAITING_MAX);
        assert_eq!(traces.unstored.lock().len(), UNSTORED_MAX);
        assert_eq!(traces.arrivals.lock().times.len(), ARRIVALS_MAX);
        assert_eq!(traces.arrivals.lock().order.len(), ARRIVALS_MAX);
        let dropped = (SPANS_WAITING_MAX + UNSTORED_MAX) as u64;
        assert_eq!(traces.metrics.traces.dropped_queue.get(), dropped);
    }
}
