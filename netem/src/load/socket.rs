//! A WebSocket connection that never waits long: for the node, for the network or for a node that stands still.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use tungstenite::client::client_with_config;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

/// How long connecting and the handshake may take, each.
const OPEN: Duration = Duration::from_secs(3);
/// How long a write waits for a node that does not read.
const WRITE: Duration = Duration::from_millis(200);

/// A connection of a client.
pub struct Socket {
    socket: WebSocket<TcpStream>,
    timeout: Duration,
    heard: Instant,
}

impl Socket {
    /// Connects to a path of a node.
    pub fn open(address: SocketAddr, path_and_query: &str) -> Outcome<Socket> {
        let stream = TcpStream::connect_timeout(&address, OPEN)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(OPEN))?;
        stream.set_write_timeout(Some(OPEN))?;
        let config = WebSocketConfig::default().read_buffer_size(32 * 1024).write_buffer_size(32 * 1024);
        let url = format!("ws://{address}{path_and_query}");
        let (socket, _) = client_with_config(url, stream, Some(config)).map_err(|error| error.to_string())?;
        socket.get_ref().set_write_timeout(Some(WRITE))?;
        Ok(Socket { socket, timeout: OPEN, heard: Instant::now() })
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
