//! Joins the records that wait for the store with those that are in it into one page of a history.

use crate::record::{HistoryCursor, HistoryPage, HistoryQuery, Record, SharedRecord};

/// Joins the records of a source that wait (`unwritten`) with those that were read (`written`) into
/// one page. There is a next page if more than `query.limit` records are selected, so whoever reads
/// should ask for one more than that.
pub(super) fn page(query: &HistoryQuery, unwritten: &[SharedRecord], written: Vec<Record>) -> HistoryPage {
    let waiting =
        unwritten.iter().filter(|record| query.selects(record.stamp)).map(|record| (**record).clone());
    let mut records: Vec<Record> = waiting.chain(written).collect();
    // The sort is stable: of two equal stamps the waiting record, which will replace the other, is kept.
    records.sort_by_key(|record| std::cmp::Reverse(record.stamp));
    records.dedup_by_key(|record| record.stamp);
    let has_more = records.len() > query.limit;
    records.truncate(query.limit);
    debug_assert!(records.is_sorted_by(|newer, older| newer.stamp > older.stamp), "a page descends");
    let after = records.last().filter(|_| has_more).map(|record| HistoryCursor(record.stamp));
    HistoryPage { records, after }
}
