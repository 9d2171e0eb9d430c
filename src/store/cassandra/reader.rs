//! How other threads read from Cassandra: they put questions into a bounded queue to the store's thread, and
//! wait for the answers with a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::fault::CassandraFault;
use super::link::{CassandraLink, LinkSlot};
use super::rows::decode;
use super::spill::Spill;
use crate::record::{HistoryQuery, Record, Stamp};
use crate::store::backend::{Backend, LoadReport};
use crate::store::error::StoreError;
use crate::store::placement::Sharing;

/// Longest time that the answer with a page of a history is waited for.
const HISTORY_MAX: Duration = Duration::from_secs(10);
/// Time that a start waits for Cassandra before it goes on without it.
const LOAD_WAIT: Duration = Duration::from_secs(10);
/// Interval at which a start checks whether there is a session.
const LOAD_POLL: Duration = Duration::from_millis(20);
/// Longest time that a page waits for the thread that loads to take it.
const PAGE_MAX: Duration = Duration::from_secs(30);
/// Number of parts into which the token ring is cut.
const RANGES: u64 = 256;
/// Number of parts of the token ring that are read at a time.
const RANGES_AT_A_TIME: usize = 8;
/// Number of attempts to read a page: Cassandra may be starting.
const SCAN_TRIES: u32 = 5;
/// Pause between two attempts to read a page.
const SCAN_PAUSE: Duration = Duration::from_millis(500);
/// Number of pages that may wait for the thread that loads.
const PAGES_MAX: usize = 16;
/// Number of records between two messages in the log about the progress of a load.
const PROGRESS_RECORDS: u64 = 100_000;

/// The values of a page of rows, or why there are no more pages.
type RowPage = Result<Vec<Vec<u8>>, StoreError>;

/// A question of another thread, with the channel for its answer.
pub(super) enum Question {
    /// Asks for every row of `latest`, page by page.
    Load(mpsc::Sender<RowPage>),
    /// Asks for a page of a history.
    History(HistoryQuery, Sender<Result<Vec<Record>, StoreError>>),
}

/// The store in Cassandra, as all threads but the store's use it.
pub(super) struct CassandraBackend {
    questions: mpsc::Sender<Question>,
    spill: Arc<Spill>,
    slot: LinkSlot,
    /// Whether the last load did not reach Cassandra.
    was_load_partial: AtomicBool,
}

impl CassandraBackend {
    /// Makes a backend that asks through `questions`, which [`answer`] answers.
    pub(super) fn new(
        questions: mpsc::Sender<Question>,
        spill: Arc<Spill>,
        slot: LinkSlot,
    ) -> CassandraBackend {
        CassandraBackend { questions, spill, slot, was_load_partial: AtomicBool::new(false) }
    }

    fn load_rows(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, StoreError> {
        let (pages, mut read) = mpsc::channel(PAGES_MAX);
        self.questions
            .try_send(Question::Load(pages))
            .map_err(|_| StoreError::Full("too many questions wait".into()))?;
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
            // Logged once: a table that is not aNode's at all may have millions of such rows.
            tracing::error!(damaged = report.damaged, "rows in Cassandra hold no whole record; skipped");
        }
        Ok(report)
    }
}

impl Backend for CassandraBackend {
    /// Shows the records that wait on the disk, then those that Cassandra has. If Cassandra is not there, the
    /// report is partial, and [`Backend::is_load_owed`] returns `true` once the rest can be loaded.
    fn load(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, StoreError> {
        let mut waiting = 0;
        let shown = self.spill.newest(&mut |record| {
            waiting += 1;
            each(record);
        });
        shown?;
        match self.load_rows(each) {
            Ok(mut report) => {
                self.was_load_partial.store(false, Ordering::Release);
                report.records += waiting;
                Ok(report)
            }
            Err(error) => {
                self.was_load_partial.store(true, Ordering::Release);
                let reason = error.to_string();
                tracing::warn!(reason, waiting, "Cassandra cannot be read now; it will be when it is there");
                Ok(LoadReport { records: waiting, damaged: 0, is_partial: true })
            }
        }
    }

    fn is_load_owed(&self) -> bool {
        self.was_load_partial.load(Ordering::Acquire) && self.slot.lock().is_some()
    }

    /// Cassandra keeps histories by time and not by number, so nothing takes the place of anything.
    fn history(&self, query: &HistoryQuery, _unwritten: &[Stamp]) -> Result<Vec<Record>, StoreError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let question = Question::History(query.clone(), answer);
        self.questions
            .try_send(question)
            .map_err(|_| StoreError::Full("too many questions wait for Cassandra".into()))?;
        match answered.recv_timeout(HISTORY_MAX) {
            Ok(history) => history,
            Err(_) => Err(StoreError::Away("Cassandra did not answer in time".into())),
        }
    }

    fn history_len_max(&self) -> usize {
        usize::MAX
    }

    fn sharing(&self) -> Sharing {
        Sharing::Shared
    }
}

/// Answers questions, each on a task of its own, until the last asker is gone.
pub(super) async fn answer(mut questions: mpsc::Receiver<Question>, slot: LinkSlot) {
    while let Some(question) = questions.recv().await {
        let slot = slot.clone();
        match question {
            Question::Load(pages) => tokio::spawn(async move {
                if let Err(error) = load(&slot, &pages).await {
                    // The asker may be gone.
                    let _ = pages.send(Err(error)).await;
                }
            }),
            Question::History(query, answer) => tokio::spawn(async move {
                let link = slot.lock().clone();
                let history = match link {
                    Some(link) => link.history(&query).await.map_err(StoreError::from),
                    None => Err(StoreError::Away("Cassandra is away".into())),
                };
                let _ = answer.try_send(history);
            }),
        };
    }
}

/// Reads all of `latest`, several parts of the token ring at a time.
async fn load(slot: &LinkSlot, pages: &mpsc::Sender<RowPage>) -> Result<(), StoreError> {
    let connected = async {
        loop {
            if let Some(link) = slot.lock().clone() {
                return link;
            }
            tokio::time::sleep(LOAD_POLL).await;
        }
    };
    let link = tokio::time::timeout(LOAD_WAIT, connected).await;
    let link = &link.map_err(|_| StoreError::Away("it does not answer".into()))?;
    let mut ranges = (0..RANGES).map(|range| scan(link, bounds(range), pages));
    let mut reading: FuturesUnordered<_> = ranges.by_ref().take(RANGES_AT_A_TIME).collect();
    while let Some(done) = reading.next().await {
        done?;
        reading.extend(ranges.next());
    }
    Ok(())
}

/// The first and the last token of a part of the ring.
fn bounds(range: u64) -> (i64, i64) {
    let width = u64::MAX / RANGES + 1;
    let at = |token: u64| (token ^ (1 << 63)) as i64;
    (at(range * width), at((range * width).wrapping_add(width - 1)))
}

/// Reads one part of the ring, page by page. A page that fails is asked for again.
async fn scan(
    link: &CassandraLink,
    bounds: (i64, i64),
    pages: &mpsc::Sender<RowPage>,
) -> Result<(), CassandraFault> {
    let (mut at, mut tries) = (None, 0);
    loop {
        match link.scan(bounds, at.clone()).await {
            Ok((values, next)) => {
                tries = 0;
                match tokio::time::timeout(PAGE_MAX, pages.send(Ok(values))).await {
                    Ok(Ok(())) => {}
                    _ => return Err(CassandraFault::Refused("nobody takes what is loaded".into())),
                }
                if next.is_none() {
                    return Ok(());
                }
                at = next;
            }
            Err(CassandraFault::Away(_) | CassandraFault::Lost(_)) if tries + 1 < SCAN_TRIES => {
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
