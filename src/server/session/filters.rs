//! The filters of all connections of one worker.
//!
//! Those who use the same text share one expression, which is evaluated once for a change, whoever asks first. The
//! worker also remembers for each filter which sources it is true of, as hashes of their names. A change of a source
//! from which it is not true any longer is told to the subscribers that show the source (`gone`). What a filter is true
//! of is the same for all of them, so it need not be remembered for each connection: 10,000 tables with the same filter
//! over 100,000 sources hold two megabytes together.
//!
//! Three things make that right:
//!
//! - Changes reach the connections of a worker in one order, and every connection with a filter judges all of them. So
//!   whoever asks first learns what the filter was before the change, and all others are told the same.
//! - The scan of a snapshot adds the sources that it sends. It may be ahead of the changes that are on their way
//!   through the mailbox: then a source may be told to be gone once too often, to a subscriber that does not show it,
//!   but never once too seldom, because the change that the scan has seen comes later.
//! - When the mailbox has dropped changes while such a scan was on its way, that change may not come. From then on the
//!   filter remembers the sources that it is *not* true of, and takes all others for shown.
//!
//! Rejected: the same for each connection, because it needs as much memory as there are rows in all tables together;
//! and to judge the record that a change replaces, because the map has let go of it by then.

use hashbrown::HashMap;
use slab::Slab;

use super::encode::EncodedChange;
use super::names::Names;
use crate::expression::{Expression, ExpressionData, SharedExpression, Variables};
use crate::latest::Change;
use crate::limits::{FILTER_PARTS_PER_WORKER_MAX, INTRICATE_FILTERS_PER_WORKER_MAX};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::hash::NameState;
use crate::record::{Payload, Record};

/// Evaluations for one change after which its data is converted as a whole: the next ones look up their paths there.
const LOOKUPS_BEFORE_CONVERSION: u32 = 3;

/// The number of a filter in the table of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FilterId(usize);

/// What a filter says of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FilterVerdict {
    /// Whether the record is sent for this filter.
    pub(super) is: bool,
    /// Whether the source was shown for this filter before.
    pub(super) was: bool,
}

/// The filters of a worker.
#[derive(Debug, Default)]
pub struct FilterTable {
    filters: Slab<SharedFilter>,
    by_text: HashMap<Box<str>, usize, NameState>,
    /// Parts of all filters together.
    parts: usize,
    /// Number of the filters whose work may grow with the data.
    intricate: usize,
    /// Number of the run of changes that is handed out.
    run: u64,
    counts: FilterCounts,
}

/// What filters did since the worker last took the count.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilterCounts {
    /// Number of evaluations.
    pub evaluations: u64,
    /// Number of evaluations without a result.
    pub errors: u64,
    /// Number of records that were not sent to a subscriber because of its filters.
    pub skipped: u64,
}

/// A filter and those who use it.
#[derive(Debug)]
struct SharedFilter {
    expression: SharedExpression,
    /// Number of connections that use the filter.
    users: usize,
    /// Number of snapshots for it that are on their way.
    scans: usize,
    shown: ShownNames,
    /// The verdicts for the changes of the present run, by their place in it.
    verdicts: Vec<Option<FilterVerdict>>,
    /// The run that the verdicts are of.
    run: u64,
}

/// The sources of which a filter is true.
#[derive(Debug, Default)]
struct ShownNames {
    names: Names,
    /// Whether the names are those of which the filter is not true, and it is taken to be true of all others.
    are_exceptions: bool,
}

impl ShownNames {
    /// Notes whether the filter is true of a source. Returns whether it was before.
    fn note(&mut self, key: u64, is: bool) -> bool {
        let was_there = match is == self.are_exceptions {
            true => self.names.remove(&key),
            false => !self.names.insert(key),
        };
        // The name was there before if it was removed now, or if it could not be inserted.
        was_there != self.are_exceptions
    }
}

impl FilterTable {
    /// Adds a user of a filter.
    pub(super) fn enter(&mut self, expression: &SharedExpression) -> Result<FilterId, Refusal> {
        if let Some(at) = self.by_text.get(expression.text())
            && let Some(filter) = self.filters.get_mut(*at)
        {
            filter.users += 1;
            return Ok(FilterId(*at));
        }
        let parts = self.parts + expression.parts();
        let intricate = self.intricate + usize::from(expression.is_intricate());
        if parts > FILTER_PARTS_PER_WORKER_MAX || intricate > INTRICATE_FILTERS_PER_WORKER_MAX {
            let message = "the filters of all clients together have as many parts as they may";
            return Err(Refusal::new(Code::Overloaded, message));
        }
        (self.parts, self.intricate) = (parts, intricate);
        let at = self.filters.insert(SharedFilter {
            expression: expression.clone(),
            users: 1,
            scans: 0,
            shown: ShownNames::default(),
            verdicts: Vec::new(),
            run: 0,
        });
        self.by_text.insert(expression.text().into(), at);
        Ok(FilterId(at))
    }

    /// Takes a user of a filter away. With the last one, the filter is forgotten.
    pub(super) fn leave(&mut self, id: FilterId) {
        let Some(filter) = self.filters.get_mut(id.0) else { return };
        filter.users -= 1;
        if filter.users == 0 {
            let filter = self.filters.remove(id.0);
            self.by_text.remove(filter.expression.text());
            self.parts -= filter.expression.parts();
            self.intricate -= usize::from(filter.expression.is_intricate());
        }
    }

    /// Takes the counts, and returns them with the number of filters that differ.
    pub fn take_counts(&mut self) -> (FilterCounts, usize) {
        (std::mem::take(&mut self.counts), self.filters.len())
    }

    /// Notes that a record is not sent to a subscriber because of its filters.
    pub(super) fn note_skipped(&mut self) {
        self.counts.skipped += 1;
    }

    /// Returns how many bytes a filter holds for one of its users: all together hold the whole.
    pub(super) fn share_bytes(&self, id: FilterId) -> usize {
        self.filters.get(id.0).map_or(0, |filter| {
            let shared = filter.expression.held_bytes() + filter.shown.names.allocation_size();
            (shared + size_of::<SharedFilter>()) / filter.users.max(1)
        })
    }

    /// Notes that a snapshot for a filter begins (`true`) or ends.
    pub(super) fn count_scan(&mut self, id: FilterId, begins: bool) {
        if let Some(filter) = self.filters.get_mut(id.0) {
            filter.scans = if begins { filter.scans + 1 } else { filter.scans.saturating_sub(1) };
        }
    }

    /// Begins a run of changes. To be called before changes are handed out whose [`EncodedChange`]s were used before.
    pub fn begin_run(&mut self) {
        self.run += 1;
    }

    /// Notes that the mailbox has dropped changes.
    pub fn handle_overflow(&mut self) {
        for (_, filter) in self.filters.iter_mut().filter(|(_, filter)| filter.scans > 0) {
            filter.shown = ShownNames { names: Names::default(), are_exceptions: true };
        }
    }

    /// Judges a change by a filter.
    pub(super) fn judge(
        &mut self,
        id: FilterId,
        frames: &mut EncodedChange,
        change: &Change,
    ) -> FilterVerdict {
        let nothing = FilterVerdict { is: false, was: false };
        let Some(filter) = self.filters.get_mut(id.0) else { return nothing };
        if std::mem::replace(&mut filter.run, self.run) != self.run {
            filter.verdicts.clear();
        }
        if let Some(Some(verdict)) = filter.verdicts.get(frames.place()) {
            return *verdict;
        }
        // Nobody else asks for the verdicts of a filter with one user.
        let is_shared = filter.users > 1;
        // Deletions are always sent, and what is deleted is not shown any longer.
        let is_deletion = change.record.stamp.deleted || change.is_expiry;
        let is_true = !is_deletion && {
            self.counts.evaluations += 1;
            let result = judged(&filter.expression, &change.record, Some(&mut *frames));
            self.counts.errors += u64::from(result.is_none());
            result.unwrap_or(false)
        };
        let was = filter.shown.note(frames.key(change), is_true);
        let verdict = FilterVerdict { is: is_true || is_deletion, was };
        if is_shared {
            let place = frames.place();
            if filter.verdicts.len() <= place {
                filter.verdicts.resize(place + 1, None);
            }
            if let Some(slot) = filter.verdicts.get_mut(place) {
                *slot = Some(verdict);
            }
        }
        verdict
    }

    /// Judges a record that the scan of a snapshot has found, which is no deletion. `shows` says that the record is sent,
    /// or that the subscriber has it, if the filter is true.
    pub(super) fn judge_scanned(&mut self, id: FilterId, record: &Record, key: u64, shows: bool) -> bool {
        let Some(filter) = self.filters.get_mut(id.0) else { return false };
        self.counts.evaluations += 1;
        let result = judged(&filter.expression, record, None);
        self.counts.errors += u64::from(result.is_none());
        let is_true = result.unwrap_or(false);
        if is_true && shows {
            filter.shown.note(key, true);
        }
        is_true
    }
}

/// Evaluates a filter; `None` if it has no result. With many filters, the data of a change is converted once for all.
fn judged(expression: &Expression, record: &Record, frames: Option<&mut EncodedChange>) -> Option<bool> {
    let json;
    let data = match &record.payload {
        Payload::Json(bytes) => {
            json = str::from_utf8(bytes).ok()?;
            match frames.and_then(|frames| frames.converted(json, LOOKUPS_BEFORE_CONVERSION)) {
                Some(converted) => ExpressionData::converted(converted),
                None => ExpressionData::json(json),
            }
        }
        Payload::Binary(bytes) => ExpressionData::bytes(bytes),
        Payload::Deleted => ExpressionData::nothing(),
    };
    let Record { source, stamp, .. } = record;
    let variables = Variables::of_record(source.as_str(), &data, stamp.ts, stamp.deleted);
    expression.is_true(&variables).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Either way of remembering says the same of what was noted.
        #[test]
        fn what_is_noted_is_remembered(
            notes in proptest::collection::vec((0u64..4, any::<bool>()), 1..30),
            are_exceptions in any::<bool>(),
        ) {
            let mut shown = ShownNames { names: Names::default(), are_exceptions };
            let mut truth = [are_exceptions; 4];
            for (key, is) in notes {
                let was = std::mem::replace(&mut truth[key as usize], is);
                prop_assert_eq!(shown.note(key, is), was);
            }
            let kept = truth.iter().filter(|is| **is != are_exceptions).count();
            prop_assert!(shown.names.len() == kept, "nothing else is kept");
        }
    }

    /// A scan may have seen a change that the mailbox has then dropped. Nobody is left with a row that does not match.
    #[test]
    fn after_an_overflow_during_a_scan_what_is_not_known_counts_as_shown() {
        let mut table = FilterTable::default();
        let expression = SharedExpression::filter("data > 1").expect("a filter");
        let id = table.enter(&expression).expect("entered");
        table.handle_overflow();
        assert!(!table.filters[id.0].shown.note(7, false), "without a scan nothing is lost");
        table.count_scan(id, true);
        table.handle_overflow();
        let shown = &mut table.filters[id.0].shown;
        assert!(
            shown.note(7, false) && !shown.note(7, false) && !shown.note(7, true) && shown.note(7, false)
        );
    }

    #[test]
    fn filters_of_a_worker_are_bounded() {
        let mut table = FilterTable::default();
        let enter =
            |table: &mut FilterTable, text: &str| table.enter(&SharedExpression::filter(text).expect(text));
        let intricate = |number: usize| format!("data.all(x, x > {number})");
        let ids: Vec<FilterId> = (0..INTRICATE_FILTERS_PER_WORKER_MAX)
            .map(|number| enter(&mut table, &intricate(number)).expect("within the bound"))
            .collect();
        let refused = enter(&mut table, &intricate(1_000)).expect_err("one too many");
        assert_eq!(refused.code, Code::Overloaded);
        assert!(enter(&mut table, &intricate(0)).is_ok(), "one that is there costs nothing more");
        ids.iter().for_each(|id| table.leave(*id));
        assert!(enter(&mut table, &intricate(1_000)).is_ok());
        let long = |number: usize| format!("data in [{number}{}]", ",1".repeat(1_000));
        let entered = (0..1_000).take_while(|number| enter(&mut table, &long(*number)).is_ok()).count();
        assert!((250..270).contains(&entered), "{entered}");
        assert!(table.parts <= FILTER_PARTS_PER_WORKER_MAX);
    }
}
