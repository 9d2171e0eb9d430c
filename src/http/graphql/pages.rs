//! Pages of latest records and of histories, as `/v1/sources` has them.

use std::sync::Arc;

use super::requester::Requester;
use super::types::Micros;
use crate::http::PageRequest;
use crate::http::params::LIMIT_MAX;
use crate::limits::TS_MAX;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{HistoryCursor, HistoryPage, HistoryQuery, Pattern, Record, SharedRecord};

/// Number of records of a page whose field names no `first`.
const FIRST_DEFAULT: i32 = 100;
/// Bytes of records at which a page of latest records ends early, so that others have their turn. What is left is on
/// the next page.
const PAGE_DATA_BYTES: usize = 4 * 1024 * 1024;
/// Memory that a search for a page needs for its place in each shard of the map, in bytes.
const PLACES_BYTES: usize = 14 * 1024;
/// Most records that are looked for at a time.
const FOUND_MAX: usize = 1_000;
/// Most records of a history that are read from the store at a time.
const HISTORY_READ_MAX: usize = 64;
/// Most bytes of records of a history that are read at a time, if each is as large as it may be. At least one record is
/// read.
const HISTORY_READ_BYTES: usize = 2 * 1024 * 1024;

/// Memory of a record in an answer besides its data, in bytes: its names, its other fields and their keys.
const RECORD_BYTES: usize = 512;

/// A page that was found.
#[derive(Debug, Default)]
pub(super) struct FoundPage {
    /// The records, each with the cursor behind which the next page would begin.
    pub(super) records: Vec<(String, SharedRecord)>,
    /// Whether there are more behind them.
    pub(super) has_next_page: bool,
    /// Whether the page was asked for by a cursor, so that there is something before it.
    pub(super) has_previous_page: bool,
}

/// The complexity of a page: that of its records, as often as there may be records, and its own.
pub(super) fn page_cost(first: Option<i32>, of_record: usize) -> usize {
    let first = usize::try_from(first.unwrap_or(FIRST_DEFAULT)).unwrap_or(0).min(LIMIT_MAX);
    first.max(1).saturating_mul(of_record.min(LIMIT_MAX)).saturating_add(1)
}

/// The number of records that a field asks for.
fn limit_of(first: Option<i32>) -> Result<usize, Refusal> {
    let first = first.unwrap_or(FIRST_DEFAULT);
    match usize::try_from(first) {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        _ => {
            let message = format!("first is {first}; allowed are integers in 1 to {LIMIT_MAX}");
            Err(Refusal::new(Code::BadRequest, message))
        }
    }
}

/// The page of latest records that a field asks for.
pub(super) struct LatestAsked {
    pub(super) pattern: String,
    pub(super) first: Option<i32>,
    pub(super) after: Option<String>,
    /// Only records with a greater timestamp are shown.
    pub(super) updated_since: Option<Micros>,
}

/// Looks for a page of latest records.
pub(super) async fn latest(requester: &Requester, asked: LatestAsked) -> Result<FoundPage, Refusal> {
    let limit = limit_of(asked.first)?;
    let mut pattern =
        Pattern::parse(&asked.pattern).map_err(|error| Refusal::new(Code::BadPattern, error.to_string()))?;
    if let Some(access) = requester.access() {
        pattern = access.rights().narrowed(pattern);
    }
    requester.charge(PLACES_BYTES)?;
    let mut after = asked.after.filter(|after| !after.is_empty());
    let has_previous_page = after.is_some();
    let (mut records, mut bytes) = (Vec::new(), 0);
    loop {
        // One more than needed tells whether there is a next page.
        let wanted = (limit + 1 - records.len()).min(FOUND_MAX);
        let found = find(
            requester,
            PageRequest {
                pattern: pattern.clone(),
                after: after.as_deref(),
                limit: wanted,
                updated_since: asked.updated_since.map(|since| since.0),
                reader: requester.access().cloned(),
            },
        )
        .await?;
        let is_last = found.len() < wanted;
        for record in found {
            after = Some(record.source.as_str().to_owned());
            if records.len() == limit || bytes >= PAGE_DATA_BYTES {
                return Ok(FoundPage { records, has_next_page: true, has_previous_page });
            }
            requester.charge(RECORD_BYTES)?;
            bytes += RECORD_BYTES + record.payload.bytes().len();
            records.push((record.source.as_str().to_owned(), record));
        }
        if is_last {
            return Ok(FoundPage { records, has_next_page: false, has_previous_page });
        }
    }
}

/// Looks for visible records.
async fn find(requester: &Requester, wanted: PageRequest<'_>) -> Result<Vec<SharedRecord>, Refusal> {
    let app = requester.app();
    let mut search = app.node.search(wanted);
    loop {
        let _turn = app.search_permit().await;
        let is_complete;
        (search, is_complete) = on_another_thread(move || {
            let is_complete = search.advance();
            (search, is_complete)
        })
        .await?;
        if is_complete {
            return Ok(search.into_records());
        }
    }
}

/// The page of a history that a field asks for.
pub(super) struct HistoryAsked {
    pub(super) source: String,
    pub(super) first: Option<i32>,
    pub(super) after: Option<String>,
    pub(super) from: Option<Micros>,
    pub(super) to: Option<Micros>,
}

/// Reads a page of the history of a source.
pub(super) async fn history(requester: &Requester, asked: HistoryAsked) -> Result<FoundPage, Refusal> {
    let limit = limit_of(asked.first)?;
    requester.check_readable(&asked.source)?;
    let app = requester.app();
    let chunk_max = (HISTORY_READ_BYTES / app.record_bytes_max.max(1)).clamp(1, HISTORY_READ_MAX);
    let mut query = HistoryQuery {
        source: asked.source,
        from_us: asked.from.map_or(0, |from| from.0),
        to_us: asked.to.map_or(TS_MAX, |to| to.0),
        limit: 0,
        after: asked.after.as_deref().filter(|after| !after.is_empty()).map(cursor_of).transpose()?,
    };
    let has_previous_page = query.after.is_some();
    let mut records = Vec::new();
    loop {
        query.limit = (limit - records.len()).min(chunk_max);
        let node = app.node.clone();
        let page: Result<HistoryPage, Refusal>;
        (query, page) = on_another_thread(move || {
            let page = node.history(&query);
            (query, page)
        })
        .await?;
        let page = page?;
        let is_last = page.after.is_none() || page.records.is_empty();
        query.after = page.after;
        let wall_us = app.node.now().wall_us;
        // A value whose time to live has ended is not shown in a history either; deletions are.
        let is_shown = |record: &Record| record.stamp.deleted || record.is_visible(wall_us);
        for record in page.records.into_iter().filter(is_shown) {
            // Records of a history are no part of the map, so all of them is counted.
            requester.charge(RECORD_BYTES + record.payload.bytes().len())?;
            records.push((HistoryCursor(record.stamp).to_string(), Arc::new(record)));
        }
        if is_last || records.len() >= limit {
            return Ok(FoundPage { records, has_next_page: !is_last, has_previous_page });
        }
    }
}

fn cursor_of(text: &str) -> Result<HistoryCursor, Refusal> {
    text.parse()
        .map_err(|_| Refusal::new(Code::BadRequest, format!("after {text:?} is no cursor of a history")))
}

/// Runs work that may take long on a thread for such work.
async fn on_another_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request over GraphQL failed");
        Refusal::new(Code::Internal, "the node failed to answer")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cost_as_much_as_they_may_hold() {
        assert_eq!(page_cost(Some(10), 3), 31);
        assert_eq!(page_cost(None, 2), 201);
        assert_eq!([Some(0), Some(-5)].map(|first| page_cost(first, 4)), [5, 5]);
        assert_eq!(page_cost(Some(i32::MAX), usize::MAX), LIMIT_MAX * LIMIT_MAX + 1);
    }

    #[test]
    fn the_number_of_records_is_checked() {
        assert_eq!(limit_of(None), Ok(100));
        assert_eq!(limit_of(Some(10_000)), Ok(10_000));
        for bad in [0, -1, 10_001] {
            assert_eq!(limit_of(Some(bad)).expect_err("refused").code, Code::BadRequest);
        }
    }
}
