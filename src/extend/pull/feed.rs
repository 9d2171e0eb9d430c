//! The way of records from a pull source into the node: at a bounded rate, past what has not changed, and with the
//! figures of how it is doing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::mapped::{Mapped, PullDraft};
use super::pace::{PullBackoff, RecordPace};
use super::seen::Seen;
use super::target::PullTarget;
use crate::extend::state::StateWriter;
use crate::ingest::Accepted;
use crate::protocol::answer::Outcome;
use crate::protocol::refusal::Refusal;

/// Records after which the other tasks of the thread have their turn.
const RECORDS_A_TURN: usize = 64;
/// Interval at which the figures of the state are told while they change. An error is told at once.
const STATE_TELL: Duration = Duration::from_secs(5);
/// Time after which a state that could not be told is told again.
const STATE_RETRY: Duration = Duration::from_millis(200);
/// Time over which the rate of records is counted, in microseconds, as a number of [`STATE_TELL`].
const RATE_TELLS: usize = 2;
/// Bounds of the waits while the node accepts no records, in microseconds.
const REFUSED_US: (u64, u64) = (50_000, 1_000_000);

/// The way of the records of one pull source, and its figures.
pub(crate) struct Feed {
    target: Rc<dyn PullTarget>,
    state: Option<StateWriter>,
    pace: RefCell<RecordPace>,
    /// Present if records that have not changed are left out.
    seen: Option<RefCell<Seen>>,
    refused: RefCell<PullBackoff>,
    figures: RefCell<PullFigures>,
    has_succeeded: Cell<bool>,
    has_published: Cell<bool>,
}

/// PullFigures of one pull source since this member runs it.
#[derive(Debug, Default)]
struct PullFigures {
    records: u64,
    unchanged: u64,
    refused: u64,
    failed: u64,
    bytes: u64,
    slowed_us: u64,
    last_success: Option<u64>,
    last_error: Option<(String, u64)>,
    /// The present error, until the next success.
    error: Option<String>,
    /// Records at the last times at which the figures were told, the latest last.
    told_records: Vec<u64>,
}

impl Feed {
    /// A way into `target` of at most this many records a second. With `is_always`, records are published even if they
    /// have not changed.
    pub fn new(
        target: Rc<dyn PullTarget>,
        state: Option<StateWriter>,
        records_per_s_max: u64,
        is_always: bool,
    ) -> Feed {
        let now = target.now();
        Feed {
            pace: RefCell::new(RecordPace::new(records_per_s_max, now.mono_us)),
            seen: (!is_always).then(RefCell::default),
            refused: RefCell::new(PullBackoff::new(REFUSED_US.0, REFUSED_US.1, now.mono_us)),
            figures: RefCell::default(),
            has_succeeded: Cell::new(false),
            has_published: Cell::new(false),
            target,
            state,
        }
    }

    /// The node that the records go to.
    pub fn target(&self) -> &dyn PullTarget {
        &*self.target
    }

    /// The state of the pull source, if it is run by a node.
    pub fn state(&self) -> Option<&StateWriter> {
        self.state.as_ref()
    }

    /// Publishes all that was made of documents, and notes what went wrong with it. Waits while the node accepts no
    /// records, and as long as the bound on records a second demands. Returns whether all went well.
    pub async fn publish(&self, mapped: Mapped) -> bool {
        let (mut wrong, mut why) = (mapped.failed, mapped.failure);
        self.note_failed(mapped.failed);
        for (at, draft) in mapped.drafts.iter().enumerate() {
            if let Err(refusal) = self.publish_one(draft).await {
                wrong += 1;
                why.get_or_insert_with(|| format!("{}: {refusal}", draft.source));
            }
            self.take_turns(at).await;
        }
        self.note_outcome(wrong, why)
    }

    /// Lets the other tasks of the thread have their turn after some records. `at` counts them.
    pub async fn take_turns(&self, at: usize) {
        if at % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
            tokio::task::yield_now().await;
        }
    }

    /// Counts records that could not be made of documents.
    pub fn note_failed(&self, records: u64) {
        self.figures.borrow_mut().failed += records;
        self.target.counters().failed.add(records);
    }

    /// Tells the state, and waits until it is in the map, and so on its way to the disk before records that are published
    /// afterwards.
    pub async fn tell_surely(&self) {
        let Some(state) = &self.state else { return };
        while let Err(why) = self.target.tell_state(state) {
            self.fail(why);
            sleep(STATE_RETRY).await;
        }
    }

    /// Publishes a record that has a timestamp. With `may_restamp`, one that loses against a record of its source that is
    /// ahead of the clock is stamped by the node.
    pub async fn publish_stamped(&self, draft: &mut PullDraft, may_restamp: bool) -> Result<(), Refusal> {
        let accepted = self.publish_one(draft).await?;
        let is_stale = accepted.is_some_and(|accepted| matches!(accepted.outcome, Outcome::Stale { .. }));
        if may_restamp && is_stale {
            draft.ts = None;
            self.publish_one(draft).await?;
        }
        Ok(())
    }

    /// Notes how it went with documents of which so many records failed. Returns whether all went well.
    pub fn note_outcome(&self, wrong: u64, why: Option<String>) -> bool {
        let is_well = why.is_none();
        match why {
            None => self.succeed(),
            Some(why) if wrong == 1 => self.fail(why),
            Some(why) => self.fail(format!("{wrong} records failed, the first of them: {why}")),
        }
        is_well
    }

    /// Publishes one record, unless it has not changed. Returns `None` if it was left out.
    pub async fn publish_one(&self, draft: &PullDraft) -> Result<Option<Accepted>, Refusal> {
        if self.is_unchanged(draft) {
            self.figures.borrow_mut().unchanged += 1;
            self.target.counters().unchanged.add(1);
            return Ok(None);
        }
        let wait_us = self.pace.borrow_mut().take(self.target.now().mono_us);
        if wait_us > 0 {
            self.figures.borrow_mut().slowed_us += wait_us;
            self.target.counters().slowed.add(1);
            sleep(Duration::from_micros(wait_us)).await;
        }
        loop {
            let refusal = match self.target.is_congested() {
                true => None,
                false => match self.target.publish(draft) {
                    Ok(accepted) => {
                        self.note_published(draft);
                        return Ok(Some(accepted));
                    }
                    Err(refusal) if !refusal.code.is_temporary() => {
                        self.figures.borrow_mut().refused += 1;
                        self.target.counters().refused.add(1);
                        return Err(refusal);
                    }
                    Err(refusal) => Some(refusal),
                },
            };
            let wait_us = self.refused.borrow_mut().next_us();
            if let Some(refusal) = refusal {
                self.fail(format!("the node takes no records now: {refusal}"));
            }
            sleep(Duration::from_micros(wait_us)).await;
        }
    }

    fn is_unchanged(&self, draft: &PullDraft) -> bool {
        let Some(seen) = &self.seen else { return false };
        let mut seen = seen.borrow_mut();
        seen.is_same(draft).unwrap_or_else(|| {
            // Another member may have published it before this one became the runner.
            let is_latest = self.target.is_latest(draft);
            if is_latest {
                seen.remember(draft);
            }
            is_latest
        })
    }

    fn note_published(&self, draft: &PullDraft) {
        self.refused.borrow_mut().reset();
        if let Some(seen) = &self.seen {
            seen.borrow_mut().remember(draft);
        }
        let mut figures = self.figures.borrow_mut();
        figures.records += 1;
        figures.bytes += draft.data_bytes() as u64;
        let counters = self.target.counters();
        counters.published.add(1);
        counters.bytes.add(draft.data_bytes() as u64);
    }

    /// Notes that something was fetched and everything in it was published.
    pub fn succeed(&self) {
        let mut figures = self.figures.borrow_mut();
        figures.last_success = Some(self.target.now().wall_us);
        let was_wrong = figures.error.take().is_some();
        let has_records = figures.records > 0;
        drop(figures);
        let is_first = !self.has_succeeded.replace(true);
        // The first records are told at once too: whoever has put the definition waits for them.
        if was_wrong || is_first || (has_records && !self.has_published.replace(true)) {
            self.tell();
        }
    }

    /// Notes that something went wrong.
    pub fn fail(&self, why: String) {
        let now_us = self.target.now().wall_us;
        self.target.counters().errors.add(1);
        let mut figures = self.figures.borrow_mut();
        let is_new = figures.error.as_ref() != Some(&why);
        figures.last_error = Some((why.clone(), now_us));
        figures.error = Some(why);
        drop(figures);
        if is_new {
            self.tell();
        }
    }

    /// Returns the last error, if there was one.
    pub fn last_error(&self) -> Option<String> {
        self.figures.borrow().last_error.as_ref().map(|(why, _)| why.clone())
    }

    /// Tells the figures at intervals, for ever.
    pub async fn keep_telling(&self) {
        loop {
            sleep(STATE_TELL).await;
            self.tell();
            let mut figures = self.figures.borrow_mut();
            let records = figures.records;
            if figures.told_records.len() >= RATE_TELLS {
                figures.told_records.remove(0);
            }
            figures.told_records.push(records);
        }
    }

    fn tell(&self) {
        let Some(state) = &self.state else { return };
        let figures = self.figures.borrow();
        let before = figures.told_records.first().copied().unwrap_or(0);
        let seconds = STATE_TELL.as_secs_f64() * figures.told_records.len().max(1) as f64;
        let rate = (figures.records - before) as f64 / seconds;
        state.set("records_per_s", (rate * 10.0).round() / 10.0);
        state.set("records", figures.records);
        state.set("unchanged", figures.unchanged);
        state.set("refused", figures.refused);
        state.set("failed", figures.failed);
        state.set("bytes", figures.bytes);
        state.set("slowed_ms", figures.slowed_us / 1_000);
        state.set("last_success", figures.last_success);
        state.set("last_error", figures.last_error.as_ref().map(|(why, _)| why.as_str()));
        state.set("last_error_at", figures.last_error.as_ref().map(|(_, at)| *at));
        state.set_error(figures.error.as_deref());
    }
}
