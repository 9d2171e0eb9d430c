//! A blocking WebSocket client of a node.

use std::net::TcpStream;
use std::time::Duration;

use tungstenite::WebSocket;
use tungstenite::client::client_with_config;
use tungstenite::protocol::WebSocketConfig;

use crate::Outcome;

/// How long a read may take before it fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// Connects to `http` (`host:port`) at `path_and_query`, and reads the node's first frame, `connected`.
pub fn connect(http: &str, path_and_query: &str) -> Outcome<WebSocket<TcpStream>> {
    let stream = TcpStream::connect(http).map_err(|error| format!("connecting to {http}: {error}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let config = WebSocketConfig::default().read_buffer_size(16 * 1024).write_buffer_size(0);
    let url = format!("ws://{http}{path_and_query}");
    let (mut socket, _) = client_with_config(url, stream, Some(config))
        .map_err(|error| format!("handshake with {http}{path_and_query}: {error}"))?;
    let first = socket.read()?.into_text()?;
    if !first.contains("\"connected\"") {
        return Err(format!("expected {{\"connected\":…}} from {http}, got {first}").into());
    }
    Ok(socket)
}
