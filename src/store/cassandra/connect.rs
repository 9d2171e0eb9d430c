//! How a session with Cassandra is made: contacts, protocol, login, TLS.
//!
//! The newest protocol version that a contact speaks is found by a connection of its own, before the session:
//! the driver would try the version that it was given for ever, and never report why it fails. For the same
//! reason a wrong password or an unknown certificate is reported at once.

use std::fs;
use std::net::SocketAddr;
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
use cdrs_tokio::frame::Version;
use cdrs_tokio::frame_encoding::ProtocolFrameEncodingFactory;
use cdrs_tokio::load_balancing::node_distance_evaluator::{
    AllLocalNodeDistanceEvaluator, NodeDistanceEvaluator, TopologyAwareNodeDistanceEvaluator,
};
use cdrs_tokio::retry::{DefaultRetryPolicy, ExponentialReconnectionPolicy};
use cdrs_tokio::transport::{CdrsTransport, TransportRustls, TransportTcp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::fault::CassandraFault;
use super::placing::{Placing, SilentNodes};
use crate::config::HostPort;
use crate::config::cassandra::Cassandra;

/// Longest time that making a connection takes. If the machine of a Cassandra node is gone, the node refuses
/// nothing but stays silent, and requests wait for the connection. This time is so much shorter than the
/// longest time of a request that there is time left for the next node.
const CONNECTION_MAX: Duration = Duration::from_millis(1_500);
/// Time that a contact is given before the next one is tried too.
const CONTACT_PAUSE: Duration = Duration::from_millis(500);
/// Shortest pause between two attempts to make a connection again: the first one.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to make a connection again.
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// Number of requests that may wait to be put on a connection.
const TRANSPORT_QUEUE: usize = 1024;

type PlainSession =
    session::Session<TransportTcp, TcpConnectionManager, Placing<TransportTcp, TcpConnectionManager>>;
type SecureSession = session::Session<
    TransportRustls,
    RustlsConnectionManager,
    Placing<TransportRustls, RustlsConnectionManager>,
>;

/// A session of the driver, over plain connections or over TLS.
pub(super) enum DriverSession {
    Plain(Box<PlainSession>),
    Secure(Box<SecureSession>),
}

/// Addresses of the contacts. Fails if no contact has any.
pub(super) async fn resolve(contacts: &[HostPort]) -> Result<Vec<SocketAddr>, CassandraFault> {
    let (mut found, mut failed) = (Vec::new(), None);
    for contact in contacts {
        match tokio::net::lookup_host((contact.host.as_str(), contact.port)).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => failed = Some(format!("{contact}: {error}")),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(CassandraFault::Away(error)),
        None if found.is_empty() => Err(CassandraFault::Away("the contacts have no address".into())),
        _ => Ok(found),
    }
}

/// Makes a session by whichever contact answers first, and returns it with the contact and the protocol
/// that it speaks. The driver would take the contacts in turn, and wait for a silent one as long as the
/// system does; so each next one is tried soon, beside the others.
pub(super) async fn first_to_answer(
    config: &Cassandra,
    contacts: &[SocketAddr],
    silent: &SilentNodes,
) -> Result<(DriverSession, SocketAddr, Version), CassandraFault> {
    let tries = contacts.iter().zip(0u32..).map(|(&contact, place)| {
        Box::pin(async move {
            tokio::time::sleep(CONTACT_PAUSE * place).await;
            let version = version_of(config, contact).await?;
            build(config, contact, version, None, silent).await.map(|session| (session, contact, version))
        })
    });
    futures_util::future::select_ok(tries).await.map(|(answered, _)| answered)
}

/// Finds the newest protocol that the contact speaks: 5, or 4, which is all that Cassandra 3 and some
/// databases that are like Cassandra have.
async fn version_of(config: &Cassandra, contact: SocketAddr) -> Result<Version, CassandraFault> {
    match greet(config, contact, Version::V5).await? {
        Ok(()) => return Ok(Version::V5),
        Err(cdrs_tokio::Error::InvalidProtocol(_)) => {}
        Err(error) => return Err(CassandraFault::of(&error)),
    }
    greet(config, contact, Version::V4).await?.map_err(|error| CassandraFault::of(&error))?;
    tracing::info!(%contact, "Cassandra speaks protocol 4");
    Ok(Version::V4)
}

/// Returns whether a node of Cassandra accepts a login within [`CONNECTION_MAX`].
pub(super) async fn answers(config: &Cassandra, node: SocketAddr) -> bool {
    matches!(tokio::time::timeout(CONNECTION_MAX, version_of(config, node)).await, Ok(Ok(_)))
}

/// Makes a connection, logs in, and closes it. The inner result is the driver's.
async fn greet(
    config: &Cassandra,
    contact: SocketAddr,
    version: Version,
) -> Result<cdrs_tokio::Result<()>, CassandraFault> {
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

/// Makes a session with one contact, in a protocol that it speaks. `local` is the data centre whose nodes
/// requests are sent to; with `None` they are sent to the nodes of all data centres.
pub(super) async fn build(
    config: &Cassandra,
    contact: SocketAddr,
    version: Version,
    local: Option<String>,
    silent: &SilentNodes,
) -> Result<DriverSession, CassandraFault> {
    let addresses: Vec<NodeAddress> = vec![contact.into()];
    let authenticator = authenticator(config)?;
    let failed = |error: session::SessionBuildError| {
        CassandraFault::Away(format!("no session with Cassandra: {error}"))
    };
    match secured(config)? {
        None => {
            let nodes = NodeTcpConfigBuilder::new()
                .with_contact_points(addresses)
                .with_authenticator_provider(authenticator)
                .with_version(version);
            let nodes = nodes.build().await.map_err(|error| CassandraFault::of(&error))?;
            let session =
                set(TcpSessionBuilder::new(Placing::new(silent.clone()), nodes), local).build().await;
            Ok(DriverSession::Plain(Box::new(session.map_err(failed)?)))
        }
        Some((name, tls)) => {
            let nodes = NodeRustlsConfigBuilder::new(name, tls)
                .with_contact_points(addresses)
                .with_authenticator_provider(authenticator)
                .with_version(version);
            let nodes = nodes.build().await.map_err(|error| CassandraFault::of(&error))?;
            let session =
                set(RustlsSessionBuilder::new(Placing::new(silent.clone()), nodes), local).build().await;
            Ok(DriverSession::Secure(Box::new(session.map_err(failed)?)))
        }
    }
}

/// Sets on a driver's builder what is the same for plain and secured sessions.
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

fn authenticator(
    config: &Cassandra,
) -> Result<Arc<dyn SaslAuthenticatorProvider + Send + Sync>, CassandraFault> {
    let Some((user, file)) = &config.login else { return Ok(Arc::new(NoneAuthenticatorProvider)) };
    // The file is read at every connect: a changed password is taken up without a restart.
    let text = fs::read_to_string(file).map_err(|error| {
        CassandraFault::Refused(format!("--cassandra-password-file {}: {error}", file.display()))
    })?;
    let password = text.lines().next().unwrap_or_default();
    Ok(Arc::new(StaticPasswordAuthenticatorProvider::new(user.as_str(), password)))
}

/// The name that certificates must have, with the TLS settings that say who may have signed them; `None`
/// if connections are to be plain.
fn secured(
    config: &Cassandra,
) -> Result<Option<(ServerName<'static>, Arc<rustls::ClientConfig>)>, CassandraFault> {
    let Some(path) = &config.tls_ca else { return Ok(None) };
    let host = config.contacts.first().map(|contact| contact.host.clone()).unwrap_or_default();
    let name = ServerName::try_from(host.clone())
        .map_err(|_| CassandraFault::Refused(format!("{host:?} cannot be a name in a certificate")))?;
    Ok(Some((name, tls(path)?)))
}

fn tls(path: &std::path::Path) -> Result<Arc<rustls::ClientConfig>, CassandraFault> {
    let failed =
        |reason: String| CassandraFault::Refused(format!("--cassandra-tls-ca {}: {reason}", path.display()));
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
