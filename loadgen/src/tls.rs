//! TLS with servers: whom it trusts, and its state on a socket that does not block.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Returns whether the address of a server asks for TLS.
pub fn is_tls(address: &str) -> bool {
    address.starts_with("wss://") || address.starts_with("https://")
}

/// Returns an address without the scheme that it may have, and without slashes at its end.
pub fn plain(address: &str) -> &str {
    address.split_once("://").map_or(address, |(_, rest)| rest).trim_end_matches('/')
}

/// The settings of TLS that all connections of a run share.
#[derive(Clone)]
pub struct TlsSettings(Arc<ClientConfig>);

impl TlsSettings {
    /// Trusts the authorities in a file of PEM, or those of this system if there is none.
    pub fn new(ca: Option<&Path>) -> std::result::Result<TlsSettings, String> {
        let mut roots = RootCertStore::empty();
        match ca {
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
            Some(path) => {
                let failed = |error: &dyn std::fmt::Display| format!("--ca {}: {error}", path.display());
                let pem = std::fs::read(path).map_err(|error| failed(&error))?;
                for root in CertificateDer::pem_slice_iter(&pem) {
                    let root = root.map_err(|error| failed(&error))?;
                    roots.add(root).map_err(|error| failed(&error))?;
                }
            }
        }
        if roots.is_empty() {
            return Err("--ca: must be a file with certificates of authorities, since none are known".into());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?;
        Ok(TlsSettings(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }

    /// The settings, for connections that are driven elsewhere.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }

    /// Begins TLS with the server at `host:port`, on a socket that does not block.
    pub fn begin(&self, host: &str) -> Result<TlsClient> {
        self.connection(host).map(|connection| TlsClient(Box::new(connection)))
    }

    /// The state of TLS with the server at `host:port`, before its handshake.
    pub fn connection(&self, host: &str) -> Result<ClientConnection> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(Error::other)?;
        ClientConnection::new(self.0.clone(), name).map_err(Error::other)
    }
}

/// The state of TLS on one connection.
pub struct TlsClient(Box<ClientConnection>);

impl TlsClient {
    /// Returns whether TLS has something to send by itself.
    pub fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    /// Returns whether the handshake waits for the server: nothing can be sent.
    pub fn is_waiting(&self) -> bool {
        self.0.is_handshaking() && !self.0.wants_write()
    }

    /// Gives the socket what TLS has to send; if that is nothing, takes some of `bytes` first. Returns the number of bytes
    /// that were taken. To be called again until everything is taken and sent.
    pub fn write(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
        let taken = if self.0.wants_write() { 0 } else { self.0.writer().write(bytes)? };
        match self.0.write_tls(socket) {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            // What was taken is sent with the next call.
            Err(error) if error.kind() == ErrorKind::WouldBlock && taken > 0 => Ok(taken),
            other => other.map(|_| taken),
        }
    }

    /// Reads plain bytes, as `read` of a socket does.
    pub fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            self.0.read_tls(socket)?;
            if let Err(error) = self.0.process_new_packets() {
                // The server is told, if the socket takes it.
                let _ = self.0.write_tls(socket);
                return Err(Error::other(error));
            }
        }
    }
}
