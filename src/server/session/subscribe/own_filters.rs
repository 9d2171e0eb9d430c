//! The filters of one connection, by the slots under which the index lists their subscriptions.

use crate::expression::SharedExpression;
use crate::latest::Change;
use crate::limits::{FILTERS_PER_CONNECTION_MAX, INTRICATE_FILTERS_PER_CONNECTION_MAX};
use crate::protocol::refusal::{Code, Refusal};
use crate::protocol::token::filter_key;
use crate::record::Record;
use crate::server::session::encode::EncodedChange;
use crate::server::session::filters::{FilterId, FilterTable};
use crate::server::session::names::name_key;
use crate::server::session::snapshot::JobFilter;
use crate::subscriptions::{FilterSlot, SLOT_MAX, SlotSet};

const _: () = assert!(FILTERS_PER_CONNECTION_MAX == SLOT_MAX as usize);

/// Steps of a scan that the evaluation of a filter counts as.
const STEPS: usize = 4;
/// Steps of a scan that the evaluation of a filter counts as whose work may grow with the data.
const INTRICATE_STEPS: usize = 64;

/// The filters of a connection that has any.
#[derive(Debug, Default)]
pub(super) struct OwnFilters {
    /// The filters at their slots, from slot 1 on.
    filters: Vec<Option<OwnFilter>>,
    /// The slots of all subscriptions, with that for no filter.
    used: SlotSet,
    /// Bytes of the filters that are counted for this connection.
    held_bytes: usize,
}

#[derive(Debug)]
struct OwnFilter {
    id: FilterId,
    expression: SharedExpression,
    /// Whether a snapshot for it is on its way.
    is_scanning: bool,
}

/// What the filters of a connection say of a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnVerdict {
    /// The slots of subscriptions that are sent the record.
    pub(super) is: SlotSet,
    /// The slots of subscriptions that show the source from before.
    pub(super) was: SlotSet,
}

impl OwnFilters {
    fn slots(&self) -> impl Iterator<Item = (FilterSlot, &OwnFilter)> {
        let numbered = self.filters.iter().enumerate();
        numbered.filter_map(|(at, filter)| Some((FilterSlot::new(at + 1)?, filter.as_ref()?)))
    }

    /// Adds a filter, unless the connection has it.
    pub(super) fn enter(
        &mut self,
        table: &mut FilterTable,
        expression: &SharedExpression,
    ) -> Result<JobFilter, Refusal> {
        let key = filter_key(expression.text());
        if let Some((slot, _)) = self.slots().find(|(_, own)| own.expression.text() == expression.text()) {
            return Ok(JobFilter { slot, key });
        }
        let intricate = self.slots().filter(|(_, own)| own.expression.is_intricate()).count();
        if expression.is_intricate() && intricate >= INTRICATE_FILTERS_PER_CONNECTION_MAX {
            let message = format!(
                "a connection has at most {INTRICATE_FILTERS_PER_CONNECTION_MAX} filters with macros, regular \
                 expressions or other work that grows with the data"
            );
            return Err(Refusal::new(Code::BadRequest, message));
        }
        let free = self.filters.iter().position(Option::is_none).unwrap_or(self.filters.len());
        let Some(slot) = FilterSlot::new(free + 1) else {
            let message =
                format!("a connection has at most {FILTERS_PER_CONNECTION_MAX} filters that differ");
            return Err(Refusal::new(Code::BadRequest, message));
        };
        let own =
            OwnFilter { id: table.enter(expression)?, expression: expression.clone(), is_scanning: false };
        match self.filters.get_mut(free) {
            Some(place) => *place = Some(own),
            None => self.filters.push(Some(own)),
        }
        Ok(JobFilter { slot, key })
    }

    /// Follows the subscriptions of the connection: `used` are the slots of all of them, and `scanning` those of the
    /// ones that are starting. Filters that none has any more are given up.
    pub(super) fn follow(&mut self, table: &mut FilterTable, used: SlotSet, scanning: SlotSet) {
        self.used = used;
        for (at, place) in self.filters.iter_mut().enumerate() {
            let (Some(own), Some(slot)) = (&mut *place, FilterSlot::new(at + 1)) else { continue };
            let is_scanning = scanning.contains(slot);
            if std::mem::replace(&mut own.is_scanning, is_scanning) != is_scanning {
                table.count_scan(own.id, is_scanning);
            }
            if !used.contains(slot) {
                table.leave(own.id);
                *place = None;
            }
        }
        while self.filters.pop_if(|last| last.is_none()).is_some() {}
        self.count(table);
    }

    /// Counts what the filters hold for this connection by now.
    pub(super) fn count(&mut self, table: &FilterTable) {
        let shared: usize = self.slots().map(|(_, own)| table.share_bytes(own.id)).sum();
        self.held_bytes = shared + self.filters.capacity() * size_of::<OwnFilter>();
    }

    /// Returns how many bytes the filters hold for this connection, as they were counted last.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// The slots of all subscriptions.
    pub(super) fn used(&self) -> SlotSet {
        self.used
    }

    /// Returns whether all subscriptions have the same filter.
    pub(super) fn is_uniform(&self) -> bool {
        self.used.iter().nth(1).is_none()
    }

    /// Judges a change by all filters. Each must judge every change, whether it is sent or not.
    pub(super) fn judge(
        &self,
        table: &mut FilterTable,
        frames: &mut EncodedChange,
        change: &Change,
    ) -> OwnVerdict {
        let (mut is, mut was) = (SlotSet::UNFILTERED, SlotSet::default());
        for (slot, own) in self.slots() {
            let verdict = table.judge(own.id, frames, change);
            if verdict.is {
                is.insert(slot);
            }
            if verdict.was {
                was.insert(slot);
            }
        }
        OwnVerdict { is, was }
    }

    /// Judges a record that a scan for the filter of `job` has found by all filters. Returns those that are true.
    pub(super) fn judge_scanned(&self, table: &mut FilterTable, job: FilterSlot, record: &Record) -> SlotSet {
        let key = name_key(record.source.as_str());
        let mut is = SlotSet::UNFILTERED;
        for (slot, own) in self.slots() {
            if table.judge_scanned(own.id, record, key, slot == job) {
                is.insert(slot);
            }
        }
        is
    }

    /// Steps of a scan that judging one record counts as.
    pub(super) fn steps(&self) -> usize {
        self.slots().map(|(_, own)| if own.expression.is_intricate() { INTRICATE_STEPS } else { STEPS }).sum()
    }
}
