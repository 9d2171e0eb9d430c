//! The history of a source, page by page.

use super::app::{App, HandlerResult, apart};
use super::leased::{lease, resize};
use super::page::RecordPage;
use super::params::Query;
use super::problem::Problem;
use super::waiting::PageWait;
use crate::limits::TS_MAX;
use crate::memory::{Lease, MemoryUse};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{HistoryCursor, HistoryQuery, Record};

/// Most records of a history that are read from the store at a time. After each such chunk the size of the page is
/// checked.
const HISTORY_CHUNK: usize = 64;
/// Most bytes of records of a history that are read at a time, if each is as large as it may be: they are counted only
/// when they are there. At least one record is read.
const HISTORY_CHUNK_BYTES: usize = 2 * 1024 * 1024;

/// Answers with one page of the history of a source.
pub(super) async fn history(
    app: App,
    wait: PageWait,
    source: String,
    query: Option<String>,
) -> HandlerResult {
    let query = Query::parse(query.as_deref(), &["from", "to", "limit", "after"])?;
    let (from_us, to_us, mut limit) = (query.ts("from", 0)?, query.ts("to", TS_MAX)?, query.limit()?);
    // An empty cursor asks for the first page, as it does in lists of sources.
    let after = query.get("after").filter(|after| !after.is_empty()).map(history_cursor).transpose()?;
    let chunk_bytes_max = HISTORY_CHUNK_BYTES.min(app.node.memory().holder_max() / 2);
    let most = (chunk_bytes_max / app.record_bytes_max.max(1)).clamp(1, HISTORY_CHUNK);
    let mut page = RecordPage::new(&app);
    let mut chunk = HistoryQuery { source, from_us, to_us, limit, after };
    // Each chunk is a turn of its own on the threads for blocking work, so that long histories make room for others.
    while limit > 0 && !page.is_full() {
        wait.check(&app)?;
        let app = app.clone();
        let shown;
        let is_last;
        (page, chunk, shown, is_last) = apart(move || {
            let leased;
            (chunk.limit, leased) = lease_chunk(&app, limit.min(most))?;
            let found = app.node.history(&chunk)?;
            let shown = push_chunk(&app, &mut page, &found.records, limit, leased)?;
            chunk.after = found.after;
            let is_last = chunk.after.is_none() || found.records.is_empty();
            Ok::<_, Problem>((page, chunk, shown, is_last))
        })
        .await??;
        limit -= shown;
        if is_last {
            break;
        }
    }
    let after = chunk.after.map(|cursor| cursor.to_string());
    page.finish(&app, after.as_deref())
}

/// Leases the memory of up to `most` records of a history before they are read: fewer where memory is short, and at
/// least one. Returns their number and the lease.
fn lease_chunk(app: &App, most: usize) -> Result<(usize, Lease), Problem> {
    let mut records = most.max(1);
    loop {
        let mut leased = app.node.memory().lease();
        let bytes = records * app.record_bytes_max;
        match leased.set(bytes) {
            Ok(()) => return Ok((records, leased)),
            Err(_) if records > 1 => records /= 2,
            Err(_) => return Ok((1, lease(app, MemoryUse::Pages, bytes)?)),
        }
    }
}

/// Adds those of a chunk of a history to the page that are shown, at most `limit`. The chunk is in memory until all of
/// it is written, beside the page: `leased` is what was leased for it. Returns the number of records that were added.
fn push_chunk(
    app: &App,
    page: &mut RecordPage,
    chunk: &[Record],
    limit: usize,
    mut leased: Lease,
) -> Result<usize, Problem> {
    resize(app, MemoryUse::Pages, &mut leased, chunk.iter().map(Record::cost_bytes).sum())?;
    let wall_us = app.node.now().wall_us;
    // A value whose time to live has ended is not shown in a history either; deletions are.
    let is_shown = |record: &&Record| record.stamp.deleted || record.is_visible(wall_us);
    let mut shown = 0;
    for record in chunk.iter().filter(is_shown).take(limit) {
        page.push(app, record)?;
        shown += 1;
    }
    Ok(shown)
}

/// Reads the cursor that a client sends back for the next page of a history.
fn history_cursor(text: &str) -> Result<HistoryCursor, Refusal> {
    text.parse()
        .map_err(|_| Refusal::new(Code::BadRequest, format!("after {text:?} is no cursor of a history")))
}
