//! What is done with a standing session: groups written, the latest records and histories read.
//!
//! Requests are sent many at a time, so a group costs little more than its slowest request; how
//! many, follows what Cassandra bears ([`Window`]). Where every node of Cassandra may hold everything, rows that
//! are small share a request ([`BATCH_ROWS_MAX`]): most of what a row costs is its request. A group is written when
//! every one of its rows is acknowledged at the configured consistency; every row may be written again at any time.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use cdrs_tokio::cluster::Murmur3Token;
use cdrs_tokio::query::{PreparedQuery, QueryValues};
use cdrs_tokio::types::blob::Blob;
use cdrs_tokio::types::rows::Row;
use cdrs_tokio::types::value::Value;
use cdrs_tokio::types::{ByIndex, CBytes};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::rows::{BUCKET_US, bigint, bucket, decode, encode, tie};
use super::schema::{self, Statements};
use super::session::{Fault, Session, rows_of};
use crate::config::cassandra::Cassandra;
use crate::record::{Record, Stamp};
use crate::store::history::HistoryQuery;
use crate::store::log::{Group, ascending};

/// Requests on their way at a time, at the least and at the most.
const IN_FLIGHT_MIN: usize = 16;
const IN_FLIGHT_MAX: usize = 256;
/// Rows of a request: of as many partitions, and beyond ten Cassandra warns of an unlogged batch.
const BATCH_ROWS_MAX: usize = 10;
/// Their bytes, under the 5 KiB at which it warns of any. What is larger goes alone.
const BATCH_BYTES_MAX: usize = 4 << 10;
/// What a row costs beside its name and its data: key, stamp and birth.
const ROW_BYTES: usize = 100;
/// With so many nodes of Cassandra each holds everything, unless told otherwise. With more of them a row goes
/// alone, straight to a node that holds it.
const BATCH_NODES_MAX: usize = schema::COPIES_MAX as usize;
/// Rows of one page.
const PAGE_ROWS: i32 = 1_000;
/// Partitions of a history that are asked for at a time.
const BUCKETS_AT_A_TIME: usize = 4;
/// Buckets remembered as listed: 16 bytes each. Then all is forgotten, and listed again once.
const LISTED_MAX: usize = 1_000_000;

/// How many requests are on their way at a time: one more with every answer, and few again after a
/// failure, so that a Cassandra that comes back is not overrun and soon has all it can bear.
#[derive(Debug)]
pub(super) struct Window(AtomicUsize);

impl Window {
    pub(super) fn new() -> Window {
        Window(IN_FLIGHT_MIN.into())
    }

    fn size(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// How many requests take the place of one that was answered.
    fn handle_answer(&self) -> usize {
        let size = self.size();
        self.0.store((size + 1).min(IN_FLIGHT_MAX), Relaxed);
        if size < IN_FLIGHT_MAX { 2 } else { 1 }
    }

    pub(super) fn handle_failure(&self) {
        self.0.store(IN_FLIGHT_MIN, Relaxed);
    }
}

/// A session with its statements.
pub(super) struct Link {
    session: Session,
    statements: Statements,
    keyspace: String,
    /// Which `latest` this is; another id is another, empty table.
    pub(super) table_id: String,
    /// Hashes of (source, bucket) that this session has listed, and the hour it began to.
    listed: Mutex<(HashSet<u64, BuildIdentity>, u64)>,
    /// Until one is refused.
    takes_batches: AtomicBool,
}

type BuildIdentity = std::hash::BuildHasherDefault<Identity>;

/// The keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// One write. What is sent is made of it only when its turn comes, so that the first of a large group
/// are on their way while the last are still records.
enum Write<'a> {
    Put(&'a Record),
    Append(&'a Record),
    /// And the hash by which it is remembered as listed.
    OpenBucket(&'a Record, u64),
    Remove(&'a str, Stamp),
}

impl Write<'_> {
    /// What it costs in a request, nearly.
    fn bytes(&self) -> usize {
        ROW_BYTES
            + match self {
                Write::Put(record) | Write::Append(record) => {
                    2 * record.source.as_str().len() + record.payload.bytes().len()
                }
                Write::OpenBucket(record, _) => record.source.as_str().len(),
                Write::Remove(source, _) => source.len(),
            }
    }
}

/// Cuts writes into requests of so many at the most.
fn requests<'w, 'a>(mut writes: &'w [Write<'a>], most: usize) -> impl Iterator<Item = &'w [Write<'a>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |write: &&Write<'_>| {
            bytes += write.bytes();
            bytes <= BATCH_BYTES_MAX
        };
        let count = writes.iter().take(most).take_while(fits).count().max(1);
        let (request, rest) = writes.split_at_checked(count)?;
        writes = rest;
        Some(request)
    })
}

impl Link {
    /// Connects, and makes the tables if they are not there.
    pub(super) async fn open(config: &Cassandra) -> Result<Link, Fault> {
        let session = Session::connect(config).await?;
        let (statements, table_id) = schema::prepare(&session, config).await?;
        let listed = Mutex::new((HashSet::default(), 0));
        let (keyspace, takes_batches) = (config.keyspace.clone(), true.into());
        Ok(Link { session, statements, keyspace, table_id, listed, takes_batches })
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether Cassandra answers, and with the same tables.
    pub(super) async fn check(&self) -> Result<(), Fault> {
        match schema::table_id(&self.session, &self.keyspace).await? {
            Some(id) if id == self.table_id => Ok(()),
            _ => Err(Fault::Schema("the tables in Cassandra are gone".into())),
        }
    }

    /// Writes a group: every record into its source's history, the last one as the latest.
    pub(super) async fn write(&self, group: &Group, now_us: u64, window: &Window) -> Result<(), Fault> {
        self.forget_listed(now_us);
        let mut writes = Vec::with_capacity(group.records() * 2);
        let shown: Result<(), std::convert::Infallible> = group.each_source(|source, removed, records| {
            if let Some(stamp) = removed {
                writes.push(Write::Remove(source, stamp));
            }
            let run = ascending(records);
            for &record in &run {
                writes.extend(self.open_bucket(record));
                writes.push(Write::Append(record));
            }
            writes.extend(run.last().map(|&newest| Write::Put(newest)));
            Ok(())
        });
        let Ok(()) = shown;
        self.send(writes, window).await
    }

    async fn send(&self, writes: Vec<Write<'_>>, window: &Window) -> Result<(), Fault> {
        let has_batches = self.session.nodes() <= BATCH_NODES_MAX && self.takes_batches.load(Relaxed);
        let most = if has_batches { BATCH_ROWS_MAX } else { 1 };
        let mut waiting = requests(&writes, most).map(|request| self.send_one(request));
        let mut flying: FuturesUnordered<_> = waiting.by_ref().take(window.size()).collect();
        let mut failed = None;
        while let Some(done) = flying.next().await {
            match done {
                Err(fault) => failed = Some(failed.unwrap_or(fault)),
                // After a failure the rest is not begun, but what is on its way is waited for.
                Ok(()) if failed.is_none() => flying.extend(waiting.by_ref().take(window.handle_answer())),
                Ok(()) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn send_one(&self, writes: &[Write<'_>]) -> Result<(), Fault> {
        match writes {
            [write] => self.send_row(write).await?,
            _ => match self.session.batch(|| writes.iter().map(|write| self.statement_of(write))).await {
                Err(Fault::Schema(reason)) => self.send_singly(writes, &reason).await?,
                done => done?,
            },
        }
        let mut listed = self.listed.lock();
        for write in writes {
            if let Write::OpenBucket(_, hash) = write {
                if listed.0.len() >= LISTED_MAX {
                    listed.0.clear();
                }
                listed.0.insert(*hash);
            }
        }
        Ok(())
    }

    async fn send_row(&self, write: &Write<'_>) -> Result<(), Fault> {
        let (statement, values) = self.statement_of(write);
        let params = self.session.params().with_values(QueryValues::SimpleValues(values)).build();
        self.session.execute(statement, params).await.map(drop)
    }

    /// What was refused as a batch: how large one may be is for Cassandra's operator to say. If the rows are not
    /// what is wrong, no more batches are sent.
    async fn send_singly(&self, writes: &[Write<'_>], reason: &str) -> Result<(), Fault> {
        for write in writes {
            self.send_row(write).await?;
        }
        if self.takes_batches.swap(false, Relaxed) {
            tracing::warn!(reason, "Cassandra takes no batches; each row is sent alone");
        }
        Ok(())
    }

    fn statement_of(&self, write: &Write<'_>) -> (&PreparedQuery, Vec<Value>) {
        let value = |record| Value::Some(encode(record));
        match write {
            Write::Put(record) => {
                let source = text(record.source.as_str());
                (&self.statements.put, vec![source, value(record), number(record.stamp.ts)])
            }
            Write::Append(record) => {
                let (source, ts) = (text(record.source.as_str()), record.stamp.ts);
                let tie = Value::Some(tie(record.stamp).to_vec());
                let values = vec![source, signed(bucket(ts)), number(ts), tie, value(record), number(ts)];
                (&self.statements.append, values)
            }
            Write::OpenBucket(record, _) => {
                let values = vec![text(record.source.as_str()), signed(bucket(record.stamp.ts))];
                (&self.statements.open_bucket, values)
            }
            // The row goes, and so does what is written to it late with an older `ts`.
            Write::Remove(source, stamp) => (&self.statements.remove, vec![number(stamp.ts), text(source)]),
        }
    }

    /// Lists the bucket of a record, unless this session has lately.
    fn open_bucket<'a>(&self, record: &'a Record) -> Option<Write<'a>> {
        let bucket = bucket(record.stamp.ts);
        let hash = xxh3_64_with_seed(record.source.as_str().as_bytes(), bucket as u64);
        let is_listed = self.listed.lock().0.contains(&hash);
        (!is_listed).then_some(Write::OpenBucket(record, hash))
    }

    /// A list lives two days longer than what it lists; within one everything is listed anew.
    fn forget_listed(&self, now_us: u64) {
        let day = now_us / (24 * BUCKET_US);
        let mut listed = self.listed.lock();
        if listed.1 != day {
            *listed = (HashSet::default(), day);
        }
    }

    /// A page of the values of `latest` between two tokens, both included, and where the next begins.
    pub(super) async fn scan(
        &self,
        (from, to): (i64, i64),
        at: Option<CBytes>,
    ) -> Result<(Vec<Vec<u8>>, Option<CBytes>), Fault> {
        let mut params = self.session.params().with_page_size(PAGE_ROWS).with_token(Murmur3Token::new(from));
        params = params.with_values(QueryValues::SimpleValues(vec![signed(from), signed(to)]));
        if let Some(state) = at {
            params = params.with_paging_state(state);
        }
        let answer = self.session.execute(&self.statements.scan, params.build()).await?;
        let (rows, next) = rows_of(&answer)?;
        Ok((rows.iter().filter_map(value_of).collect(), next))
    }

    /// Records of a source, newest first.
    pub(super) async fn history(&self, query: &OwnedQuery) -> Result<Vec<Record>, Fault> {
        // What comes before a stamp ends at it; else at the first of the next microsecond.
        let end = match query.before {
            Some(before) if before.ts <= query.to_us => (before.ts, tie(before).to_vec()),
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

    /// Buckets of a source, the latest first.
    async fn buckets(&self, source: &str, from: i64, to: i64) -> Result<Vec<i64>, Fault> {
        let (mut buckets, mut next) = (Vec::new(), None);
        loop {
            let values = vec![text(source), signed(from), signed(to)];
            let mut params = self.session.params().with_page_size(PAGE_ROWS);
            params = params.with_values(QueryValues::SimpleValues(values));
            if let Some(state) = next {
                params = params.with_paging_state(state);
            }
            let answer = self.session.execute(&self.statements.list_buckets, params.build()).await?;
            let (rows, state) = rows_of(&answer)?;
            buckets.extend(rows.iter().filter_map(|row| row.by_index::<i64>(0).ok().flatten()));
            match state {
                Some(_) => next = state,
                None => return Ok(buckets),
            }
        }
    }

    async fn read_bucket(
        &self,
        query: &OwnedQuery,
        bucket: i64,
        end: &(u64, Vec<u8>),
        limit: usize,
    ) -> Result<Vec<Record>, Fault> {
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
            let mut params = self.session.params().with_page_size(PAGE_ROWS);
            params = params.with_values(QueryValues::SimpleValues(values));
            if let Some(state) = next {
                params = params.with_paging_state(state);
            }
            let answer = self.session.execute(&self.statements.read_bucket, params.build()).await?;
            let (rows, state) = rows_of(&answer)?;
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

/// What is asked of a history, without borrows.
#[derive(Clone, Debug)]
pub(super) struct OwnedQuery {
    pub(super) source: String,
    pub(super) from_us: u64,
    pub(super) to_us: u64,
    pub(super) before: Option<Stamp>,
    pub(super) limit: usize,
}

impl OwnedQuery {
    pub(super) fn of(query: &HistoryQuery<'_>) -> OwnedQuery {
        let HistoryQuery { source, from_us, to_us, before, limit, .. } = *query;
        OwnedQuery { source: source.into(), from_us, to_us, before, limit }
    }
}

/// How the link is shared: `None` while there is none.
pub(super) type LinkSlot = Arc<Mutex<Option<Arc<Link>>>>;

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
    use proptest::prelude::*;

    use super::super::tests::{config, everything, fresh, open, runtime};
    use super::*;
    use crate::store::testing::record;

    /// An operator may bound batches more tightly than Cassandra does by itself, and says so with the very error of a
    /// missing table: nothing would ever have been stored.
    #[test]
    #[ignore = "needs Cassandra: scripts/test"]
    fn where_batches_are_refused_rows_are_sent_alone() {
        let config = config("t_refused", |_| {});
        let data = format!("\"{}\"", "x".repeat(30_000));
        let records: Vec<Record> = (1..5).map(|ts| record(&format!("s/{ts}"), ts, data.as_bytes())).collect();
        let writes: Vec<Write<'_>> = records.iter().map(Write::Put).collect();
        runtime().block_on(async {
            fresh(&config).await;
            let link = open(&config).await;
            assert_eq!(link.send_one(&writes[..1]).await, Ok(()));
            assert!(link.takes_batches.load(Relaxed));
            // Over 50 KiB.
            assert_eq!(link.send_one(&writes).await, Ok(()));
            assert!(!link.takes_batches.load(Relaxed));
            assert_eq!(everything(&link).await.len(), 4);
        });
    }

    proptest! {
        /// Cassandra warns in its log of batches over 5 KiB or ten partitions, and refuses those over 50 KiB.
        #[test]
        fn requests_are_small_and_leave_nothing_out(
            sizes in proptest::collection::vec(prop_oneof![4 => 0usize..200, 1 => 0usize..20_000], 0..60),
            most in 1usize..12,
        ) {
            let data = |size: usize| format!("\"{}\"", "x".repeat(size)).into_bytes();
            let records: Vec<Record> =
                sizes.iter().zip(1u64..).map(|(&size, ts)| record("s", ts, &data(size))).collect();
            let writes: Vec<Write<'_>> = records.iter().map(Write::Append).collect();
            let mut sent = Vec::new();
            for request in requests(&writes, most) {
                prop_assert!((1..=most).contains(&request.len()));
                prop_assert!(request.len() == 1 || request.iter().map(Write::bytes).sum::<usize>() <= BATCH_BYTES_MAX);
                sent.extend(request.iter().map(|write| match write {
                    Write::Append(record) => record.stamp.ts,
                    _ => 0,
                }));
            }
            prop_assert_eq!(sent, (1..=sizes.len() as u64).collect::<Vec<_>>());
        }
    }
}
