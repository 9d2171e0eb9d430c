//! The way of a record: from whoever brought it, through the merge, to all who must know.
//!
//! WebSocket and HTTP call [`Ingest::publish`], datagrams and streams [`Ingest::apply`]; both end in
//! the same few lines. Everything that must keep a source's order happens under its shard's lock, as
//! pushes into memory: numbering, the cluster's queue, the store's queue, the workers' mailboxes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::cluster::outbox::Outbox;
use crate::cluster::{Arrival, Replica};
pub use crate::latest::Change;
use crate::latest::{Due, Latest, Slot, Swept, Verdict, judge};
use crate::limits::{FUTURE_US_MAX, OUTBOX_BYTES_HARD, SHARDS};
use crate::metrics::{Counter, Metrics};
use crate::record::answer::{Code, Outcome, Refusal};
use crate::record::draft::{Draft, DraftPayload};
use crate::record::{HybridClock, Now, Record, SharedRecord, Source, Stamp};

/// Where applied records go. Called under a shard's lock: implementations push into memory and
/// return; they neither block nor call back.
pub trait Downstream: Send + Sync {
    /// To the connections that match, on every worker.
    fn deliver(&self, change: Change);
    /// To the store's queue. Returns the ticket that is durable when the record is.
    fn store(&self, record: &SharedRecord) -> u64;
    /// The ticket that is durable when `winner`, which a client's record did not beat, is.
    fn store_winner(&self, winner: &SharedRecord) -> u64;
    /// Collected: the store may forget it.
    fn forget(&self, record: &SharedRecord);
    /// Whether the store takes records; if not, why.
    fn store_health(&self) -> Result<(), String>;
}

/// What is fixed at the start.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a record's data.
    pub record_bytes_max: usize,
    /// Bytes of the map; over them no new source is accepted from a client.
    pub map_bytes_max: usize,
    /// How long tombstones are kept, in microseconds.
    pub tombstones_us: u64,
}

/// A publish that was merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The record's stamp: the publisher's, or the node's.
    pub ts: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Durable in the store when the record that won is.
    pub ticket: u64,
}

/// The map, the clock that stamps, the queue to the cluster, and the way through them.
pub struct Ingest<D> {
    latest: Latest,
    clock: HybridClock,
    outbox: Mutex<Outbox>,
    outbox_bytes: Arc<AtomicUsize>,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    downstream: D,
    is_skewed: AtomicBool,
    is_draining: AtomicBool,
}

impl<D: Downstream> Ingest<D> {
    /// An empty map before `downstream`.
    pub fn new(
        bounds: Bounds,
        clock: HybridClock,
        outbox: Outbox,
        metrics: Arc<Metrics>,
        downstream: D,
    ) -> Ingest<D> {
        Ingest {
            latest: Latest::default(),
            clock,
            outbox_bytes: outbox.told_bytes(),
            outbox: Mutex::new(outbox),
            bounds,
            metrics,
            downstream,
            is_skewed: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
        }
    }

    /// A client's record: stamped, judged, numbered, delivered, stored and queued for the cluster.
    /// Refusals are counted by whoever answers them.
    pub fn publish(&self, now: Now, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        self.publish_or_await(now, draft, None)
    }

    /// The same for a record whose answer waits until every live member holds it or a newer one: the
    /// cluster machine will say so, or not in time, under the name of `token`.
    pub fn publish_awaited(&self, now: Now, draft: &Draft<'_>, token: u64) -> Result<Accepted, Refusal> {
        self.publish_or_await(now, draft, Some(token))
    }

    fn publish_or_await(&self, now: Now, draft: &Draft<'_>, token: Option<u64>) -> Result<Accepted, Refusal> {
        let applied = Some(&self.metrics.publishes_applied);
        let published = self.admit(now, draft).and_then(|()| self.merge_draft(now, draft, token, applied));
        let in_vain = match published.as_ref().map(|accepted| accepted.outcome) {
            Ok(Outcome::Duplicate) => Verdict::Same,
            Ok(Outcome::Stale { .. }) => Verdict::Older,
            Ok(Outcome::Applied) | Err(_) => return published,
        };
        self.metrics.publishes_in_vain.increment();
        self.count(&in_vain);
        published
    }

    /// The node's own word, under a name that clients may not publish to.
    pub fn tell(&self, now: Now, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        self.merge_draft(now, draft, None, None)
    }

    /// `applied` counts it, if it becomes the latest.
    fn merge_draft(
        &self,
        now: Now,
        draft: &Draft<'_>,
        token: Option<u64>,
        applied: Option<&Counter>,
    ) -> Result<Accepted, Refusal> {
        let unstamped = stamp_of(0, &draft.payload);
        self.latest.update(&draft.source, |slot| {
            let current = slot.current();
            let ts = draft.ts.unwrap_or_else(|| self.clock.issue(now, current.map(|record| record.stamp.ts)));
            let stamp = Stamp { ts, ..unstamped };
            if let Some(current) = current
                && stamp <= current.stamp
            {
                let stale = Outcome::Stale { current_ts: current.stamp.ts };
                let outcome = if stamp == current.stamp { Outcome::Duplicate } else { stale };
                if let Some(token) = token {
                    self.outbox.lock().await_everywhere(token, current, false);
                }
                return Ok(Accepted { ts, outcome, ticket: self.downstream.store_winner(current) });
            }
            let source = match slot.shared_name() {
                Some(source) => source,
                None => self.new_source(&draft.source)?,
            };
            let payload = draft.payload.to_payload();
            let build = |birth| Record::new(source, stamp, payload, birth, now.wall_us, draft.ttl_ms);
            let record = {
                let mut outbox = self.outbox.lock();
                if let Some(applied) = applied {
                    applied.increment_alone();
                }
                let record = outbox.accept(build);
                if let Some(token) = token {
                    outbox.await_everywhere(token, &record, true);
                }
                record
            };
            let ticket = self.take(now, slot, record);
            Ok(Accepted { ts, outcome: Outcome::Applied, ticket })
        })
    }

    /// A peer's record, or one that the store kept: judged, delivered and stored. Whether it won.
    pub fn apply(&self, now: Now, record: SharedRecord, arrival: Arrival) -> bool {
        let collect_us = record.collect_us(self.bounds.tombstones_us);
        if collect_us.is_some_and(|at| at <= now.wall_us) {
            return false;
        }
        let source = record.source.clone();
        let accepted_us = record.accepted_us;
        let verdict = self.latest.update(source.as_str(), |slot| {
            let verdict = judge(slot.current(), &record);
            match verdict {
                Verdict::Newer => {
                    self.take(now, slot, record);
                }
                Verdict::SameOfGreaterBirth => {
                    slot.replace_silently(&record, now.wall_us, self.bounds.tombstones_us);
                    self.downstream.store(&record);
                }
                Verdict::Same | Verdict::Older => {}
            }
            verdict
        });
        self.count(&verdict);
        if verdict == Verdict::Newer && arrival != Arrival::Reconcile {
            self.metrics.propagation.record_us(now.wall_us.saturating_sub(accepted_us));
        }
        verdict == Verdict::Newer
    }

    fn count(&self, verdict: &Verdict) {
        let counter = match verdict {
            Verdict::Newer => &self.metrics.peers_applied,
            Verdict::Same | Verdict::SameOfGreaterBirth => &self.metrics.records_duplicate,
            Verdict::Older => &self.metrics.records_stale,
        };
        counter.increment();
    }

    /// A record that the store kept: merged without telling anyone.
    pub fn load(&self, now: Now, record: Record) {
        let record = Arc::new(record);
        let source = record.source.clone();
        self.latest.update(source.as_str(), |slot| {
            if matches!(judge(slot.current(), &record), Verdict::Newer | Verdict::SameOfGreaterBirth) {
                slot.replace_silently(&record, now.wall_us, self.bounds.tombstones_us);
            }
        });
    }

    /// The record is the latest from now on: those who must know are told, in its source's order.
    fn take(&self, now: Now, slot: &mut Slot<'_>, record: SharedRecord) -> u64 {
        let change = slot.replace(record, now.wall_us, self.bounds.tombstones_us);
        let ticket = self.downstream.store(&change.record);
        self.downstream.deliver(change);
        ticket
    }

    /// Refuses what must not enter, before anything is changed.
    fn admit(&self, now: Now, draft: &Draft<'_>) -> Result<(), Refusal> {
        let refuse = |code, message: String| Err(Refusal::new(code, message));
        let bytes = draft.payload.bytes().len();
        if bytes > self.bounds.record_bytes_max {
            let allowed = self.bounds.record_bytes_max;
            return refuse(Code::TooLarge, format!("data has {bytes} bytes; at most {allowed}"));
        }
        if Source::is_system(&draft.source) {
            return refuse(Code::Forbidden, format!("source {:?} is the system's", draft.source));
        }
        if let Some(ahead_us) = draft.ts.and_then(|ts| ts.checked_sub(now.wall_us))
            && ahead_us > FUTURE_US_MAX
        {
            let (ahead_s, most_s) = (ahead_us.div_ceil(1_000_000), FUTURE_US_MAX / 1_000_000);
            let message = format!("ts is {ahead_s} s ahead of this node's clock; at most {most_s} s");
            return refuse(Code::FutureTimestamp, message);
        }
        if self.is_draining.load(Relaxed) {
            return refuse(Code::Overloaded, "this node is shutting down".into());
        }
        if self.is_skewed.load(Relaxed) {
            return refuse(Code::ClockSkew, "this node's clock is off its peers'".into());
        }
        if let Err(reason) = self.downstream.store_health() {
            return refuse(Code::StoreUnavailable, reason);
        }
        if self.outbox_bytes() > OUTBOX_BYTES_HARD {
            return refuse(Code::Overloaded, "too many records wait for the cluster".into());
        }
        Ok(())
    }

    /// The name of a source that the map does not hold yet, if there is room for it.
    fn new_source(&self, name: &str) -> Result<Source, Refusal> {
        let allowed = self.bounds.map_bytes_max;
        if self.latest.bytes() > allowed {
            let message = format!("the map is full ({allowed} bytes): no new source is taken");
            return Err(Refusal::new(Code::Overloaded, message));
        }
        Source::parse(name).map_err(|error| Refusal::new(Code::BadSource, error.to_string()))
    }

    /// Tells expiries, and collects tombstones if they may go. Handles up to `budget` records of
    /// each shard; returns the wall clock at which the next is due.
    pub fn sweep(&self, now: Now, may_collect: bool, budget: usize) -> Option<u64> {
        let (wall_us, tombstones_us) = (now.wall_us, self.bounds.tombstones_us);
        let due = Due { wall_us, tombstones_us, may_collect, budget };
        let shards = 0..SHARDS;
        shards
            .filter_map(|shard| self.latest.sweep_shard(shard, due, &mut |swept| self.tell_swept(swept)))
            .min()
    }

    fn tell_swept(&self, swept: Swept) {
        match swept {
            Swept::Expired(change) => self.downstream.deliver(change),
            Swept::Collected(record) => self.downstream.forget(&record),
        }
    }

    /// The map.
    pub fn latest(&self) -> &Latest {
        &self.latest
    }

    /// Where applied records go.
    pub fn downstream(&self) -> &D {
        &self.downstream
    }

    /// The clock that stamps.
    pub fn clock(&self) -> &HybridClock {
        &self.clock
    }

    /// This node's records on their way to the cluster machine.
    pub fn outbox(&self) -> &Mutex<Outbox> {
        &self.outbox
    }

    /// Bytes that wait in it.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox_bytes.load(Relaxed)
    }

    /// Whether this node's clock is off its peers': publishes are refused meanwhile.
    pub fn set_skewed(&self, is_skewed: bool) {
        self.is_skewed.store(is_skewed, Relaxed);
    }

    /// From now on publishes are refused: the node is going.
    pub fn set_draining(&self) {
        self.is_draining.store(true, Relaxed);
    }
}

fn stamp_of(ts: u64, payload: &DraftPayload<'_>) -> Stamp {
    match payload {
        DraftPayload::Deleted => Stamp::of_deletion(ts),
        data => Stamp::of_data(ts, data.bytes()),
    }
}

/// The map as the cluster machine sees it.
impl<D: Downstream> Replica for &Ingest<D> {
    fn apply(&mut self, now: Now, record: SharedRecord, arrival: Arrival) -> bool {
        Ingest::apply(self, now, record, arrival)
    }

    fn discard(&mut self, record: &SharedRecord) {
        self.latest.update(record.source.as_str(), |slot| {
            if slot.remove(record) {
                self.downstream.forget(record);
            }
        });
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.latest.get(source)
    }

    fn fingerprints(&self) -> [u64; SHARDS] {
        self.latest.fingerprints()
    }

    fn visit_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord)) {
        self.latest.scan_shard(shard, visit);
    }
}

#[cfg(test)]
mod tests;
