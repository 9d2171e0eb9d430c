//! What this node shows of itself: its certificates and their key, read at the start, when they change, and when
//! the operator asks for it.
//!
//! Every accepted connection gets the configuration that is current at that moment, and keeps it. A pair of files
//! that cannot be used never takes the place of one that can.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{Error, RootCertStore, ServerConfig};

use super::super::reload::Reloadable;
use super::layer::TlsLayer;
use crate::config::watched::{UnreadableFile, WatchedFiles};
use crate::config::{ConfigError, TlsFiles};
use crate::metrics::Metrics;
use crate::record::Now;

/// The protocol that is spoken above TLS, for clients that ask which one it is.
const APPLICATION_PROTOCOL: &[u8] = b"http/1.1";

/// Gives accepted connections their layers.
pub struct TlsAcceptor {
    current: RwLock<Arc<ServerConfig>>,
}

impl TlsAcceptor {
    /// The layer of a connection that was just accepted.
    pub fn layer(&self, metrics: &Arc<Metrics>) -> TlsLayer {
        TlsLayer::new(self.current.read().clone(), metrics.clone())
    }
}

/// Reads the files of [`TlsFiles`] again when they change.
pub struct TlsFileReload {
    identity: Identity,
    watched: WatchedFiles,
    acceptor: Arc<TlsAcceptor>,
    metrics: Option<Arc<Metrics>>,
}

/// Reads the certificate, the key and the authority of clients for the first time.
pub fn open(files: TlsFiles, now: Now) -> Result<(Arc<TlsAcceptor>, TlsFileReload), ConfigError> {
    let paths = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()];
    let mut watched = WatchedFiles::new(paths.into_iter().flatten().cloned());
    let identity = Identity::new(files)?;
    let config = identity.read(watched.read(now))?;
    let acceptor = Arc::new(TlsAcceptor { current: RwLock::new(Arc::new(config)) });
    Ok((acceptor.clone(), TlsFileReload { identity, watched, acceptor, metrics: None }))
}

impl TlsFileReload {
    /// Counts what becomes of changes in `metrics`.
    pub fn counted(self, metrics: Arc<Metrics>) -> TlsFileReload {
        TlsFileReload { metrics: Some(metrics), ..self }
    }
}

impl Reloadable for TlsFileReload {
    fn look(&mut self, now: Now, is_asked: bool) {
        let Some(read) = self.watched.read_changed(now, is_asked) else { return };
        let counters = self.metrics.as_ref().map(|metrics| &metrics.tls);
        match self.identity.read(read) {
            Ok(config) => {
                *self.acceptor.current.write() = Arc::new(config);
                counters.inspect(|counters| counters.reloaded.increment());
                tracing::info!("the certificate was read again, and new connections get it");
            }
            Err(error) => {
                counters.inspect(|counters| counters.reload_refused.increment());
                tracing::error!(%error, "the certificate was read again and is refused; the old one serves on");
            }
        }
    }
}

/// The files, and what all configurations that are made of them have in common.
struct Identity {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    /// Makes the tickets by which clients come back without a whole handshake. It outlives a change of
    /// certificates.
    tickets: Arc<dyn ProducesTickets>,
}

impl Identity {
    fn new(files: TlsFiles) -> Result<Identity, ConfigError> {
        let no_tickets = |error: Error| {
            ConfigError::new("tls-cert", path(&files.cert), format!("random numbers for tickets ({error})"))
        };
        let tickets = Ticketer::new().map_err(no_tickets)?;
        Ok(Identity { files, provider: Arc::new(default_provider()), tickets })
    }

    /// Makes the configuration of what the files hold: certificate, key, and authority if there is one.
    fn read(&self, read: Result<Vec<Vec<u8>>, UnreadableFile>) -> Result<ServerConfig, ConfigError> {
        let contents = read.map_err(|error| self.unreadable(&error))?;
        let mut contents = contents.iter().map(Vec::as_slice);
        let mut next = || contents.next().unwrap_or_default();
        let pair = self.pair(next(), next())?;
        let versions = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| self.no_certificate(&error.to_string()))?;
        let verified = match &self.files.client_ca {
            None => versions.with_no_client_auth(),
            Some(_) => versions.with_client_cert_verifier(self.verifier(next())?),
        };
        let mut config = verified.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = vec![APPLICATION_PROTOCOL.to_vec()];
        // Clients that take no tickets do a whole handshake: a memory of sessions would be one that threads share.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A ticket would let a client in whose certificate has ended since, or whose authority was taken away.
        match self.files.client_ca {
            None => config.ticketer = self.tickets.clone(),
            Some(_) => config.send_tls13_tickets = 0,
        }
        Ok(config)
    }

    fn pair(&self, certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, ConfigError> {
        let chain = certificates(certificate).map_err(|reason| self.no_certificate(&reason))?;
        let no_key = |reason: &str| {
            let allowed =
                format!("a file of PEM with the private key of --tls-cert, without a password ({reason})");
            ConfigError::new("tls-key", path(&self.files.key), allowed)
        };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| no_key(&error.to_string()))?;
        let key =
            self.provider.key_provider.load_private_key(key).map_err(|error| no_key(&error.to_string()))?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) => Ok(pair),
            Err(Error::InconsistentKeys(_)) => Err(no_key("it is the key of another certificate")),
            Err(error) => Err(self.no_certificate(&error.to_string())),
        }
    }

    fn verifier(
        &self,
        authority: &[u8],
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, ConfigError> {
        let mut roots = RootCertStore::empty();
        let built = certificates(authority).and_then(|authorities| {
            for authority in authorities {
                roots.add(authority).map_err(|error| error.to_string())?;
            }
            let roots = Arc::new(roots);
            WebPkiClientVerifier::builder_with_provider(roots, self.provider.clone())
                .build()
                .map_err(|error| error.to_string())
        });
        built.map_err(|reason| {
            let allowed = format!("a file of PEM with the certificates of the authorities ({reason})");
            ConfigError::new(
                "tls-client-ca",
                self.files.client_ca.as_deref().map_or(String::new(), path),
                allowed,
            )
        })
    }

    fn no_certificate(&self, reason: &str) -> ConfigError {
        let allowed = format!("a file of PEM with the certificate and those of its issuers ({reason})");
        ConfigError::new("tls-cert", path(&self.files.cert), allowed)
    }

    fn unreadable(&self, error: &UnreadableFile) -> ConfigError {
        let field = if error.path == self.files.cert {
            "tls-cert"
        } else if error.path == self.files.key {
            "tls-key"
        } else {
            "tls-client-ca"
        };
        ConfigError::new(field, path(&error.path), format!("a readable file of PEM ({})", error.source))
    }
}

/// Reads all certificates in PEM, of which there must be one at least.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(found) if found.is_empty() => Err("there is no certificate in it".into()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}

fn path(path: &std::path::Path) -> String {
    path.display().to_string()
}
