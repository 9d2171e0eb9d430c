//! A client of HTTP/1.1 that posts a body and reads the status of the answer, for the thread that sends traces.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::super::clock;
use crate::config::trace::TraceEndpoint;

/// Most bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// No answer came.
    #[error("{0}")]
    NoAnswer(#[from] io::Error),
    /// The receiver has answered with another status than 2xx.
    #[error("it answers with the status {0}")]
    Status(u16),
}

impl PostError {
    /// Returns whether the same body may be taken later. OTLP names the statuses of which that is true.
    pub fn is_temporary(&self) -> bool {
        matches!(self, PostError::NoAnswer(_) | PostError::Status(429 | 502 | 503 | 504))
    }
}

/// A socket with or without TLS.
trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// The receiver of the bodies.
#[derive(Debug)]
pub struct PostTarget {
    endpoint: TraceEndpoint,
    tls: Option<Arc<ClientConfig>>,
}

impl PostTarget {
    /// The receiver at `endpoint`. With TLS, the authorities of this system decide whether it is the right one.
    pub fn new(endpoint: TraceEndpoint) -> io::Result<PostTarget> {
        let tls = endpoint.is_tls.then(tls_config).transpose()?;
        Ok(PostTarget { endpoint, tls })
    }

    /// Posts a body of JSON. Every step takes at most `timeout`, and reading the answer no longer than that in all.
    pub fn post(&self, body: &[u8], timeout: Duration) -> Result<(), PostError> {
        let mut socket = self.connect(timeout)?;
        let TraceEndpoint { host, path, .. } = &self.endpoint;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             User-Agent: anode/{}\r\nConnection: close\r\n\r\n",
            body.len(),
            env!("CARGO_PKG_VERSION")
        );
        socket.write_all(head.as_bytes())?;
        socket.write_all(body)?;
        socket.flush()?;
        match status(&mut *socket, timeout)? {
            200..300 => Ok(()),
            status => Err(PostError::Status(status)),
        }
    }

    fn connect(&self, timeout: Duration) -> io::Result<Box<dyn ReadWrite>> {
        let host = &self.endpoint.host;
        let mut last = io::Error::other("its name has no address");
        for address in (host.host.as_str(), host.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(socket) => {
                    socket.set_read_timeout(Some(timeout))?;
                    socket.set_write_timeout(Some(timeout))?;
                    return self.wrap(socket);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn wrap(&self, socket: TcpStream) -> io::Result<Box<dyn ReadWrite>> {
        let Some(config) = &self.tls else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from(self.endpoint.host.host.clone()).map_err(|InvalidDnsNameError| {
            io::Error::other("its host is no name that a certificate can have")
        })?;
        let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(session, socket)))
    }
}

fn tls_config() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
    let builder = builder.map_err(io::Error::other)?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Reads the head of an answer, and returns its status.
fn status(socket: &mut dyn ReadWrite, timeout: Duration) -> io::Result<u16> {
    let end_us = clock::mono_us() + timeout.as_micros() as u64;
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        let parsed = answer.parse(&head).map_err(io::Error::other)?;
        if let (true, Some(status)) = (parsed.is_complete(), answer.code) {
            return Ok(status);
        }
        if head.len() > HEAD_BYTES_MAX || clock::mono_us() > end_us {
            return Err(io::Error::other("its answer does not end"));
        }
        match socket.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
    }
}
