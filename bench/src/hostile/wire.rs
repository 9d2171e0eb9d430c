//! The connections of the attackers: plain, or with TLS.

use std::io::{Error, Result};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anode_loadgen::Outcome;
use anode_loadgen::tls::TlsSettings;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// One connection to the node.
pub enum Wire {
    /// The bytes go over the wire as they are.
    Plain(TcpStream),
    /// The bytes are encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Sends bytes, and does not keep any of them.
    pub async fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).await?;
        self.flush().await
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Wire::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        match self.get_mut() {
            Wire::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Wire::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Wire::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// How the attackers speak TLS with the node.
#[derive(Clone)]
pub struct TlsSide {
    settings: TlsSettings,
    connector: TlsConnector,
    host: Arc<str>,
    name: ServerName<'static>,
}

impl TlsSide {
    /// Trusts the certificates in the file `ca`. `address` is that of the node, `host:port`.
    pub fn new(ca: &Path, address: &str) -> Outcome<TlsSide> {
        let settings = TlsSettings::new(Some(ca))?;
        let name = address.rsplit_once(':').map_or(address, |(name, _)| name).to_owned();
        let connector = TlsConnector::from(settings.config());
        Ok(TlsSide { settings, connector, host: address.into(), name: ServerName::try_from(name)? })
    }

    /// Does the handshake.
    pub async fn begin(&self, socket: TcpStream) -> Result<Wire> {
        let stream = self.connector.connect(self.name.clone(), socket).await?;
        Ok(Wire::Tls(Box::new(stream)))
    }

    /// The first message of a handshake.
    pub fn hello(&self) -> Result<Vec<u8>> {
        let mut hello = Vec::new();
        self.settings.connection(&self.host).map_err(Error::other)?.write_tls(&mut hello)?;
        Ok(hello)
    }
}
