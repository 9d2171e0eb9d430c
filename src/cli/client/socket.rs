//! WebSocket clients on blocking sockets.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::AUTHORIZATION;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, HandshakeError};

use super::NodeUrl;
use crate::cli::CliError;

/// How long a handshake or the sending of a frame may make no progress.
const STALL_MAX: Duration = Duration::from_secs(30);

/// A WebSocket that one thread reads and writes.
pub type Socket = WebSocket<TcpStream>;

/// Opens the WebSocket at `path` of a node.
pub fn connect(endpoint: &NodeUrl, path: &str) -> Result<Socket, CliError> {
    open(endpoint, path, Ok)
}

/// Opens the WebSocket at `path` of a node for two threads, of which one writes and one reads.
pub fn connect_in_halves(endpoint: &NodeUrl, path: &str) -> Result<(Sender, WebSocket<Half>), CliError> {
    let reader = open(endpoint, path, |stream| {
        let outgoing = Arc::new(Mutex::new(stream.try_clone()?));
        Ok(Half { incoming: stream, outgoing })
    })?;
    let half = reader.get_ref();
    let half = half.try_clone().map_err(|error| lost(endpoint, error))?;
    Ok((Sender(WebSocket::from_raw_socket(half, Role::Client, None)), reader))
}

/// The writing half of a WebSocket.
pub struct Sender(WebSocket<Half>);

impl Sender {
    /// Sends a text frame.
    pub fn send(&mut self, text: String) -> Result<(), Error> {
        self.0.send(text.into())
    }

    /// Sends a close frame.
    pub fn close(&mut self) -> Result<(), Error> {
        self.0.close(None)?;
        self.0.flush()
    }
}

/// One half of a connection. Every write is a whole number of frames and happens under a lock, so that the
/// pongs that the reader sends never get between the bytes of a frame that the writer sends.
pub struct Half {
    incoming: TcpStream,
    outgoing: Arc<Mutex<TcpStream>>,
}

impl Half {
    fn try_clone(&self) -> io::Result<Half> {
        Ok(Half { incoming: self.incoming.try_clone()?, outgoing: self.outgoing.clone() })
    }
}

impl Read for Half {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.incoming.read(buffer)
    }
}

impl Write for Half {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.lock().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open<S: Read + Write>(
    endpoint: &NodeUrl,
    path: &str,
    wrap: impl FnOnce(TcpStream) -> io::Result<S>,
) -> Result<WebSocket<S>, CliError> {
    let stream = endpoint.connect().map_err(|error| lost(endpoint, error))?;
    let timed = stream.set_read_timeout(Some(STALL_MAX)).and(stream.set_write_timeout(Some(STALL_MAX)));
    let stream = timed.and_then(|()| wrap(stream)).map_err(|error| lost(endpoint, error))?;
    let url = format!("ws://{endpoint}{}", endpoint.path(path));
    let mut request = url.into_client_request().map_err(|error| lost(endpoint, error))?;
    if let Some(token) = endpoint.token() {
        let value = format!("Bearer {}", token.as_str());
        let value = HeaderValue::from_str(&value).map_err(|_| lost(endpoint, "the token cannot be sent"))?;
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    // The write buffer needs no limit, because frames are written at once. What is received is limited by the
    // node.
    let config = WebSocketConfig::default().read_buffer_size(64 * 1024);
    match tungstenite::client::client_with_config(request, stream, Some(config)) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(Error::Http(response))) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(body).into_owned();
            let answer = super::Answer { status: response.status().as_u16(), body };
            // The status is never 200, because a successful upgrade has 101.
            answer.ok().map_or_else(Err, |_| Err(lost(endpoint, "it does not speak WebSocket")))
        }
        Err(HandshakeError::Failure(error)) => Err(lost(endpoint, error)),
        Err(HandshakeError::Interrupted(_)) => Err(lost(endpoint, "the handshake took too long")),
    }
}

fn lost(endpoint: &NodeUrl, why: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!("no connection to {endpoint}: {why}"))
}
