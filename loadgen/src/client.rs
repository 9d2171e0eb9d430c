//! A blocking WebSocket client of a node.

use std::io::{Read, Result as IoResult, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use tungstenite::WebSocket;
use tungstenite::client::{IntoClientRequest, client_with_config};
use tungstenite::http::header::{AUTHORIZATION, HeaderValue};
use tungstenite::protocol::WebSocketConfig;

use crate::Outcome;
use crate::access::AccessArgs;
use crate::tls::{TlsSettings, is_tls, plain};
use crate::token::Bearer;

/// How long a read may take before it fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// A connection to a node, with TLS or without.
pub enum ServerStream {
    /// The bytes go over the wire as they are.
    Plain(TcpStream),
    /// The bytes are encrypted.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl ServerStream {
    /// Speaks with a server on a connected socket: with TLS, if there are settings for it. `host` is the name, or name and
    /// port, that the certificate of the server must have.
    pub fn new(socket: TcpStream, tls: Option<&TlsSettings>, host: &str) -> IoResult<ServerStream> {
        Ok(match tls {
            None => ServerStream::Plain(socket),
            Some(tls) => ServerStream::Tls(Box::new(StreamOwned::new(tls.connection(host)?, socket))),
        })
    }

    /// Sets how long a write may take.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> IoResult<()> {
        match self {
            ServerStream::Plain(socket) => socket.set_write_timeout(timeout),
            ServerStream::Tls(stream) => stream.sock.set_write_timeout(timeout),
        }
    }

    /// Sets how long a read may take.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> IoResult<()> {
        match self {
            ServerStream::Plain(socket) => socket.set_read_timeout(timeout),
            ServerStream::Tls(stream) => stream.sock.set_read_timeout(timeout),
        }
    }
}

impl Read for ServerStream {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        match self {
            ServerStream::Plain(socket) => socket.read(buffer),
            ServerStream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for ServerStream {
    fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
        match self {
            ServerStream::Plain(socket) => socket.write(bytes),
            ServerStream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> IoResult<()> {
        match self {
            ServerStream::Plain(socket) => socket.flush(),
            ServerStream::Tls(stream) => stream.flush(),
        }
    }
}

/// Connects to `http` (`host:port`) at `path_and_query`, and reads the node's first frame, `connected`.
pub fn connect(http: &str, path_and_query: &str) -> Outcome<WebSocket<TcpStream>> {
    open(http, socket(http)?, path_and_query, None)
}

/// Connects as [`connect`] does; with TLS if `url` begins with `wss://`. Then the authorities in the file `ca` are
/// trusted, or those of this system.
pub fn connect_to(url: &str, ca: Option<&Path>, path_and_query: &str) -> Outcome<WebSocket<ServerStream>> {
    open_url(url, ca, path_and_query, None)
}

/// Connects as [`connect_to`] does, and brings the token of `access`, if it has one.
pub fn connect_with(
    url: &str,
    access: &AccessArgs,
    path_and_query: &str,
) -> Outcome<WebSocket<ServerStream>> {
    open_url(url, access.ca.as_deref(), path_and_query, access.token()?)
}

fn open_url(
    url: &str,
    ca: Option<&Path>,
    path_and_query: &str,
    token: Option<Bearer>,
) -> Outcome<WebSocket<ServerStream>> {
    let http = plain(url);
    let socket = socket(http)?;
    let tls = if is_tls(url) { Some(TlsSettings::new(ca)?) } else { None };
    open(http, ServerStream::new(socket, tls.as_ref(), http)?, path_and_query, token)
}

fn socket(http: &str) -> Outcome<TcpStream> {
    let socket = TcpStream::connect(http).map_err(|error| format!("connecting to {http}: {error}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    Ok(socket)
}

fn open<S: Read + Write>(
    http: &str,
    stream: S,
    path_and_query: &str,
    token: Option<Bearer>,
) -> Outcome<WebSocket<S>> {
    let config = WebSocketConfig::default().read_buffer_size(16 * 1024).write_buffer_size(0);
    let mut request = format!("ws://{http}{path_and_query}").into_client_request()?;
    if let Some(Bearer(token)) = token {
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}"))?);
    }
    let (mut socket, _) = client_with_config(request, stream, Some(config))
        .map_err(|error| format!("handshake with {http}{path_and_query}: {error}"))?;
    let first = socket.read()?.into_text()?;
    if !first.contains("\"connected\"") {
        return Err(format!("expected {{\"connected\":…}} from {http}, got {first}").into());
    }
    Ok(socket)
}
