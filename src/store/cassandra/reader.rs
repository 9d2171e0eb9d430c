//! How other threads ask Cassandra: a bounded line of questions to the store's thread, and answers
//! that are waited for with a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::link::{Link, LinkSlot, OwnedQuery};
use super::rows::decode;
use super::session::Fault;
use super::spill::Spill;
use crate::record::Record;
use crate::store::engine::{EngineError, LoadReport, Reader};
use crate::store::history::HistoryQuery;

/// Longest a history is waited for.
const HISTORY_MAX: Duration = Duration::from_secs(10);
/// How long a start waits for Cassandra before it goes on without.
const LOAD_WAIT: Duration = Duration::from_secs(10);
const LOAD_POLL: Duration = Duration::from_millis(20);
/// Longest between two pages while loading.
const PAGE_MAX: Duration = Duration::from_secs(30);
/// Parts of the token ring, and how many are read at a time.
const RANGES: u64 = 256;
const RANGES_AT_A_TIME: usize = 8;
/// A page that fails is read again so many times, with this pause: Cassandra may be starting.
const SCAN_TRIES: u32 = 5;
const SCAN_PAUSE: Duration = Duration::from_millis(500);
/// Pages that may wait for the thread that loads.
const PAGES_MAX: usize = 16;
/// Every so many records the log tells how far it is.
const PROGRESS_RECORDS: u64 = 100_000;

/// A page of rows' values, or why there are no more.
type Page = Result<Vec<Vec<u8>>, String>;

/// A question.
pub(super) enum Job {
    /// Every row of `latest`.
    Load(mpsc::Sender<Page>),
    /// A page of a history.
    History(OwnedQuery, Sender<Result<Vec<Record>, String>>),
}

/// Cassandra, as other threads see it.
pub(in crate::store) struct Cassandra {
    jobs: mpsc::Sender<Job>,
    spill: Arc<Spill>,
    slot: LinkSlot,
    is_load_owed: AtomicBool,
}

impl Cassandra {
    pub(super) fn new(jobs: mpsc::Sender<Job>, spill: Arc<Spill>, slot: LinkSlot) -> Cassandra {
        Cassandra { jobs, spill, slot, is_load_owed: AtomicBool::new(false) }
    }

    /// Whether Cassandra could not be read at the start and could be now.
    pub(in crate::store) fn is_load_owed(&self) -> bool {
        self.is_load_owed.load(Ordering::Acquire) && self.slot.lock().is_some()
    }

    fn load_rows(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, String> {
        let (pages, mut read) = mpsc::channel(PAGES_MAX);
        self.jobs.try_send(Job::Load(pages)).map_err(|_| "too many questions wait".to_owned())?;
        let mut report = LoadReport::default();
        while let Some(page) = read.blocking_recv() {
            for value in page? {
                match decode(value) {
                    Some(record) => {
                        report.records += 1;
                        each(record);
                    }
                    None => {
                        report.damaged += 1;
                    }
                }
                if report.records.is_multiple_of(PROGRESS_RECORDS) && report.records > 0 {
                    tracing::info!(records = report.records, "loading from Cassandra");
                }
            }
        }
        if report.damaged > 0 {
            // Once: a table that is not aNode's at all may have millions.
            tracing::error!(damaged = report.damaged, "rows in Cassandra hold no whole record; skipped");
        }
        Ok(report)
    }
}

impl Reader for Cassandra {
    /// What waits on the disk, then what Cassandra has. If it is not there, `is_partial`, and
    /// [`Cassandra::is_load_owed`] tells when to ask again.
    fn load(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, EngineError> {
        let mut waiting = 0;
        let shown = self.spill.newest(&mut |record| {
            waiting += 1;
            each(record);
        });
        shown.map_err(|error| EngineError(error.to_string()))?;
        match self.load_rows(each) {
            Ok(mut report) => {
                self.is_load_owed.store(false, Ordering::Release);
                report.records += waiting;
                Ok(report)
            }
            Err(reason) => {
                self.is_load_owed.store(true, Ordering::Release);
                tracing::warn!(reason, waiting, "Cassandra cannot be read now; it will be when it is there");
                Ok(LoadReport { records: waiting, damaged: 0, is_partial: true })
            }
        }
    }

    fn history(&self, query: &HistoryQuery<'_>) -> Result<Vec<Record>, EngineError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let job = Job::History(OwnedQuery::of(query), answer);
        self.jobs.try_send(job).map_err(|_| EngineError("too many questions wait for Cassandra".into()))?;
        match answered.recv_timeout(HISTORY_MAX) {
            Ok(history) => history.map_err(EngineError),
            Err(_) => Err(EngineError("Cassandra did not answer in time".into())),
        }
    }
}

/// Answers questions, each on a task of its own, until the last asker is gone.
pub(super) async fn answer(mut jobs: mpsc::Receiver<Job>, slot: LinkSlot) {
    while let Some(job) = jobs.recv().await {
        let slot = slot.clone();
        match job {
            Job::Load(pages) => tokio::spawn(async move {
                if let Err(reason) = load(&slot, &pages).await {
                    // The asker may be gone.
                    let _ = pages.send(Err(reason)).await;
                }
            }),
            Job::History(query, answer) => tokio::spawn(async move {
                let link = slot.lock().clone();
                let history = match link {
                    Some(link) => link.history(&query).await.map_err(|fault| fault.to_string()),
                    None => Err("Cassandra is away".into()),
                };
                let _ = answer.try_send(history);
            }),
        };
    }
}

async fn load(slot: &LinkSlot, pages: &mpsc::Sender<Page>) -> Result<(), String> {
    let connected = async {
        loop {
            if let Some(link) = slot.lock().clone() {
                return link;
            }
            tokio::time::sleep(LOAD_POLL).await;
        }
    };
    let link =
        tokio::time::timeout(LOAD_WAIT, connected).await.map_err(|_| "it does not answer".to_owned())?;
    let link = &link;
    let mut ranges = (0..RANGES).map(|range| scan(link, bounds(range), pages));
    let mut reading: FuturesUnordered<_> = ranges.by_ref().take(RANGES_AT_A_TIME).collect();
    while let Some(done) = reading.next().await {
        done.map_err(|fault| fault.to_string())?;
        reading.extend(ranges.next());
    }
    Ok(())
}

/// First and last token of a part of the ring.
fn bounds(range: u64) -> (i64, i64) {
    let width = u64::MAX / RANGES + 1;
    let at = |token: u64| (token ^ (1 << 63)) as i64;
    (at(range * width), at((range * width).wrapping_add(width - 1)))
}

/// Reads one part, page by page; a page that fails is asked for again.
async fn scan(link: &Link, bounds: (i64, i64), pages: &mpsc::Sender<Page>) -> Result<(), Fault> {
    let (mut at, mut tries) = (None, 0);
    loop {
        match link.scan(bounds, at.clone()).await {
            Ok((values, next)) => {
                tries = 0;
                match tokio::time::timeout(PAGE_MAX, pages.send(Ok(values))).await {
                    Ok(Ok(())) => {}
                    _ => return Err(Fault::Refused("nobody takes what is loaded".into())),
                }
                if next.is_none() {
                    return Ok(());
                }
                at = next;
            }
            Err(Fault::Away(_) | Fault::Lost(_)) if tries + 1 < SCAN_TRIES => {
                tries += 1;
                tokio::time::sleep(SCAN_PAUSE).await;
            }
            Err(fault) => return Err(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_cover_the_ring_once() {
        assert_eq!(bounds(0).0, i64::MIN);
        assert_eq!(bounds(RANGES - 1).1, i64::MAX);
        for range in 1..RANGES {
            assert_eq!(bounds(range - 1).1.checked_add(1), Some(bounds(range).0));
        }
    }
}
