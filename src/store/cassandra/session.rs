//! A session with Cassandra: connected, prepared, and every request with a deadline.
//!
//! The driver finds the nodes of the cluster by itself, keeps connections to them and sends a
//! statement to a replica of its partition. It does not promise that a request ever ends, so each
//! one here does, by [`REQUEST_MAX`]; who sees several end so gives the session up and makes another.
//!
//! A node that hangs keeps its connections, so the driver goes on sending to it. A request that one
//! node has not answered within [`SILENCE_MAX`] is sent to a second one too (every statement may be
//! repeated), and whom a second outran is asked last for a while (`placing`). The driver's own way of
//! sending a request twice was rejected: when the last node's connection breaks it spins.
//!
//! The newest protocol that a contact speaks is found by a connection of its own, before the session:
//! the driver tries the one that it was told for ever, without a word of why. A wrong password or an
//! unknown certificate is told at once for the same reason.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cdrs_tokio::authenticators::{
    NoneAuthenticatorProvider, SaslAuthenticatorProvider, StaticPasswordAuthenticatorProvider,
};
use cdrs_tokio::cluster::connection_pool::ConnectionPoolConfigBuilder;
use cdrs_tokio::cluster::session::{self, RustlsSessionBuilder, SessionBuilder, TcpSessionBuilder};
use cdrs_tokio::cluster::{
    ConnectionManager, KeyspaceHolder, NodeAddress, NodeRustlsConfigBuilder, NodeTcpConfigBuilder,
    RustlsConnectionManager, TcpConnectionManager,
};
use cdrs_tokio::compression::Compression;
use cdrs_tokio::consistency::Consistency as Level;
use cdrs_tokio::frame::message_batch::BatchType;
use cdrs_tokio::frame::message_error::ErrorType;
use cdrs_tokio::frame::{Envelope, Version};
use cdrs_tokio::frame_encoding::ProtocolFrameEncodingFactory;
use cdrs_tokio::load_balancing::node_distance_evaluator::{
    AllLocalNodeDistanceEvaluator, NodeDistanceEvaluator, TopologyAwareNodeDistanceEvaluator,
};
use cdrs_tokio::query::{BatchQueryBuilder, PreparedQuery, QueryValues};
use cdrs_tokio::retry::{DefaultRetryPolicy, ExponentialReconnectionPolicy};
use cdrs_tokio::statement::{StatementParams, StatementParamsBuilder};
use cdrs_tokio::transport::{CdrsTransport, TransportRustls, TransportTcp};
use cdrs_tokio::types::rows::Row;
use cdrs_tokio::types::value::Value;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::placing::{Placing, Silent, TRIED, Tried};
use crate::config::HostPort;
use crate::config::cassandra::{Cassandra, Consistency};

/// Longest one request takes. Under the time a publisher waits for `stored`, over the two seconds
/// after which Cassandra itself gives a write up.
pub(super) const REQUEST_MAX: Duration = Duration::from_millis(3_000);
/// How long one node is given before a second one is asked too; so much under [`REQUEST_MAX`] that
/// this one has time to answer.
const SILENCE_MAX: Duration = Duration::from_millis(1_000);
/// Longest a connection of a standing session takes. A node of Cassandra whose machine is gone refuses
/// nothing, it is silent, and who waits for a connection to it waits to send: so much under
/// [`REQUEST_MAX`] that there is time left for the next node.
const CONNECTION_MAX: Duration = Duration::from_millis(1_500);
/// Longest a change of the schema takes.
const CHANGE_MAX: Duration = Duration::from_secs(20);
/// Longest a new session takes to stand.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a contact is given before the next one is asked too.
const CONTACT_PAUSE: Duration = Duration::from_millis(500);
/// How often connections are tried again, first and at the longest.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// Requests that may wait to be put on a connection.
const TRANSPORT_QUEUE: usize = 1024;

/// Why Cassandra did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It may do it later, or somewhere else.
    #[error("{0}")]
    Away(String),
    /// This session has lost every node, and may be long in finding one: another finds it sooner.
    #[error("{0}")]
    Lost(String),
    /// It answers, and does not know the tables: they must be made.
    #[error("{0}")]
    Schema(String),
    /// Someone must change something first.
    #[error("{0}")]
    Refused(String),
}

impl Fault {
    fn of(error: &cdrs_tokio::Error) -> Fault {
        use cdrs_tokio::error::Error::{General, InvalidProtocol, Server};
        match error {
            Server { body, .. } => {
                let text = format!("Cassandra: {}", body.message);
                match body.ty {
                    ErrorType::Invalid | ErrorType::Config | ErrorType::Unprepared(_) => Fault::Schema(text),
                    ErrorType::Authentication | ErrorType::Unauthorized | ErrorType::Syntax => {
                        Fault::Refused(text)
                    }
                    _ => Fault::Away(text),
                }
            }
            InvalidProtocol(addr) => Fault::Refused(format!("Cassandra at {addr} speaks another protocol")),
            // The driver says so when a statement means something else than before.
            General(text) if text.contains("schema changed") => Fault::Schema(text.clone()),
            General(text) if text.contains("No nodes available") => {
                Fault::Lost("no node of Cassandra is known to be up".into())
            }
            other => Fault::Away(other.to_string()),
        }
    }
}

type Plain =
    session::Session<TransportTcp, TcpConnectionManager, Placing<TransportTcp, TcpConnectionManager>>;
type Secure = session::Session<
    TransportRustls,
    RustlsConnectionManager,
    Placing<TransportRustls, RustlsConnectionManager>,
>;

enum Kind {
    Plain(Box<Plain>),
    Secure(Box<Secure>),
}

/// A standing session.
pub(super) struct Session {
    kind: Kind,
    level: Level,
    silent: Silent,
}

/// Calls the same method of whichever session it is.
macro_rules! either {
    ($session:expr, $inner:ident => $call:expr) => {
        match &$session.kind {
            Kind::Plain($inner) => $call,
            Kind::Secure($inner) => $call,
        }
    };
}

impl Session {
    /// Connects to Cassandra; `Err` within [`CONNECT_MAX`] and a little.
    pub(super) async fn connect(config: &Cassandra) -> Result<Session, Fault> {
        let connecting = Session::connect_to_local(config);
        match tokio::time::timeout(CONNECT_MAX, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(Fault::Away("no node of Cassandra answers".into())),
        }
    }

    /// Connects, finds out which data centre the contacts are in, and if there are others, connects
    /// again with that one as the local one.
    async fn connect_to_local(config: &Cassandra) -> Result<Session, Fault> {
        let contacts = resolve(&config.contacts).await?;
        let level = level_of(config.consistency);
        let silent = Silent::default();
        let (kind, contact, version) = first_to_answer(config, &contacts, &silent).await?;
        let first = Session { kind, level, silent: silent.clone() };
        let Some(local) = first.local_data_center(contact) else { return Ok(first) };
        let kind = build(config, contact, version, Some(local), &silent).await?;
        Ok(Session { kind, level, silent })
    }

    /// The contact's data centre, if there is more than one.
    fn local_data_center(&self, contact: SocketAddr) -> Option<String> {
        either!(self, session => {
            let metadata = session.cluster_metadata();
            let nodes = metadata.unignored_nodes();
            let local = nodes.iter().find(|node| node.broadcast_rpc_address() == contact)?;
            let has_others = nodes.iter().any(|node| node.datacenter() != local.datacenter());
            has_others.then(|| local.datacenter().to_owned())
        })
    }

    /// Nodes of Cassandra in each data centre.
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

    /// The ids of the nodes that requests are sent to.
    pub(super) fn hosts(&self) -> Vec<String> {
        let mut hosts = Vec::new();
        either!(self, session => {
            let nodes = session.cluster_metadata().unignored_nodes();
            hosts.extend(nodes.iter().filter_map(|node| node.host_id()).map(|id| id.to_string()));
        });
        hosts
    }

    /// How many they are.
    pub(super) fn nodes(&self) -> usize {
        either!(self, session => session.cluster_metadata().unignored_nodes().len())
    }

    /// Parameters of a statement at the configured consistency. All of aNode's may be repeated.
    pub(super) fn params(&self) -> StatementParamsBuilder {
        StatementParamsBuilder::new().with_consistency(self.level).idempotent(true)
    }

    /// Prepares a statement.
    pub(super) async fn prepare(&self, text: &str) -> Result<PreparedQuery, Fault> {
        self.ask(|| async { either!(self, session => session.prepare(text).await) }).await
    }

    /// Runs a prepared statement.
    pub(super) async fn execute(
        &self,
        statement: &PreparedQuery,
        params: StatementParams,
    ) -> Result<Envelope, Fault> {
        let params = &params;
        self.ask(move || async move {
            either!(self, session => session.exec_with_params(statement, params).await)
        })
        .await
    }

    /// Runs several prepared statements in one request, at the configured consistency; each for itself, so
    /// that some may be done although others were not.
    pub(super) async fn batch<'a, I>(&self, statements: impl Fn() -> I) -> Result<(), Fault>
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

    /// Runs a statement that is asked for seldom; no key places it, and any one copy may answer.
    pub(super) async fn query(&self, text: &str) -> Result<Vec<Row>, Fault> {
        let params = StatementParamsBuilder::new().with_consistency(Level::One).idempotent(true).build();
        let query =
            || async { either!(self, session => session.query_with_params(text, params.clone()).await) };
        rows_of(&self.ask(query).await?).map(|(rows, _)| rows)
    }

    /// Makes a request within [`REQUEST_MAX`], of a second node too if the first is silent.
    async fn ask<T, F>(&self, request: impl Fn() -> F) -> Result<T, Fault>
    where
        F: Future<Output = cdrs_tokio::Result<T>>,
    {
        self.ask_as(Tried::default(), request).await
    }

    async fn ask_as<T, F>(&self, tried: Tried, request: impl Fn() -> F) -> Result<T, Fault>
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
            // Seldom made, so not a part of every request.
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

    /// Changes the schema, which a busy Cassandra is slow to do.
    pub(super) async fn change(&self, text: &str) -> Result<(), Fault> {
        let params = StatementParamsBuilder::new().idempotent(true).build();
        let change = async { either!(self, session => session.query_with_params(text, params).await) };
        within(CHANGE_MAX, change).await.map(|_| ())
    }
}

/// A page of rows, and where the next begins. No rows for what gives none.
pub(super) fn rows_of(envelope: &Envelope) -> Result<(Vec<Row>, Option<cdrs_tokio::types::CBytes>), Fault> {
    let body = envelope.response_body().map_err(|error| Fault::of(&error))?;
    let next = body.as_rows_metadata().and_then(|metadata| metadata.paging_state.clone());
    let next = next.filter(|state| !state.is_null_or_empty());
    Ok((body.into_rows().unwrap_or_default(), next))
}

async fn within<T>(most: Duration, request: impl Future<Output = cdrs_tokio::Result<T>>) -> Result<T, Fault> {
    match tokio::time::timeout(most, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Fault::of(&error)),
        Err(_) => Err(Fault::Away(format!("Cassandra did not answer within {} s", most.as_secs()))),
    }
}

async fn resolve(contacts: &[HostPort]) -> Result<Vec<SocketAddr>, Fault> {
    let (mut found, mut failed) = (Vec::new(), None);
    for contact in contacts {
        match tokio::net::lookup_host((contact.host.as_str(), contact.port)).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => failed = Some(format!("{contact}: {error}")),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(Fault::Away(error)),
        None if found.is_empty() => Err(Fault::Away("the contacts have no address".into())),
        _ => Ok(found),
    }
}

/// A session by whichever contact answers first. The driver would take them in turn, and wait for a
/// silent one as long as the system does; so each next one is begun with soon, beside the others.
async fn first_to_answer(
    config: &Cassandra,
    contacts: &[SocketAddr],
    silent: &Silent,
) -> Result<(Kind, SocketAddr, Version), Fault> {
    let tries = contacts.iter().zip(0u32..).map(|(&contact, place)| {
        Box::pin(async move {
            tokio::time::sleep(CONTACT_PAUSE * place).await;
            let version = version_of(config, contact).await?;
            build(config, contact, version, None, silent).await.map(|kind| (kind, contact, version))
        })
    });
    futures_util::future::select_ok(tries).await.map(|(answered, _)| answered)
}

/// The newest protocol that the contact speaks: 5, or 4, which is all that Cassandra 3 and some
/// databases that are like Cassandra have.
async fn version_of(config: &Cassandra, contact: SocketAddr) -> Result<Version, Fault> {
    match greet(config, contact, Version::V5).await? {
        Ok(()) => return Ok(Version::V5),
        Err(cdrs_tokio::Error::InvalidProtocol(_)) => {}
        Err(error) => return Err(Fault::of(&error)),
    }
    greet(config, contact, Version::V4).await?.map_err(|error| Fault::of(&error))?;
    tracing::info!(%contact, "Cassandra speaks protocol 4");
    Ok(Version::V4)
}

/// Whether a node lets one in within [`CONNECTION_MAX`].
pub(super) async fn answers(config: &Cassandra, node: SocketAddr) -> bool {
    matches!(tokio::time::timeout(CONNECTION_MAX, version_of(config, node)).await, Ok(Ok(_)))
}

/// Makes a connection, logs in, and lets it go.
async fn greet(
    config: &Cassandra,
    contact: SocketAddr,
    version: Version,
) -> Result<cdrs_tokio::Result<()>, Fault> {
    let keyspace = Arc::new(KeyspaceHolder::new(tokio::sync::watch::channel(None).0));
    let (login, frames) = (authenticator(config)?, Box::new(ProtocolFrameEncodingFactory));
    let (none, queue) = (Compression::None, TRANSPORT_QUEUE);
    Ok(match secured(config)? {
        None => {
            let plain = TcpConnectionManager::new(login, keyspace, frames, none, queue, true, version);
            plain.connection(None, None, contact).await.map(drop)
        }
        Some((name, tls)) => {
            let secure =
                RustlsConnectionManager::new(name, login, tls, keyspace, frames, none, queue, true, version);
            secure.connection(None, None, contact).await.map(drop)
        }
    })
}

async fn build(
    config: &Cassandra,
    contact: SocketAddr,
    version: Version,
    local: Option<String>,
    silent: &Silent,
) -> Result<Kind, Fault> {
    let addresses: Vec<NodeAddress> = vec![contact.into()];
    let authenticator = authenticator(config)?;
    let failed =
        |error: session::SessionBuildError| Fault::Away(format!("no session with Cassandra: {error}"));
    match secured(config)? {
        None => {
            let nodes = NodeTcpConfigBuilder::new()
                .with_contact_points(addresses)
                .with_authenticator_provider(authenticator)
                .with_version(version);
            let nodes = nodes.build().await.map_err(|error| Fault::of(&error))?;
            let session =
                set(TcpSessionBuilder::new(Placing::new(silent.clone()), nodes), local).build().await;
            Ok(Kind::Plain(Box::new(session.map_err(failed)?)))
        }
        Some((name, tls)) => {
            let nodes = NodeRustlsConfigBuilder::new(name, tls)
                .with_contact_points(addresses)
                .with_authenticator_provider(authenticator)
                .with_version(version);
            let nodes = nodes.build().await.map_err(|error| Fault::of(&error))?;
            let session =
                set(RustlsSessionBuilder::new(Placing::new(silent.clone()), nodes), local).build().await;
            Ok(Kind::Secure(Box::new(session.map_err(failed)?)))
        }
    }
}

fn set<T, CM, B>(builder: B, local: Option<String>) -> B
where
    T: CdrsTransport + 'static,
    CM: ConnectionManager<T> + 'static,
    B: SessionBuilder<T, CM, Placing<T, CM>>,
{
    let distance: Box<dyn NodeDistanceEvaluator + Send + Sync> = match local {
        None => Box::new(AllLocalNodeDistanceEvaluator),
        Some(local) => Box::new(TopologyAwareNodeDistanceEvaluator::new(local)),
    };
    let reconnect = ExponentialReconnectionPolicy::new(RECONNECT_MIN, RECONNECT_MAX, 8);
    let pool = ConnectionPoolConfigBuilder::new().with_connect_timeout(Some(CONNECTION_MAX)).build();
    builder
        .with_node_distance_evaluator(distance)
        .with_retry_policy(Box::new(DefaultRetryPolicy))
        .with_reconnection_policy(Arc::new(reconnect))
        .with_transport_buffer_size(TRANSPORT_QUEUE)
        .with_connection_pool_config(pool)
}

fn authenticator(config: &Cassandra) -> Result<Arc<dyn SaslAuthenticatorProvider + Send + Sync>, Fault> {
    let Some((user, file)) = &config.login else { return Ok(Arc::new(NoneAuthenticatorProvider)) };
    // Read at every connect: a changed password is taken up without a restart.
    let text = fs::read_to_string(file)
        .map_err(|error| Fault::Refused(format!("--cassandra-password-file {}: {error}", file.display())))?;
    let password = text.lines().next().unwrap_or_default();
    Ok(Arc::new(StaticPasswordAuthenticatorProvider::new(user.as_str(), password)))
}

/// The name that certificates must bear, and who may have signed them. `None`: no TLS.
fn secured(config: &Cassandra) -> Result<Option<(ServerName<'static>, Arc<rustls::ClientConfig>)>, Fault> {
    let Some(path) = &config.tls_ca else { return Ok(None) };
    let host = config.contacts.first().map(|contact| contact.host.clone()).unwrap_or_default();
    let name = ServerName::try_from(host.clone())
        .map_err(|_| Fault::Refused(format!("{host:?} cannot be a name in a certificate")))?;
    Ok(Some((name, tls(path)?)))
}

fn tls(path: &std::path::Path) -> Result<Arc<rustls::ClientConfig>, Fault> {
    let failed = |reason: String| Fault::Refused(format!("--cassandra-tls-ca {}: {reason}", path.display()));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("no certificate in it".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
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
