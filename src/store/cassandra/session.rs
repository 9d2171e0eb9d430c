//! A session with Cassandra: connected, prepared, and every request with a deadline.
//!
//! The driver finds the nodes of the cluster by itself, keeps connections to them and sends a
//! statement to a replica of its partition. It does not promise that a request ever ends, so each
//! one here does, by [`REQUEST_MAX`]; the writer gives a session up whose requests keep ending like that.
//!
//! A node that hangs keeps its connections, so the driver goes on sending to it. A request that one node has
//! not answered within [`SILENCE_MAX`] is sent to a second one too (every statement may be repeated), and a
//! node that a second one outran is asked last for a while (`placing`). The driver's own way of sending a
//! request twice was rejected, because it spins when the last node's connection breaks.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use cdrs_tokio::consistency::Consistency as Level;
use cdrs_tokio::frame::Envelope;
use cdrs_tokio::frame::message_batch::BatchType;
use cdrs_tokio::query::{BatchQueryBuilder, PreparedQuery, QueryValues};
use cdrs_tokio::statement::{StatementParams, StatementParamsBuilder};
use cdrs_tokio::types::CBytes;
use cdrs_tokio::types::rows::Row;
use cdrs_tokio::types::value::Value;

use super::connect::{DriverSession, build, first_to_answer, resolve};
use super::fault::CassandraFault;
use super::placing::{SilentNodes, TRIED, Tried};
use crate::config::cassandra::{Cassandra, Consistency};

/// Longest time of one request: less than a publisher waits for `stored`, and more than the two seconds after
/// which Cassandra itself gives up a write.
const REQUEST_MAX: Duration = Duration::from_millis(3_000);
/// Time that one node is given before a second one is asked too; so much less than [`REQUEST_MAX`] that the
/// second one has time to answer.
const SILENCE_MAX: Duration = Duration::from_millis(1_000);
/// Longest time of a change of the schema.
const CHANGE_MAX: Duration = Duration::from_secs(20);
/// Longest time for making a session.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A connected session with Cassandra.
pub(super) struct CassandraSession {
    driver: DriverSession,
    level: Level,
    silent: SilentNodes,
}

/// Evaluates the same expression for whichever session of the driver it is.
macro_rules! either {
    ($session:expr, $inner:ident => $call:expr) => {
        match &$session.driver {
            DriverSession::Plain($inner) => $call,
            DriverSession::Secure($inner) => $call,
        }
    };
}

impl CassandraSession {
    /// Connects to Cassandra. If that fails, it does within little more than [`CONNECT_MAX`].
    pub(super) async fn connect(config: &Cassandra) -> Result<CassandraSession, CassandraFault> {
        let connecting = CassandraSession::connect_to_local(config);
        match tokio::time::timeout(CONNECT_MAX, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(CassandraFault::Away("no node of Cassandra answers".into())),
        }
    }

    /// Connects, finds out which data centre the contacts are in, and if there are others, connects
    /// again with that one as the local one.
    async fn connect_to_local(config: &Cassandra) -> Result<CassandraSession, CassandraFault> {
        let contacts = resolve(&config.contacts).await?;
        let level = level_of(config.consistency);
        let silent = SilentNodes::default();
        let (driver, contact, version) = first_to_answer(config, &contacts, &silent).await?;
        let first = CassandraSession { driver, level, silent: silent.clone() };
        let Some(local) = first.local_data_center(contact) else { return Ok(first) };
        let driver = build(config, contact, version, Some(local), &silent).await?;
        Ok(CassandraSession { driver, level, silent })
    }

    /// Name of the contact's data centre, if there is more than one data centre.
    fn local_data_center(&self, contact: SocketAddr) -> Option<String> {
        either!(self, session => {
            let metadata = session.cluster_metadata();
            let nodes = metadata.unignored_nodes();
            let local = nodes.iter().find(|node| node.broadcast_rpc_address() == contact)?;
            let has_others = nodes.iter().any(|node| node.datacenter() != local.datacenter());
            has_others.then(|| local.datacenter().to_owned())
        })
    }

    /// Names of the data centres, each with its number of nodes of Cassandra.
    pub(super) fn data_centers(&self) -> Vec<(String, u32)> {
        let mut counts: std::collections::BTreeMap<String, u32> = Default::default();
        either!(self, session => {
            for node in session.cluster_metadata().unignored_nodes() {
                if !node.datacenter().is_empty() {
                    *counts.entry(node.datacenter().to_owned()).or_default() += 1;
                }
            }
        });
        counts.into_iter().collect()
    }

    /// Ids of the nodes of Cassandra that requests are sent to.
    pub(super) fn hosts(&self) -> Vec<String> {
        let mut hosts = Vec::new();
        either!(self, session => {
            let nodes = session.cluster_metadata().unignored_nodes();
            hosts.extend(nodes.iter().filter_map(|node| node.host_id()).map(|id| id.to_string()));
        });
        hosts
    }

    /// Number of nodes of Cassandra that requests are sent to.
    pub(super) fn nodes(&self) -> usize {
        either!(self, session => session.cluster_metadata().unignored_nodes().len())
    }

    /// Parameters of a statement at the configured consistency. All statements of aNode may be repeated.
    pub(super) fn params(&self) -> StatementParamsBuilder {
        StatementParamsBuilder::new().with_consistency(self.level).idempotent(true)
    }

    /// Prepares a statement.
    pub(super) async fn prepare(&self, text: &str) -> Result<PreparedQuery, CassandraFault> {
        self.ask(|| async { either!(self, session => session.prepare(text).await) }).await
    }

    /// Runs a prepared statement.
    pub(super) async fn execute(
        &self,
        statement: &PreparedQuery,
        params: StatementParams,
    ) -> Result<Envelope, CassandraFault> {
        let params = &params;
        self.ask(move || async move {
            either!(self, session => session.exec_with_params(statement, params).await)
        })
        .await
    }

    /// Runs several prepared statements in one request, at the configured consistency. Each is run by itself:
    /// after an error some may be done and others not.
    pub(super) async fn batch<'a, I>(&self, statements: impl Fn() -> I) -> Result<(), CassandraFault>
    where
        I: Iterator<Item = (&'a PreparedQuery, Vec<Value>)>,
    {
        let params = &self.params().build();
        let request = || async {
            let batch =
                BatchQueryBuilder::new().with_batch_type(BatchType::Unlogged).with_consistency(self.level);
            let batch = statements().fold(batch, |batch, (statement, values)| {
                batch.add_query_prepared(statement, QueryValues::SimpleValues(values))
            });
            let batch = batch.build()?;
            either!(self, session => session.batch_with_params(batch, params).await)
        };
        self.ask_as(Tried { is_anywhere: true, ..Tried::default() }, request).await.map(drop)
    }

    /// Runs a statement that is needed seldom and returns its rows. No key places it, and any one copy may
    /// answer.
    pub(super) async fn query(&self, text: &str) -> Result<Vec<Row>, CassandraFault> {
        let params = StatementParamsBuilder::new().with_consistency(Level::One).idempotent(true).build();
        let query =
            || async { either!(self, session => session.query_with_params(text, params.clone()).await) };
        rows_of(&self.ask(query).await?).map(|(rows, _)| rows)
    }

    /// Makes a request within [`REQUEST_MAX`]; if the first node is silent, of a second one too.
    async fn ask<T, F>(&self, request: impl Fn() -> F) -> Result<T, CassandraFault>
    where
        F: Future<Output = cdrs_tokio::Result<T>>,
    {
        self.ask_as(Tried::default(), request).await
    }

    async fn ask_as<T, F>(&self, tried: Tried, request: impl Fn() -> F) -> Result<T, CassandraFault>
    where
        F: Future<Output = cdrs_tokio::Result<T>>,
    {
        let asked = async {
            let mut first = pin!(request());
            if let Ok(answer) = tokio::time::timeout(SILENCE_MAX, first.as_mut()).await {
                return answer;
            }
            let Tried { node: Some(silent), has_others: true, .. } = TRIED.with(Cell::get) else {
                return first.await;
            };
            // Boxed, because it is made seldom and must not enlarge every request.
            let mut second = Box::pin(request());
            tokio::select! {
                answer = first.as_mut() => match answer {
                    Err(_) => second.await,
                    answer => answer,
                },
                answer = second.as_mut() => match answer {
                    Err(_) => first.await,
                    answer => {
                        self.silent.pass_over(silent);
                        answer
                    }
                },
            }
        };
        within(REQUEST_MAX, TRIED.scope(Cell::new(tried), asked)).await
    }

    /// Changes the schema. A busy Cassandra is slow to do that, so it is given [`CHANGE_MAX`].
    pub(super) async fn change(&self, text: &str) -> Result<(), CassandraFault> {
        let params = StatementParamsBuilder::new().idempotent(true).build();
        let change = async { either!(self, session => session.query_with_params(text, params).await) };
        within(CHANGE_MAX, change).await.map(|_| ())
    }
}

/// Reads the rows of an answer, and the state with which the next page is asked for. An answer without
/// rows gives none.
pub(super) fn rows_of(envelope: &Envelope) -> Result<(Vec<Row>, Option<CBytes>), CassandraFault> {
    let body = envelope.response_body().map_err(|error| CassandraFault::of(&error))?;
    let next = body.as_rows_metadata().and_then(|metadata| metadata.paging_state.clone());
    let next = next.filter(|state| !state.is_null_or_empty());
    Ok((body.into_rows().unwrap_or_default(), next))
}

async fn within<T>(
    most: Duration,
    request: impl Future<Output = cdrs_tokio::Result<T>>,
) -> Result<T, CassandraFault> {
    match tokio::time::timeout(most, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(CassandraFault::of(&error)),
        Err(_) => Err(CassandraFault::Away(format!("Cassandra did not answer within {} s", most.as_secs()))),
    }
}

fn level_of(consistency: Consistency) -> Level {
    match consistency {
        Consistency::One => Level::One,
        Consistency::Two => Level::Two,
        Consistency::Three => Level::Three,
        Consistency::Quorum => Level::Quorum,
        Consistency::All => Level::All,
        Consistency::LocalQuorum => Level::LocalQuorum,
        Consistency::LocalOne => Level::LocalOne,
    }
}
