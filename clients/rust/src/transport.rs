//! Connections to nodes, plain or with TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::NodeAddress;
use crate::error::AnodeError;

/// A connection in both directions.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// The files that TLS needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    /// The authorities to trust in place of the system's.
    pub(crate) ca: Option<PathBuf>,
    /// The client's own certificate, and its key.
    pub(crate) own: Option<(PathBuf, PathBuf)>,
}

/// Opens connections to nodes, with the settings of TLS that a client has.
#[derive(Clone)]
pub(crate) struct Opener {
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("is_tls", &self.tls.is_some()).finish()
    }
}

impl Opener {
    /// Reads the files. Without TLS, none is read.
    pub(crate) fn new(is_tls: bool, files: &TlsFiles) -> Result<Opener, AnodeError> {
        let tls = if is_tls { Some(TlsConnector::from(Arc::new(config(files)?))) } else { None };
        Ok(Opener { tls })
    }

    /// Connects to a node.
    pub(crate) async fn open(&self, node: &NodeAddress) -> io::Result<Box<dyn Transport>> {
        let socket = TcpStream::connect((node.host.as_str(), node.port)).await?;
        socket.set_nodelay(true)?;
        match &self.tls {
            Some(tls) if node.is_tls => {
                let name = ServerName::try_from(node.host.clone()).map_err(io::Error::other)?;
                Ok(Box::new(tls.connect(name, socket).await?))
            }
            _ => Ok(Box::new(socket)),
        }
    }
}

fn config(files: &TlsFiles) -> Result<ClientConfig, AnodeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS", &error))?
        .with_root_certificates(roots(files.ca.as_deref())?);
    match &files.own {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("key", &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable("cert", &error))
        }
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, AnodeError> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = ca else {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        return Ok(roots);
    };
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| unusable("ca", &error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, AnodeError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| unusable(&path.display().to_string(), &error))?;
    if found.is_empty() {
        return Err(unusable(&path.display().to_string(), &"it has no certificate"));
    }
    Ok(found)
}

fn unusable(what: &str, why: &dyn std::fmt::Display) -> AnodeError {
    AnodeError::new("bad_request", format!("{what} cannot be used: {why}"))
}
