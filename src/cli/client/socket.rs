//! WebSocket clients on blocking sockets.

use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::AUTHORIZATION;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, HandshakeError};

use super::stream::NodeStream;
use super::{NodeUrl, Nodes};
use crate::cli::CliError;

/// Statuses with which a node, or a proxy before it, answers while it cannot serve.
const RETRY_STATUSES: [u16; 4] = [429, 502, 503, 504];

/// A WebSocket over a plain connection or one with TLS.
pub type Socket = WebSocket<NodeStream>;

/// Opens the WebSocket at `path` of the first of the nodes that takes it, for two threads, of which one writes and one
/// reads.
pub fn connect_in_halves(nodes: &Nodes, path: &str) -> Result<(Sender, Socket), CliError> {
    let reader = nodes.try_each(|node| connect(node, path), ConnectError::is_final, ConnectError::join)?;
    let half = reader.get_ref().try_clone()?;
    Ok((Sender(WebSocket::from_raw_socket(half, Role::Client, None)), reader))
}

/// The reason why a node could not be connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The node, or what is there instead of it, would refuse the next attempt as well.
    #[error("{0}")]
    Refused(String),
    /// Nothing answers there now, or the node cannot serve now.
    #[error("{0}")]
    Away(String),
}

impl ConnectError {
    /// Returns whether another attempt would be in vain.
    pub fn is_final(&self) -> bool {
        matches!(self, ConnectError::Refused(_))
    }

    /// Joins what two nodes have answered.
    pub fn join(self, next: ConnectError) -> ConnectError {
        ConnectError::Away(format!("{self}; {next}"))
    }
}

impl From<ConnectError> for CliError {
    fn from(error: ConnectError) -> CliError {
        CliError::Failed(error.to_string())
    }
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
pub fn connect(endpoint: &NodeUrl, path: &str) -> Result<Socket, ConnectError> {
    let stream = endpoint.connect().map_err(|error| match is_untrusted(&error) {
        true => ConnectError::Refused(lost(endpoint, error)),
        false => ConnectError::Away(lost(endpoint, error)),
    })?;
    let refused = |why: &dyn std::fmt::Display| ConnectError::Refused(lost(endpoint, why));
    // The stream has its TLS below, so the URL of the handshake is a plain one in any case.
    let url = format!("ws://{endpoint}{}", endpoint.path(path));
    let mut request = url.into_client_request().map_err(|error| refused(&error))?;
    if let Some(token) = endpoint.token() {
        let value = format!("Bearer {}", token.as_str());
        let value = HeaderValue::from_str(&value).map_err(|_| refused(&"the token cannot be sent"))?;
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
            let status = response.status().as_u16();
            // The status is never 200, because a successful upgrade has 101.
            let said = super::Answer { status, body }.ok();
            let said = said.map_or_else(|error| error.to_string(), |_| "it does not speak WebSocket".into());
            match RETRY_STATUSES.contains(&status) {
                true => Err(ConnectError::Away(said)),
                false => Err(ConnectError::Refused(said)),
            }
        }
        Err(HandshakeError::Failure(error @ (Error::Io(_) | Error::Protocol(_)))) => {
            Err(ConnectError::Away(lost(endpoint, error)))
        }
        Err(HandshakeError::Failure(error)) => Err(refused(&error)),
        Err(HandshakeError::Interrupted(_)) => {
            Err(ConnectError::Away(lost(endpoint, "the handshake took too long")))
        }
    }
}

/// Returns whether TLS has failed, for example since the certificate is not trusted: the next attempt would fail, too.
fn is_untrusted(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn lost(endpoint: &NodeUrl, why: impl std::fmt::Display) -> String {
    format!("no connection to {endpoint}: {why}")
}
