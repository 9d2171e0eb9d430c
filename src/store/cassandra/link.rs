//! Writes groups, and reads the latest records and histories, through a connected session.
//!
//! Requests are sent many at a time, so a group costs little more than its slowest request; how many depends
//! on what Cassandra can take ([`RequestWindow`]). Where every node of Cassandra may hold everything, small
//! rows share a request ([`BATCH_ROWS_MAX`]), since most of what a row costs is its request. A group is
//! written when every one of its rows is acknowledged at the configured consistency; every row may be written
//! again at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use cdrs_tokio::cluster::Murmur3Token;
use cdrs_tokio::query::{PreparedQuery, QueryValues};
use cdrs_tokio::types::blob::Blob;
use cdrs_tokio::types::rows::Row;
use cdrs_tokio::types::value::Value;
use cdrs_tokio::types::{ByIndex, CBytes};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;

use super::fault::CassandraFault;
use super::listed::{ListedBuckets, bucket_hash};
use super::requests::{BATCH_ROWS_MAX, RequestWindow, RowWrite, requests};
use super::rows::{bigint, bucket, decode, encode, tie};
use super::schema::{self, Statements};
use super::session::{CassandraSession, rows_of};
use crate::config::cassandra::Cassandra;
use crate::record::{HistoryCursor, HistoryQuery, Record};
use crate::store::queue::{WriteGroup, ascending};

/// Largest number of Cassandra nodes at which each node holds everything, with the default replication. With
/// more of them a row is sent alone, straight to a node that holds it.
const BATCH_NODES_MAX: usize = schema::COPIES_MAX as usize;
/// Number of rows in one page of an answer.
const PAGE_ROWS: i32 = 1_000;
/// Number of partitions of a history that are read at a time.
const BUCKETS_AT_A_TIME: usize = 4;

/// A session with its prepared statements.
pub(super) struct CassandraLink {
    session: CassandraSession,
    statements: Statements,
    keyspace: String,
    /// Id of the table `latest`. A table of that name with another id was made later, and is empty.
    pub(super) table_id: String,
    listed: ListedBuckets,
    /// Whether no batch was refused so far.
    takes_batches: AtomicBool,
}

impl CassandraLink {
    /// Connects, and makes the tables if they are not there.
    pub(super) async fn open(config: &Cassandra) -> Result<CassandraLink, CassandraFault> {
        let session = CassandraSession::connect(config).await?;
        let (statements, table_id) = schema::prepare(&session, config).await?;
        let listed = ListedBuckets::default();
        let (keyspace, takes_batches) = (config.keyspace.clone(), true.into());
        Ok(CassandraLink { session, statements, keyspace, table_id, listed, takes_batches })
    }

    /// Returns the session that the link uses.
    pub(super) fn session(&self) -> &CassandraSession {
        &self.session
    }

    /// Checks that Cassandra answers and still has the same tables.
    pub(super) async fn check(&self) -> Result<(), CassandraFault> {
        match schema::table_id(&self.session, &self.keyspace).await? {
            Some(id) if id == self.table_id => Ok(()),
            _ => Err(CassandraFault::Schema("the tables in Cassandra are gone".into())),
        }
    }

    /// Writes a group: every record into its source's history, the last one as the latest. After an error
    /// some of the rows may be written.
    pub(super) async fn write(
        &self,
        group: &WriteGroup,
        now_us: u64,
        window: &RequestWindow,
    ) -> Result<(), CassandraFault> {
        self.listed.forget_before_today(now_us);
        let mut writes = Vec::with_capacity(group.records() * 2);
        let shown: Result<(), std::convert::Infallible> = group.each_source(|source, removed, records| {
            if let Some(stamp) = removed {
                writes.push(RowWrite::Remove(source.as_str(), stamp));
            }
            let run = ascending(records);
            for &record in &run {
                writes.extend(self.open_bucket(record));
                writes.push(RowWrite::Append(record));
            }
            writes.extend(run.last().map(|&newest| RowWrite::Put(newest)));
            Ok(())
        });
        let Ok(()) = shown;
        self.send(writes, window).await
    }

    async fn send(&self, writes: Vec<RowWrite<'_>>, window: &RequestWindow) -> Result<(), CassandraFault> {
        let has_batches = self.session.nodes() <= BATCH_NODES_MAX && self.takes_batches.load(Relaxed);
        let most = if has_batches { BATCH_ROWS_MAX } else { 1 };
        let mut waiting = requests(&writes, most).map(|request| self.send_one(request));
        let mut flying: FuturesUnordered<_> = waiting.by_ref().take(window.size()).collect();
        let mut failed = None;
        while let Some(done) = flying.next().await {
            match done {
                Err(fault) => failed = Some(failed.unwrap_or(fault)),
                // After a failure no further request is sent, but those on their way are waited for.
                Ok(()) if failed.is_none() => flying.extend(waiting.by_ref().take(window.handle_answer())),
                Ok(()) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn send_one(&self, writes: &[RowWrite<'_>]) -> Result<(), CassandraFault> {
        match writes {
            [write] => self.send_row(write).await?,
            _ => match self.session.batch(|| writes.iter().map(|write| self.statement_of(write))).await {
                Err(CassandraFault::Schema(reason)) => self.send_singly(writes, &reason).await?,
                done => done?,
            },
        }
        self.listed.insert(writes.iter().filter_map(|write| match write {
            RowWrite::OpenBucket(_, hash) => Some(*hash),
            _ => None,
        }));
        Ok(())
    }

    async fn send_row(&self, write: &RowWrite<'_>) -> Result<(), CassandraFault> {
        let (statement, values) = self.statement_of(write);
        let params = self.session.params().with_values(QueryValues::SimpleValues(values)).build();
        self.session.execute(statement, params).await.map(drop)
    }

    /// Sends the rows of a batch that was refused one by one: how large a batch may be is for Cassandra's
    /// operator to say. If the rows are accepted like that, no more batches are sent.
    async fn send_singly(&self, writes: &[RowWrite<'_>], reason: &str) -> Result<(), CassandraFault> {
        for write in writes {
            self.send_row(write).await?;
        }
        if self.takes_batches.swap(false, Relaxed) {
            tracing::warn!(reason, "Cassandra takes no batches; each row is sent alone");
        }
        Ok(())
    }

    fn statement_of(&self, write: &RowWrite<'_>) -> (&PreparedQuery, Vec<Value>) {
        let value = |record| Value::Some(encode(record));
        match write {
            RowWrite::Put(record) => {
                let source = text(record.source.as_str());
                (&self.statements.put, vec![source, value(record), number(record.stamp.ts)])
            }
            RowWrite::Append(record) => {
                let (source, ts) = (text(record.source.as_str()), record.stamp.ts);
                let tie = Value::Some(tie(record.stamp).to_vec());
                let values = vec![source, signed(bucket(ts)), number(ts), tie, value(record), number(ts)];
                (&self.statements.append, values)
            }
            RowWrite::OpenBucket(record, _) => {
                let values = vec![text(record.source.as_str()), signed(bucket(record.stamp.ts))];
                (&self.statements.open_bucket, values)
            }
            // This removes the row, and also what is written to it late with an older `ts`.
            RowWrite::Remove(source, stamp) => {
                (&self.statements.remove, vec![number(stamp.ts), text(source)])
            }
        }
    }

    /// The write that lists the bucket of a record; `None` if this session has listed it today.
    fn open_bucket<'a>(&self, record: &'a Record) -> Option<RowWrite<'a>> {
        let bucket = bucket(record.stamp.ts);
        let hash = bucket_hash(record.source.as_str(), bucket);
        (!self.listed.contains(hash)).then_some(RowWrite::OpenBucket(record, hash))
    }

    /// Reads one page of the rows of a query, and the state with which the next page is asked for. `at` is that
    /// state of the page before, `None` for the first page. `token` leads the request to a node that holds it.
    async fn page(
        &self,
        query: &PreparedQuery,
        values: Vec<Value>,
        token: Option<Murmur3Token>,
        at: Option<CBytes>,
    ) -> Result<(Vec<Row>, Option<CBytes>), CassandraFault> {
        let mut params = self.session.params().with_page_size(PAGE_ROWS);
        params = params.with_values(QueryValues::SimpleValues(values));
        if let Some(token) = token {
            params = params.with_token(token);
        }
        if let Some(state) = at {
            params = params.with_paging_state(state);
        }
        rows_of(&self.session.execute(query, params.build()).await?)
    }

    /// Reads a page of the values of `latest` between two tokens, both included, and the state with which
    /// the next page is asked for. `at`: that state of the page before.
    pub(super) async fn scan(
        &self,
        (from, to): (i64, i64),
        at: Option<CBytes>,
    ) -> Result<(Vec<Vec<u8>>, Option<CBytes>), CassandraFault> {
        let (values, token) = (vec![signed(from), signed(to)], Some(Murmur3Token::new(from)));
        let (rows, next) = self.page(&self.statements.scan, values, token, at).await?;
        Ok((rows.iter().filter_map(value_of).collect(), next))
    }

    /// Reads the records of a source that the query selects, the newest first.
    pub(super) async fn history(&self, query: &HistoryQuery) -> Result<Vec<Record>, CassandraFault> {
        // A next page ends before the cursor; a first page before the microsecond that follows.
        let end = match query.after {
            Some(HistoryCursor(after)) if after.ts <= query.to_us => (after.ts, tie(after).to_vec()),
            _ => (query.to_us.saturating_add(1), Vec::new()),
        };
        let buckets = self.buckets(&query.source, bucket(query.from_us), bucket(end.0)).await?;
        let mut records = Vec::new();
        for some in buckets.chunks(BUCKETS_AT_A_TIME) {
            let left = query.limit - records.len();
            let pages = some.iter().map(|&bucket| self.read_bucket(query, bucket, &end, left));
            for page in futures_util::future::join_all(pages).await {
                records.extend(page?);
            }
            if records.len() >= query.limit {
                records.truncate(query.limit);
                break;
            }
        }
        Ok(records)
    }

    /// The buckets of a source's history in a range, the latest first.
    async fn buckets(&self, source: &str, from: i64, to: i64) -> Result<Vec<i64>, CassandraFault> {
        let (mut buckets, mut next) = (Vec::new(), None);
        loop {
            let values = vec![text(source), signed(from), signed(to)];
            let (rows, state) = self.page(&self.statements.list_buckets, values, None, next).await?;
            buckets.extend(rows.iter().filter_map(|row| row.by_index::<i64>(0).ok().flatten()));
            match state {
                Some(_) => next = state,
                None => return Ok(buckets),
            }
        }
    }

    /// Reads at most `limit` records of one bucket that come before `end` (`ts` and tie).
    async fn read_bucket(
        &self,
        query: &HistoryQuery,
        bucket: i64,
        end: &(u64, Vec<u8>),
        limit: usize,
    ) -> Result<Vec<Record>, CassandraFault> {
        let (mut records, mut next) = (Vec::new(), None);
        loop {
            let values = vec![
                text(&query.source),
                signed(bucket),
                number(query.from_us),
                Value::Some(Vec::new()),
                number(end.0),
                Value::Some(end.1.clone()),
                Value::Some(i32::try_from(limit).unwrap_or(i32::MAX).to_be_bytes().to_vec()),
            ];
            let (rows, state) = self.page(&self.statements.read_bucket, values, None, next).await?;
            for value in rows.iter().filter_map(value_of) {
                match decode(value) {
                    Some(record) => records.push(record),
                    None => {
                        tracing::error!(source = query.source, "history in Cassandra is damaged; skipped")
                    }
                }
            }
            match state {
                Some(_) if records.len() < limit => next = state,
                _ => return Ok(records),
            }
        }
    }
}

/// The present link, shared by all who use it; `None` while there is none.
pub(super) type LinkSlot = Arc<Mutex<Option<Arc<CassandraLink>>>>;

fn text(text: &str) -> Value {
    Value::Some(text.as_bytes().to_vec())
}

fn number(ts: u64) -> Value {
    signed(bigint(ts))
}

fn signed(number: i64) -> Value {
    Value::Some(number.to_be_bytes().to_vec())
}

fn value_of(row: &Row) -> Option<Vec<u8>> {
    row.by_index::<Blob>(0).ok().flatten().map(Blob::into_vec)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, everything, fresh, open, runtime};
    use super::*;
    use crate::store::testing::record;

    /// An operator may bound batches more tightly than Cassandra does by itself. Cassandra then refuses them
    /// with the very error of a missing table, so nothing would ever have been stored.
    #[test]
    #[ignore = "needs Cassandra: scripts/test"]
    fn where_batches_are_refused_rows_are_sent_alone() {
        let config = config("t_refused", |_| {});
        let data = format!("\"{}\"", "x".repeat(30_000));
        let records: Vec<Record> = (1..5).map(|ts| record(&format!("s/{ts}"), ts, data.as_bytes())).collect();
        let writes: Vec<RowWrite<'_>> = records.iter().map(RowWrite::Put).collect();
        runtime().block_on(async {
            fresh(&config).await;
            let link = open(&config).await;
            assert_eq!(link.send_one(&writes[..1]).await, Ok(()));
            assert!(link.takes_batches.load(Relaxed));
            // Cassandra refuses batches over 50 KiB by itself.
            assert_eq!(link.send_one(&writes).await, Ok(()));
            assert!(!link.takes_batches.load(Relaxed));
            assert_eq!(everything(&link).await.len(), 4);
        });
    }
}
