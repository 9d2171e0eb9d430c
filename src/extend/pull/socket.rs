//! Connections to brokers: a stream of bytes over TCP, or over TLS on top of it.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::trust;

/// A stream of bytes, whatever carries it.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> ByteStream for T {}

/// Connects to a host. With `is_tls`, the host must prove its name by a certificate of the authorities in the file `ca`, or of
/// the system's authorities without it. Errors begin with the address.
pub(super) async fn connect(
    (host, port): (&str, u16),
    is_tls: bool,
    ca: Option<&str>,
) -> Result<Box<dyn ByteStream>, String> {
    let told = |error: std::io::Error| format!("{host}:{port}: {error}");
    let stream = TcpStream::connect((host, port)).await.map_err(told)?;
    stream.set_nodelay(true).map_err(told)?;
    if !is_tls {
        return Ok(Box::new(stream));
    }
    let ca = ca.map(str::to_owned);
    // The certificates of the authorities are read from files, which may take long.
    let made = tokio::task::spawn_blocking(move || trust::client_config(ca.as_deref())).await;
    let config = made.map_err(|error| error.to_string())??;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(told)?;
    Ok(Box::new(stream))
}
