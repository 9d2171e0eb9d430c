//! WebSocket clients on blocking sockets.

use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::AUTHORIZATION;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, HandshakeError};

use super::NodeUrl;
use super::stream::NodeStream;
use crate::cli::CliError;

/// A WebSocket over a plain connection or one with TLS.
pub type Socket = WebSocket<NodeStream>;

/// Opens the WebSocket at `path` of a node for two threads, of which one writes and one reads.
pub fn connect_in_halves(endpoint: &NodeUrl, path: &str) -> Result<(Sender, Socket), CliError> {
    let reader = connect(endpoint, path)?;
    let half = reader.get_ref().try_clone().map_err(|error| lost(endpoint, error))?;
    Ok((Sender(WebSocket::from_raw_socket(half, Role::Client, None)), reader))
}

/// The writing half of a WebSocket.
pub struct Sender(Socket);

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

/// Opens the WebSocket at `path` of a node.
pub fn connect(endpoint: &NodeUrl, path: &str) -> Result<Socket, CliError> {
    let stream = endpoint.connect().map_err(|error| lost(endpoint, error))?;
    // The stream has its TLS below, so the URL of the handshake is a plain one in any case.
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
