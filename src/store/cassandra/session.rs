//! A session with Cassandra: connected, prepared, and every request with a deadline.
//!
//! The driver finds the nodes of the cluster by itself, keeps connections to them and sends a
//! statement to a replica of its partition. It does not promise that a request ever ends, so each
//! one here does, by [`REQUEST_MAX`]; who sees several end so gives the session up and makes another.
//!
//! Statements that no key places (schema, system tables) all go to the same node of Cassandra, the
//! one that is up and has the least host id: so whatever number of nodes start at once, changes of
//! the schema are made one after the other by one coordinator, and `IF NOT EXISTS` is exact.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cdrs_tokio::authenticators::{
    NoneAuthenticatorProvider, SaslAuthenticatorProvider, StaticPasswordAuthenticatorProvider,
};
use cdrs_tokio::cluster::connection_pool::ConnectionPoolConfigBuilder;
use cdrs_tokio::cluster::session::{self, RustlsSessionBuilder, SessionBuilder, TcpSessionBuilder};
use cdrs_tokio::cluster::topology::NodeState;
use cdrs_tokio::cluster::{
    ClusterMetadata, ConnectionManager, NodeAddress, NodeRustlsConfigBuilder, NodeTcpConfigBuilder,
    RustlsConnectionManager, TcpConnectionManager,
};
use cdrs_tokio::consistency::Consistency as Level;
use cdrs_tokio::frame::message_error::ErrorType;
use cdrs_tokio::frame::{Envelope, Version};
use cdrs_tokio::load_balancing::node_distance_evaluator::{
    AllLocalNodeDistanceEvaluator, NodeDistanceEvaluator, TopologyAwareNodeDistanceEvaluator,
};
use cdrs_tokio::load_balancing::{
    LoadBalancingStrategy, QueryPlan, Request, TopologyAwareLoadBalancingStrategy,
};
use cdrs_tokio::query::PreparedQuery;
use cdrs_tokio::retry::{DefaultRetryPolicy, ExponentialReconnectionPolicy};
use cdrs_tokio::statement::{StatementParams, StatementParamsBuilder};
use cdrs_tokio::transport::{CdrsTransport, TransportRustls, TransportTcp};
use cdrs_tokio::types::rows::Row;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::config::HostPort;
use crate::config::cassandra::{Cassandra, Consistency};

/// Longest one request takes. Under the time a publisher waits for `stored`, over the two seconds
/// after which Cassandra itself gives a write up.
pub(super) const REQUEST_MAX: Duration = Duration::from_millis(3_000);
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

/// Where statements go; see the module's head.
struct Placing<T: CdrsTransport + 'static, CM: ConnectionManager<T> + 'static> {
    by_key: TopologyAwareLoadBalancingStrategy<T, CM>,
}

impl<T: CdrsTransport + 'static, CM: ConnectionManager<T> + 'static> Placing<T, CM> {
    fn new() -> Placing<T, CM> {
        Placing { by_key: TopologyAwareLoadBalancingStrategy::new(None, false) }
    }
}

impl<T: CdrsTransport + 'static, CM: ConnectionManager<T> + 'static> LoadBalancingStrategy<T, CM>
    for Placing<T, CM>
{
    fn query_plan(&self, request: Option<Request<'_>>, cluster: &ClusterMetadata<T, CM>) -> QueryPlan<T, CM> {
        if request.as_ref().is_some_and(|request| request.token.is_none() && request.routing_key.is_none()) {
            let mut nodes = cluster.unignored_nodes();
            nodes.sort_by_key(|node| (node.state() != NodeState::Up, node.host_id()));
            return QueryPlan { nodes };
        }
        self.by_key.query_plan(request, cluster)
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
        let (kind, contact) = first_to_answer(config, &contacts).await?;
        let first = Session { kind, level };
        match first.local_data_center(contact) {
            None => Ok(first),
            Some(local) => Ok(Session { kind: build(config, contact, Some(local)).await?, level }),
        }
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

    /// Parameters of a statement at the configured consistency. All of aNode's may be repeated.
    pub(super) fn params(&self) -> StatementParamsBuilder {
        StatementParamsBuilder::new().with_consistency(self.level).idempotent(true)
    }

    /// Prepares a statement.
    pub(super) async fn prepare(&self, text: &str) -> Result<PreparedQuery, Fault> {
        in_time(async { either!(self, session => session.prepare(text).await) }).await
    }

    /// Runs a prepared statement.
    pub(super) async fn execute(
        &self,
        statement: &PreparedQuery,
        params: StatementParams,
    ) -> Result<Envelope, Fault> {
        in_time(async { either!(self, session => session.exec_with_params(statement, &params).await) }).await
    }

    /// Runs a statement that is asked for seldom; no key places it, and any one copy may answer.
    pub(super) async fn query(&self, text: &str) -> Result<Vec<Row>, Fault> {
        let params = StatementParamsBuilder::new().with_consistency(Level::One).idempotent(true).build();
        let query = async { either!(self, session => session.query_with_params(text, params).await) };
        rows_of(&in_time(query).await?).map(|(rows, _)| rows)
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

async fn in_time<T>(request: impl Future<Output = cdrs_tokio::Result<T>>) -> Result<T, Fault> {
    within(REQUEST_MAX, request).await
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
async fn first_to_answer(config: &Cassandra, contacts: &[SocketAddr]) -> Result<(Kind, SocketAddr), Fault> {
    let tries = contacts.iter().zip(0u32..).map(|(&contact, place)| {
        Box::pin(async move {
            tokio::time::sleep(CONTACT_PAUSE * place).await;
            build(config, contact, None).await.map(|kind| (kind, contact))
        })
    });
    futures_util::future::select_ok(tries).await.map(|(answered, _)| answered)
}

async fn build(config: &Cassandra, contact: SocketAddr, local: Option<String>) -> Result<Kind, Fault> {
    let addresses: Vec<NodeAddress> = vec![contact.into()];
    let authenticator = authenticator(config)?;
    let failed =
        |error: session::SessionBuildError| Fault::Away(format!("no session with Cassandra: {error}"));
    match &config.tls_ca {
        None => {
            let nodes = NodeTcpConfigBuilder::new()
                .with_contact_points(addresses)
                .with_authenticator_provider(authenticator)
                .with_version(Version::V5);
            let nodes = nodes.build().await.map_err(|error| Fault::of(&error))?;
            let session = set(TcpSessionBuilder::new(Placing::new(), nodes), local).build().await;
            Ok(Kind::Plain(Box::new(session.map_err(failed)?)))
        }
        Some(path) => {
            let host = config.contacts.first().map(|contact| contact.host.clone()).unwrap_or_default();
            let name = ServerName::try_from(host.clone())
                .map_err(|_| Fault::Refused(format!("{host:?} cannot be a name in a certificate")))?;
            let nodes = NodeRustlsConfigBuilder::new(name, tls(path)?)
                .with_contact_points(addresses)
                .with_authenticator_provider(authenticator)
                .with_version(Version::V5);
            let nodes = nodes.build().await.map_err(|error| Fault::of(&error))?;
            let session = set(RustlsSessionBuilder::new(Placing::new(), nodes), local).build().await;
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
