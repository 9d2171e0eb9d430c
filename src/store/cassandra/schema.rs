//! The keyspace and its tables, made by whichever node comes first.
//!
//! Every statement may be repeated, and all nodes send theirs to the same coordinator (see `placing`), which
//! makes one change after the other; then everyone waits until Cassandra's nodes agree on the schema. The
//! version of the tables stands in the comment of `latest`, and a newer one is refused. There is no older
//! version yet.

use std::time::Duration;

use cdrs_tokio::query::PreparedQuery;
use cdrs_tokio::types::ByName;
use cdrs_tokio::types::rows::Row;

use super::fault::CassandraFault;
use super::session::CassandraSession;
use crate::config::cassandra::{Cassandra, Replication};

/// Version of the tables below.
const VERSION: u32 = 1;
/// Beginning of the comment of `latest`; the version follows.
const COMMENT: &str = "aNode schema ";
/// Default for the largest number of copies of a record in a data centre.
pub(super) const COPIES_MAX: u32 = 3;
/// Pause between two checks whether all nodes of Cassandra agree on the schema.
const AGREEMENT_PAUSE: Duration = Duration::from_millis(200);
/// Number of checks whether all nodes of Cassandra agree on the schema.
const AGREEMENT_TRIES: u32 = 50;
/// Number of attempts to prepare the statements, since a new table is listed before it can be used.
const SETTLING_TRIES: u32 = 25;

/// The prepared statements, each with the order of its values.
pub(super) struct Statements {
    /// Writes into `latest`: source, value, timestamp.
    pub(super) put: PreparedQuery,
    /// Removes from `latest`: timestamp, source.
    pub(super) remove: PreparedQuery,
    /// Writes into `history`: source, bucket, ts, tie, value, timestamp.
    pub(super) append: PreparedQuery,
    /// Writes into `buckets`: source, bucket.
    pub(super) open_bucket: PreparedQuery,
    /// Reads `latest`: first and last token.
    pub(super) scan: PreparedQuery,
    /// Reads `buckets`: source, least and greatest bucket.
    pub(super) list_buckets: PreparedQuery,
    /// Reads `history`: source, bucket, from, to (ts and tie each), limit.
    pub(super) read_bucket: PreparedQuery,
}

/// Makes the tables that are missing and prepares the statements. Returns them with the id of `latest`, which
/// distinguishes the table from one of the same name that was made after it was dropped.
pub(super) async fn prepare(
    session: &CassandraSession,
    config: &Cassandra,
) -> Result<(Statements, String), CassandraFault> {
    let keyspace = &config.keyspace;
    if version(session, keyspace).await? != Some(VERSION) {
        make(session, config).await?;
    }
    agree(session).await?;
    let mut tries = 1;
    let statements = loop {
        match prepare_all(session, keyspace).await {
            // A table is listed a moment before it can be used.
            Err(CassandraFault::Schema(_)) if tries < SETTLING_TRIES => tries += 1,
            done => break done?,
        }
        tokio::time::sleep(AGREEMENT_PAUSE).await;
    };
    let id = table_id(session, keyspace).await?;
    Ok((statements, id.unwrap_or_default()))
}

async fn prepare_all(session: &CassandraSession, keyspace: &str) -> Result<Statements, CassandraFault> {
    let p = |text: String| async move { session.prepare(&text).await };
    Ok(Statements {
        put: p(format!("INSERT INTO {keyspace}.latest (source, value) VALUES (?, ?) USING TIMESTAMP ?"))
            .await?,
        remove: p(format!("DELETE FROM {keyspace}.latest USING TIMESTAMP ? WHERE source = ?")).await?,
        append: p(format!(
            "INSERT INTO {keyspace}.history (source, bucket, ts, tie, value) VALUES (?, ?, ?, ?, ?) \
             USING TIMESTAMP ?"
        ))
        .await?,
        open_bucket: p(format!("INSERT INTO {keyspace}.buckets (source, bucket) VALUES (?, ?)")).await?,
        scan: p(format!(
            "SELECT value FROM {keyspace}.latest WHERE token(source) >= ? AND token(source) <= ?"
        ))
        .await?,
        list_buckets: p(format!(
            "SELECT bucket FROM {keyspace}.buckets WHERE source = ? AND bucket >= ? AND bucket <= ?"
        ))
        .await?,
        read_bucket: p(format!(
            "SELECT value FROM {keyspace}.history WHERE source = ? AND bucket = ? \
             AND (ts, tie) >= (?, ?) AND (ts, tie) < (?, ?) LIMIT ?"
        ))
        .await?,
    })
}

/// The id of the table `latest`; `None` if there is no such table.
pub(super) async fn table_id(
    session: &CassandraSession,
    keyspace: &str,
) -> Result<Option<String>, CassandraFault> {
    let rows = session.query(&latest_of(keyspace, "CAST(id AS text) AS id")).await?;
    Ok(rows.first().map(|row| text(row, "id")))
}

fn latest_of(keyspace: &str, column: &str) -> String {
    format!(
        "SELECT {column} FROM system_schema.tables \
         WHERE keyspace_name = '{keyspace}' AND table_name = 'latest'"
    )
}

/// The version of the tables; `None` if there are none.
async fn version(session: &CassandraSession, keyspace: &str) -> Result<Option<u32>, CassandraFault> {
    let rows = session.query(&latest_of(keyspace, "comment")).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let found = text(row, "comment").strip_prefix(COMMENT).and_then(|version| version.parse().ok());
    match found {
        Some(version) if version <= VERSION => Ok(Some(version)),
        Some(version) => Err(CassandraFault::Refused(format!(
            "keyspace {keyspace} has schema {version}; this program knows {VERSION}"
        ))),
        None => Err(CassandraFault::Refused(format!(
            "keyspace {keyspace} has a table latest that is not aNode's"
        ))),
    }
}

/// Makes the keyspace and the tables.
async fn make(session: &CassandraSession, config: &Cassandra) -> Result<(), CassandraFault> {
    let keyspace = &config.keyspace;
    let copies = copies(config, session.data_centers())?;
    tracing::info!(keyspace, copies, "making the schema in Cassandra");
    let ttl_s = config.history_ttl_s;
    // A list of buckets must outlive what is in them, however long ago it was begun.
    let list_ttl_s = ttl_s.saturating_add(BUCKET_LIST_TTL_S).min(CASSANDRA_TTL_S_MAX);
    // One window holds a thirtieth of the time to live, so that old files are dropped whole.
    let window_m = (ttl_s / 60 / 30).max(1);
    let steps = [
        format!(
            "CREATE KEYSPACE IF NOT EXISTS {keyspace} \
             WITH replication = {{'class': 'NetworkTopologyStrategy', {copies}}}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.history (source text, bucket bigint, ts bigint, tie blob, \
             value blob, PRIMARY KEY ((source, bucket), ts, tie)) \
             WITH CLUSTERING ORDER BY (ts DESC, tie DESC) AND default_time_to_live = {ttl_s} \
             AND compaction = {{'class': 'TimeWindowCompactionStrategy', \
             'compaction_window_unit': 'MINUTES', 'compaction_window_size': '{window_m}'}}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.buckets (source text, bucket bigint, \
             PRIMARY KEY (source, bucket)) WITH CLUSTERING ORDER BY (bucket DESC) \
             AND default_time_to_live = {list_ttl_s}"
        ),
        // This table is the last: whoever sees its comment knows that all are there.
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.latest (source text PRIMARY KEY, value blob) \
             WITH comment = '{COMMENT}{VERSION}'"
        ),
    ];
    // One coordinator makes all tables, and knows each when it makes the next, so the nodes need not agree in
    // between.
    for step in steps {
        session.change(&step).await.map_err(|fault| match fault {
            CassandraFault::Schema(reason) => CassandraFault::Refused(reason),
            other => other,
        })?;
    }
    Ok(())
}

/// How much longer a bucket is listed than its records live, in seconds: two days, within which every node
/// that still writes to it lists it again.
pub(super) const BUCKET_LIST_TTL_S: u32 = 2 * 24 * 3600;
/// Longest time to live that Cassandra knows, in seconds: twenty years.
const CASSANDRA_TTL_S_MAX: u32 = 20 * 365 * 24 * 3600;

/// The options of the keyspace's replication: how many copies each data centre holds.
fn copies(config: &Cassandra, data_centers: Vec<(String, u32)>) -> Result<String, CassandraFault> {
    let named = match &config.replication {
        Replication::Each(copies) => data_centers.into_iter().map(|(name, _)| (name, *copies)).collect(),
        Replication::Named(named) => named.clone(),
        Replication::Everywhere => {
            data_centers.into_iter().map(|(name, nodes)| (name, nodes.min(COPIES_MAX))).collect()
        }
    };
    if named.is_empty() {
        return Err(CassandraFault::Away("Cassandra's nodes are not known yet".into()));
    }
    let options = named.iter().map(|(name, copies)| format!("'{}': {copies}", name.replace('\'', "''")));
    Ok(options.collect::<Vec<_>>().join(", "))
}

/// Waits until all nodes of Cassandra that are up have the same schema.
async fn agree(session: &CassandraSession) -> Result<(), CassandraFault> {
    for _ in 0..AGREEMENT_TRIES {
        let mut rows = session.query(&version_in("system.local")).await?;
        rows.extend(session.query(&version_in("system.peers")).await?);
        let mut seen: Vec<String> = rows.iter().map(|row| text(row, "version")).collect();
        seen.dedup();
        if seen.len() <= 1 {
            return Ok(());
        }
        tokio::time::sleep(AGREEMENT_PAUSE).await;
    }
    // A node that is down for long keeps an old version; the tables that are needed are there.
    tracing::warn!("the nodes of Cassandra do not agree on the schema; going on");
    Ok(())
}

fn version_in(table: &str) -> String {
    format!("SELECT CAST(schema_version AS text) AS version FROM {table}")
}

fn text(row: &Row, column: &str) -> String {
    row.by_name::<String>(column).ok().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_everywhere_up_to_three() {
        let raw = crate::config::Raw {
            store: Some("cassandra".into()),
            cassandra: Some("c:1".into()),
            ..Default::default()
        };
        let machine = crate::config::Hardware { cores: 1, memory_bytes: 1 << 30 };
        let mut config = crate::config::check(&raw, machine).expect("checked").cassandra.expect("asked for");
        let data_centers = || vec![("east".to_owned(), 5), ("we'st".to_owned(), 2)];
        assert_eq!(copies(&config, data_centers()).as_deref(), Ok("'east': 3, 'we''st': 2"));
        config.replication = Replication::Each(1);
        assert_eq!(copies(&config, data_centers()).as_deref(), Ok("'east': 1, 'we''st': 1"));
        config.replication = Replication::Named(vec![("west".into(), 2)]);
        assert_eq!(copies(&config, data_centers()).as_deref(), Ok("'west': 2"));
        config.replication = Replication::Everywhere;
        assert!(matches!(copies(&config, Vec::new()), Err(CassandraFault::Away(_))));
    }
}
