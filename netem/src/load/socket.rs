//! A WebSocket connection that never waits long: for the node, for the network or for a node that stands still.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use anode_loadgen::client::ServerStream;
use tungstenite::client::{IntoClientRequest, client_with_config};
use tungstenite::http::header::{AUTHORIZATION, HeaderValue};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

use crate::target::{Connected, Target};

/// How long connecting and the handshake may take, each.
const OPEN: Duration = Duration::from_secs(3);
/// How long a write waits for a node that does not read.
const WRITE: Duration = Duration::from_millis(200);

/// A connection of a client.
pub struct Socket {
    socket: WebSocket<ServerStream>,
    timeout: Duration,
    heard: Instant,
}

impl Socket {
    /// Connects to a path of a node.
    pub fn open(target: &Target, path_and_query: &str) -> Outcome<Socket> {
        Socket::open_within(target, path_and_query, OPEN)
    }

    /// Connects to a path of a node. Connecting and each step of the handshake may take as long as `timeout`.
    pub fn open_within(target: &Target, path_and_query: &str, timeout: Duration) -> Outcome<Socket> {
        let Connected { stream, host, visit } = target.connect(timeout)?;
        let config = WebSocketConfig::default().read_buffer_size(32 * 1024).write_buffer_size(32 * 1024);
        let mut request = format!("ws://{host}{path_and_query}").into_client_request()?;
        if let Some(value) = target.authorization() {
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::try_from(value)?);
        }
        let (socket, _) =
            client_with_config(request, stream, Some(config)).map_err(|error| error.to_string())?;
        target.confirm(visit)?;
        socket.get_ref().set_write_timeout(Some(WRITE))?;
        Ok(Socket { socket, timeout, heard: Instant::now() })
    }

    /// Puts a frame into the buffer of the connection. Returns false if the node does not read.
    pub fn write(&mut self, text: String) -> Outcome<bool> {
        later(self.socket.write(Message::text(text)))
    }

    /// Sends what is in the buffer. Returns false if the node does not read.
    pub fn flush(&mut self) -> Outcome<bool> {
        later(self.socket.flush())
    }

    /// Reads a text frame, if one comes within `timeout`. Fails if the connection has ended.
    pub fn read(&mut self, timeout: Duration) -> Outcome<Option<String>> {
        if timeout != self.timeout {
            self.socket.get_ref().set_read_timeout(Some(timeout))?;
            self.timeout = timeout;
        }
        match self.socket.read() {
            Ok(Message::Text(text)) => {
                self.heard = Instant::now();
                Ok(Some(text.as_str().to_owned()))
            }
            Ok(Message::Close(_)) => Err("the node closed the connection".into()),
            Ok(_) => {
                self.heard = Instant::now();
                // Pings are answered with the next flush.
                self.flush()?;
                Ok(None)
            }
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Err(error.to_string().into()),
        }
    }

    /// Returns the time for which nothing has come from the node.
    pub fn silent_for(&self) -> Duration {
        self.heard.elapsed()
    }
}

fn later(result: Result<(), Error>) -> Outcome<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(false)
        }
        Err(error) => Err(error.to_string().into()),
    }
}
