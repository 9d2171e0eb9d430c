//! The driver of Cassandra without aNode: writes with the same statements at the same consistency, and reads
//! what the tables hold.

use anode_loadgen::Outcome;
use cdrs_tokio::cluster::session::{Session, SessionBuilder, TcpSessionBuilder};
use cdrs_tokio::cluster::{NodeTcpConfigBuilder, TcpConnectionManager};
use cdrs_tokio::consistency::Consistency;
use cdrs_tokio::frame::Version;
use cdrs_tokio::load_balancing::TopologyAwareLoadBalancingStrategy;
use cdrs_tokio::query::{PreparedQuery, QueryValues};
use cdrs_tokio::statement::{StatementParams, StatementParamsBuilder};
use cdrs_tokio::transport::TransportTcp;
use cdrs_tokio::types::blob::Blob;
use cdrs_tokio::types::rows::Row;
use cdrs_tokio::types::value::Value;
use cdrs_tokio::types::{ByIndex, CBytes};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// Most unanswered requests at a time, which is the bound that aNode has.
const IN_FLIGHT: usize = 256;
/// Time that one partition of history covers in aNode, in microseconds.
const BUCKET_US: u64 = 3_600_000_000;

type Driver = Session<
    TransportTcp,
    TcpConnectionManager,
    TopologyAwareLoadBalancingStrategy<TransportTcp, TcpConnectionManager>,
>;

/// A session with Cassandra.
pub struct Bare(Driver);

/// The statements that write a record.
pub struct Statements {
    put: PreparedQuery,
    append: PreparedQuery,
    /// The value that is stored for every record.
    value: Vec<u8>,
}

impl Bare {
    pub async fn connect(cassandra: &str) -> Outcome<Bare> {
        let nodes = NodeTcpConfigBuilder::new()
            .with_contact_point(cassandra.into())
            .with_version(Version::V5)
            .build()
            .await?;
        let placing = TopologyAwareLoadBalancingStrategy::new(None, false);
        Ok(Bare(TcpSessionBuilder::new(placing, nodes).build().await?))
    }

    /// Returns the version of Cassandra.
    pub async fn release(&self) -> Outcome<String> {
        let rows = self.rows("SELECT release_version FROM system.local").await?;
        let release = rows.first().and_then(|row| row.by_index(0).ok().flatten());
        release.ok_or_else(|| "Cassandra does not say its version".into())
    }

    pub async fn forget(&self, keyspace: &str) -> Outcome<()> {
        self.0.query(format!("DROP KEYSPACE IF EXISTS {keyspace}")).await?;
        Ok(())
    }

    /// Prepares statements that write `value` into the tables of a keyspace, which must exist.
    pub async fn prepare(&self, keyspace: &str, value: Vec<u8>) -> Outcome<Statements> {
        let put = format!("INSERT INTO {keyspace}.latest (source, value) VALUES (?, ?) USING TIMESTAMP ?");
        let append = format!(
            "INSERT INTO {keyspace}.history (source, bucket, ts, tie, value) VALUES (?, ?, ?, ?, ?) \
             USING TIMESTAMP ?"
        );
        Ok(Statements { put: self.0.prepare(put).await?, append: self.0.prepare(append).await?, value })
    }

    /// Returns the value of any row of `latest`.
    pub async fn value(&self, keyspace: &str) -> Outcome<Vec<u8>> {
        let rows = self.rows(&format!("SELECT value FROM {keyspace}.latest LIMIT 1")).await?;
        let value: Option<Blob> = rows.first().and_then(|row| row.by_index(0).ok().flatten());
        Ok(value.ok_or_else(|| format!("{keyspace}.latest is empty"))?.into_vec())
    }

    /// Writes `records` records into `latest` and `history`, with [`IN_FLIGHT`] statements at a time.
    pub async fn write(&self, statements: &Statements, records: u64, sources: u64) -> Outcome<()> {
        let base = std::time::UNIX_EPOCH.elapsed()?.as_micros() as u64;
        let mut writes = (0..records * 2).map(|n| {
            let (source, ts) = (format!("t/{}", n / 2 % sources), base + n / 2);
            let (statement, params) = match n % 2 {
                0 => (&statements.append, append(&source, ts, &statements.value)),
                _ => (&statements.put, put(&source, ts, &statements.value)),
            };
            async move { self.0.exec_with_params(statement, &params).await }
        });
        let mut flying: FuturesUnordered<_> = writes.by_ref().take(IN_FLIGHT).collect();
        while let Some(done) = flying.next().await {
            done?;
            flying.extend(writes.next());
        }
        Ok(())
    }

    /// Returns all rows of a query, which is read page by page.
    pub async fn rows(&self, query: &str) -> Outcome<Vec<Row>> {
        let (mut all, mut at): (Vec<Row>, Option<CBytes>) = (Vec::new(), None);
        loop {
            let mut params = StatementParamsBuilder::new()
                .with_consistency(Consistency::LocalQuorum)
                .with_page_size(5_000);
            if let Some(state) = at {
                params = params.with_paging_state(state);
            }
            let body = self.0.query_with_params(query, params.build()).await?.response_body()?;
            at = body.as_rows_metadata().and_then(|metadata| metadata.paging_state.clone());
            all.extend(body.into_rows().unwrap_or_default());
            if at.as_ref().is_none_or(CBytes::is_null_or_empty) {
                return Ok(all);
            }
        }
    }
}

fn append(source: &str, ts: u64, value: &[u8]) -> StatementParams {
    params(vec![
        bytes(source.as_bytes()),
        bytes(&(ts / BUCKET_US).to_be_bytes()),
        bytes(&ts.to_be_bytes()),
        bytes(&[0; 17]),
        bytes(value),
        bytes(&ts.to_be_bytes()),
    ])
}

fn put(source: &str, ts: u64, value: &[u8]) -> StatementParams {
    params(vec![bytes(source.as_bytes()), bytes(value), bytes(&ts.to_be_bytes())])
}

fn params(values: Vec<Value>) -> StatementParams {
    StatementParamsBuilder::new()
        .with_consistency(Consistency::LocalQuorum)
        .idempotent(true)
        .with_values(QueryValues::SimpleValues(values))
        .build()
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Some(bytes.to_vec())
}
