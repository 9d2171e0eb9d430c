//! The way of a record: from a client or a peer, through the merge, to the store, the subscribers and the
//! cluster.
//!
//! A client's draft passes the [`gate`] and is merged by [`Ingest::publish`]; a peer's record, which the node
//! that accepted it has let in, by [`Ingest::apply`]. Both end in the same few lines. Everything that must
//! keep the order of a source's records happens under the lock of its shard, and only writes to memory: the
//! record gets its sequence number, and is pushed into the cluster's queue, the store's queue and the
//! workers' mailboxes.

mod downstream;
mod far_ahead;
mod gate;
mod revised;
mod stamping;
mod terms;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use self::far_ahead::FarAheadLog;
use self::gate::{Admitted, Entrant, Gate};
use self::stamping::{no_ts_left, stamp_of};
use crate::auth::PublishRights;
use crate::cluster::outbox::Outbox;
use crate::cluster::{Arrival, Replica};
use crate::latest::{Due, Guard, Latest, Slot, Swept};
use crate::limits::{OUTBOX_BYTES_SOFT, SHARDS};
use crate::metrics::{Counter, Metrics};
use crate::protocol::answer::Outcome;
use crate::protocol::draft::Draft;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::merge::Verdict;
use crate::record::{Now, Payload, Record, SharedRecord, Source, Stamp, next_ts};

pub use self::downstream::Downstream;
pub(crate) use self::gate::{RevisedDraft, Reviser, Revision};
pub use self::terms::{Accepted, Bounds};
pub use crate::latest::Change;

/// Most sources that one publish lets go when the map is full, so that it takes at most a fraction of a
/// millisecond.
const RELIEVED_PER_PUBLISH: usize = 64;
/// Most sources that one sweep lets go when the map is full.
const RELIEVED_PER_SWEEP: usize = 16_384;

/// The map, the gate before it, and the queue to the cluster behind it. Records go on from there into the
/// downstream `D`.
pub struct Ingest<D> {
    latest: Latest,
    outbox: Mutex<Outbox>,
    outbox_bytes: Arc<AtomicUsize>,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    downstream: D,
    gate: Gate,
    far_ahead: FarAheadLog,
}

impl<D: Downstream> Ingest<D> {
    /// Makes an empty map whose records go to `outbox` and `downstream`. Clients must not be able to guess the
    /// `seed` of the map's hashes.
    pub fn new(bounds: Bounds, outbox: Outbox, metrics: Arc<Metrics>, downstream: D, seed: u64) -> Ingest<D> {
        let outbox_bytes = outbox.told_bytes();
        Ingest {
            latest: Latest::seeded(seed),
            gate: Gate::new(bounds.record_bytes_max, outbox_bytes.clone()),
            outbox_bytes,
            outbox: Mutex::new(outbox),
            bounds,
            metrics,
            downstream,
            far_ahead: FarAheadLog::default(),
        }
    }

    /// Publishes a client's draft: it is stamped, judged, numbered, delivered, stored and queued for the
    /// cluster. Refusals are counted by whoever answers them.
    pub fn publish(&self, now: Now, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        self.publish_or_await(now, draft, None, None, |_| Ok(()))
    }

    /// Publishes a client's draft as [`Ingest::publish`] does, if these rights allow it.
    pub(crate) fn publish_by(
        &self,
        now: Now,
        draft: &Draft<'_>,
        rights: Option<&PublishRights>,
    ) -> Result<Accepted, Refusal> {
        self.publish_or_await(now, draft, rights, None, |_| Ok(()))
    }

    /// Publishes a client's draft whose answer waits until every live member holds the record or a newer one.
    /// The cluster machine reports under `token` when that is so, or that it was not so in time.
    pub(crate) fn publish_awaited(
        &self,
        now: Now,
        draft: &Draft<'_>,
        rights: Option<&PublishRights>,
        token: u64,
    ) -> Result<Accepted, Refusal> {
        self.publish_or_await(now, draft, rights, Some(token), |_| Ok(()))
    }

    /// Publishes a client's draft as [`Ingest::publish_by`] or, with a `token`, [`Ingest::publish_awaited`] does, if
    /// `check` lets it pass. `check` is shown the latest record of the source, under the lock of its shard, so nothing
    /// comes between the check and the publish at this node.
    pub(crate) fn publish_if(
        &self,
        now: Now,
        draft: &Draft<'_>,
        (rights, token): (Option<&PublishRights>, Option<u64>),
        check: impl Fn(Option<&Record>) -> Result<(), Refusal>,
    ) -> Result<Accepted, Refusal> {
        self.publish_or_await(now, draft, rights, token, check)
    }

    fn publish_or_await(
        &self,
        now: Now,
        draft: &Draft<'_>,
        rights: Option<&PublishRights>,
        token: Option<u64>,
        check: impl Fn(Option<&Record>) -> Result<(), Refusal>,
    ) -> Result<Accepted, Refusal> {
        let applied = Some(&self.metrics.publishes_applied);
        let entrant = Entrant { now, draft, rights, downstream: &self.downstream };
        let published = self.gate.admit(&entrant).and_then(|admitted| match admitted {
            Admitted::AsSent(draft) => self.merge_draft(now, draft, token, applied, check),
            Admitted::Revised(made) => {
                revised::merge_all(now, draft, &made, |draft, is_first| match is_first {
                    true => self.merge_draft(now, draft, token, applied, &check),
                    false => self.merge_draft(now, draft, None, applied, |_| Ok(())),
                })
            }
        });
        let in_vain = match published.as_ref().map(|accepted| accepted.outcome) {
            Ok(Outcome::Duplicate) => Verdict::Same,
            Ok(Outcome::Stale { .. }) => Verdict::Older,
            Ok(Outcome::Applied | Outcome::Dropped) | Err(_) => return published,
        };
        self.metrics.publishes_in_vain.increment();
        self.count(&in_vain);
        published
    }

    /// Publishes a record that the cluster has held before. It passes the guards of the gate, but no middleware: these have
    /// seen it when it was published first, and must not change it again.
    pub(crate) fn restore(&self, now: Now, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        self.gate.check(&Entrant { now, draft, rights: None, downstream: &self.downstream })?;
        self.merge_draft(now, draft, None, Some(&self.metrics.publishes_applied), |_| Ok(()))
    }

    /// Publishes a record of the node itself, under a name that clients may not publish to. It does not
    /// pass the gate, and is not counted among the clients' publishes.
    pub(crate) fn tell(&self, now: Now, draft: &Draft<'_>) -> Result<Accepted, Refusal> {
        self.merge_draft(now, draft, None, None, |_| Ok(()))
    }

    /// Judges a draft that `check` lets pass, and applies it if it wins; `applied` then counts it. With a `token`, the cluster
    /// machine is asked to report under it when every member holds the winner.
    fn merge_draft(
        &self,
        now: Now,
        draft: &Draft<'_>,
        token: Option<u64>,
        applied: Option<&Counter>,
        check: impl Fn(Option<&Record>) -> Result<(), Refusal>,
    ) -> Result<Accepted, Refusal> {
        let unstamped = stamp_of(0, &draft.payload);
        if self.latest.bytes() > self.bounds.map_bytes_max {
            self.relieve(now, RELIEVED_PER_PUBLISH);
        }
        self.latest.update(&draft.source, |slot| {
            let (current, guard) = (slot.current(), slot.guard());
            check(current.map(|record| &**record))?;
            let ts = match draft.ts {
                Some(ts) => ts,
                None => {
                    let latest = current.map(|record| record.stamp.ts).or(guard.as_ref().map(Guard::ts));
                    next_ts(now, latest).ok_or_else(no_ts_left)?
                }
            };
            let stamp = Stamp { ts, ..unstamped };
            if let Some(guard) = guard
                && !guard.judge(&stamp).replaces()
            {
                return self.lose_to_guard(now, slot, &draft.source, (stamp, guard), token);
            }
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
            #[cfg(feature = "planted-bugs")]
            if crate::planted::loses_record() {
                return Ok(Accepted { ts, outcome: Outcome::Applied, ticket: 0 });
            }
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

    /// Answers a publish that is older than the value of its source that has expired, or is that value. The value
    /// was stored when it was published.
    #[cold]
    fn lose_to_guard(
        &self,
        now: Now,
        slot: &mut Slot<'_>,
        name: &str,
        (stamp, guard): (Stamp, Guard),
        token: Option<u64>,
    ) -> Result<Accepted, Refusal> {
        let is_same = guard.judge(&stamp) == Verdict::Same;
        let outcome = if is_same { Outcome::Duplicate } else { Outcome::Stale { current_ts: guard.ts() } };
        let mut ticket = 0;
        if let Some(token) = token {
            // Members cannot be asked for a record that nobody has any more, but for one that tells its end.
            let source =
                Source::parse(name).map_err(|error| Refusal::new(Code::BadSource, error.to_string()))?;
            let (record, end_ticket) = self.tell_end(now, slot, source, guard);
            self.outbox.lock().await_everywhere(token, &record, true);
            ticket = end_ticket;
        }
        Ok(Accepted { ts: stamp.ts, outcome, ticket })
    }

    /// Publishes that the value of a source has ended: as a deletion with the value's timestamp, which is what
    /// subscribers have been told already. It takes the place of the guard. Returns the record and the store's
    /// ticket.
    fn tell_end(&self, now: Now, slot: &mut Slot<'_>, source: Source, guard: Guard) -> (SharedRecord, u64) {
        let stamp = Stamp::of_deletion(guard.ts());
        let build = |birth| Record::new(source, stamp, Payload::Deleted, birth, now.wall_us, 0);
        let record = self.outbox.lock().accept(build);
        slot.replace_silently(&record, now.wall_us, self.bounds.tombstones_us);
        let ticket = self.downstream.store(&record);
        (record, ticket)
    }

    /// Judges a record that a peer brought; if it wins, it is delivered and stored. Returns whether it won. A
    /// record whose timestamp is more than a day ahead is refused.
    pub(crate) fn apply(&self, now: Now, record: SharedRecord, arrival: Arrival) -> bool {
        if record.is_far_ahead(now.wall_us) {
            self.metrics.records_far_ahead.increment();
            self.far_ahead.note(now, &record, self.metrics.records_far_ahead.get());
            return false;
        }
        self.merge(now, record, arrival)
    }

    /// Judges a record that the store showed late, when clients were served already; if it wins, it is
    /// delivered. What was stored once is taken again, however far ahead its timestamp is.
    pub(crate) fn load_late(&self, now: Now, record: Record) {
        self.merge(now, Arc::new(record), Arrival::Reconcile);
    }

    /// Judges a record that no client of this node brought; if it wins, it is delivered and stored. Returns
    /// whether it won.
    fn merge(&self, now: Now, record: SharedRecord, arrival: Arrival) -> bool {
        #[cfg(feature = "planted-bugs")]
        if crate::planted::ignores(record.stamp.deleted) {
            return false;
        }
        let collect_us = record.collect_us(self.bounds.tombstones_us);
        if collect_us.is_some_and(|at| at <= now.wall_us) {
            return false;
        }
        let source = record.source.clone();
        let accepted_us = record.accepted_us;
        let verdict = self.latest.update(source.as_str(), |slot| {
            let verdict = slot.judge(&record);
            match verdict {
                Verdict::Newer => {
                    self.take(now, slot, record);
                }
                Verdict::SameOfGreaterBirth => {
                    slot.replace_silently(&record, now.wall_us, self.bounds.tombstones_us);
                    self.downstream.store(&record);
                }
                Verdict::Older if arrival == Arrival::Reconcile => self.correct(now, slot, &record),
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

    /// Tells the cluster that a value has ended, if a peer shows an older one that readers there still see. The
    /// peer never got the value that ended, and nobody can send it any more.
    fn correct(&self, now: Now, slot: &mut Slot<'_>, record: &SharedRecord) {
        // If too much waits already, the peer is corrected when it shows its record again.
        let has_room = || self.outbox_bytes() < OUTBOX_BYTES_SOFT;
        if let Some(guard) = slot.guard()
            && record.is_visible(now.wall_us)
            && has_room()
        {
            self.tell_end(now, slot, record.source.clone(), guard);
        }
    }

    /// Counts a record by the verdict on it.
    fn count(&self, verdict: &Verdict) {
        let counter = match verdict {
            Verdict::Newer => &self.metrics.peers_applied,
            Verdict::Same | Verdict::SameOfGreaterBirth => &self.metrics.records_duplicate,
            Verdict::Older => &self.metrics.records_stale,
        };
        counter.increment();
    }

    /// Merges a record that the store kept, without delivering or storing it.
    pub(crate) fn load(&self, now: Now, record: Record) {
        let record = Arc::new(record);
        let source = record.source.clone();
        self.latest.update(source.as_str(), |slot| {
            if slot.judge(&record).replaces() {
                slot.replace_silently(&record, now.wall_us, self.bounds.tombstones_us);
            }
        });
    }

    /// Handles that the store is loaded. If that nearly fills the map, the node was short of memory before, too, and
    /// has let names go that its store does not know any more.
    pub(crate) fn handle_loaded(&self, now: Now) {
        if self.latest.bytes() > self.bounds.map_bytes_max / 8 * 7 {
            self.latest.lose_names(now.wall_us);
        }
    }

    /// Makes a record the latest of its source, and passes it to the store and to subscribers, in the order
    /// of the source's records. Returns the store's ticket.
    fn take(&self, now: Now, slot: &mut Slot<'_>, record: SharedRecord) -> u64 {
        if let Some(guard) = slot.guard()
            && (record.stamp.ts, record.stamp.deleted) == (guard.ts(), true)
        {
            // Subscribers were told this deletion when the value expired.
            slot.replace_silently(&record, now.wall_us, self.bounds.tombstones_us);
            return self.downstream.store(&record);
        }
        let change = slot.replace(record, now.wall_us, self.bounds.tombstones_us);
        let ticket = self.downstream.store(&change.record);
        self.downstream.deliver(change);
        ticket
    }

    /// Makes the name of a source that the map does not hold yet. Refuses it if the map is full.
    fn new_source(&self, name: &str) -> Result<Source, Refusal> {
        let allowed = self.bounds.map_bytes_max;
        if self.latest.bytes() > allowed {
            let message = format!("the map is full ({allowed} bytes): no new source is taken");
            return Err(Refusal::new(Code::Overloaded, message));
        }
        Source::parse(name).map_err(|error| Refusal::new(Code::BadSource, error.to_string()))
    }

    /// Reports records that have expired to subscribers and, if it `may_collect`, drops deletions and expired
    /// records that were kept for long enough. Handles up to `budget` records of each shard. If the map is full,
    /// gives memory back. Returns the wall clock, in microseconds, at which the next record is due.
    pub(crate) fn sweep(&self, now: Now, may_collect: bool, budget: usize) -> Option<u64> {
        let (wall_us, tombstones_us) = (now.wall_us, self.bounds.tombstones_us);
        let due = Due { wall_us, tombstones_us, may_collect, budget };
        self.relieve(now, RELIEVED_PER_SWEEP);
        let shards = 0..SHARDS;
        shards
            .filter_map(|shard| self.latest.sweep_shard(shard, due, &mut |swept| self.tell_swept(now, swept)))
            .min()
    }

    /// If the map is full, lets go of what only guards against older values, of at most `budget` sources.
    fn relieve(&self, now: Now, budget: usize) {
        let (wall_us, tombstones_us) = (now.wall_us, self.bounds.tombstones_us);
        let due = Due { wall_us, tombstones_us, may_collect: true, budget };
        self.latest.relieve(self.bounds.map_bytes_max, due, &mut |swept| self.tell_swept(now, swept));
    }

    fn tell_swept(&self, now: Now, swept: Swept) {
        match swept {
            Swept::Expired(change) => self.downstream.deliver(change),
            Swept::Collected(record) => self.downstream.forget(now, &record),
        }
    }

    /// The map of the latest records.
    pub(crate) fn latest(&self) -> &Latest {
        &self.latest
    }

    /// The place where applied records go.
    pub fn downstream(&self) -> &D {
        &self.downstream
    }

    /// The queue of this node's records on their way to the cluster machine.
    pub fn outbox(&self) -> &Mutex<Outbox> {
        &self.outbox
    }

    /// Number of bytes that wait in the outbox. Does not lock it.
    pub(crate) fn outbox_bytes(&self) -> usize {
        self.outbox_bytes.load(Relaxed)
    }

    /// Sets whether this node's clock is too far off its peers' clocks. Publishes are refused meanwhile.
    pub(crate) fn set_skewed(&self, is_skewed: bool) {
        self.gate.set_skewed(is_skewed);
    }

    /// Sets whether this node's clock has been compared with a member's. Publishes are refused until then; a node
    /// that is never told counts as compared.
    pub(crate) fn set_clock_compared(&self, is_compared: bool) {
        self.gate.set_clock_compared(is_compared);
    }

    /// Lets this change clients' drafts before they are judged from now on, or nothing.
    pub(crate) fn set_reviser(&self, reviser: Option<Arc<dyn Reviser>>) {
        self.gate.set_reviser(reviser);
    }

    /// Refuses every publish from now on, because the node shuts down.
    pub(crate) fn set_draining(&self) {
        self.gate.set_draining();
    }
}

/// The map as the cluster machine sees it.
impl<D: Downstream> Replica for &Ingest<D> {
    fn apply(&mut self, now: Now, record: SharedRecord, arrival: Arrival) -> bool {
        Ingest::apply(self, now, record, arrival)
    }

    fn discard(&mut self, now: Now, record: &SharedRecord) {
        self.latest.update(record.source.as_str(), |slot| {
            if slot.remove(record) {
                self.downstream.forget(now, record);
            }
        });
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.latest.get(source)
    }

    fn holds(&self, source: &str, stamp: Stamp) -> bool {
        self.latest.holds(source, stamp)
    }

    fn fingerprints(&self) -> [u64; SHARDS] {
        self.latest.fingerprints()
    }

    fn visit_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord)) {
        self.latest.scan_shard(shard, visit);
    }
}

#[cfg(test)]
mod revision_tests;
#[cfg(test)]
mod tests;
