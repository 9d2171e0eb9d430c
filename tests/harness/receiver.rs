//! An HTTP server that keeps what it is sent, and answers or fails as a test says.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::tls::Pair;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method in capitals.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The header fields, with names in small letters.
    pub headers: Vec<(String, String)>,
    /// All bytes of the body.
    pub body: Vec<u8>,
    /// When it came.
    pub at: Instant,
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// Answers with a status, header fields, and a body.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// Says nothing until the client goes.
    Hang,
    /// Closes the connection without an answer.
    Cut,
    /// Answers 200 with a body that is longer than what is sent of it, and then says nothing.
    SlowBody,
    /// Begins an answer, and closes the connection in the middle of its head.
    HalfHead,
}

impl Reaction {
    /// An answer with a status alone.
    pub fn status(status: u16) -> Reaction {
        Reaction::Answer(status, Vec::new(), Vec::new())
    }

    /// An answer with a status and one header field.
    pub fn with(status: u16, name: &str, value: &str) -> Reaction {
        Reaction::Answer(status, vec![(name.into(), value.into())], Vec::new())
    }
}

impl Received {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

type React = dyn Fn(&Received) -> Reaction + Send + Sync;

/// The server. It ends when this value is dropped, and its port refuses connections from then on.
pub struct Receiver {
    /// The address, `127.0.0.1:PORT`.
    pub addr: String,
    requests: Arc<Mutex<Vec<Received>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    /// Starts a server at a free port.
    pub fn start(react: impl Fn(&Received) -> Reaction + Send + Sync + 'static) -> Receiver {
        Receiver::at(&format!("127.0.0.1:{}", super::ports::free()), None, react)
    }

    /// Starts a server at this address, with TLS if there is a certificate.
    pub fn at(
        addr: &str,
        pair: Option<&Pair>,
        react: impl Fn(&Received) -> Reaction + Send + Sync + 'static,
    ) -> Receiver {
        let listener = match TcpListener::bind(addr) {
            Ok(listener) => listener,
            Err(error) => panic!("no listener at {addr}: {error}"),
        };
        let tls = pair.map(server_config);
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let react: Arc<React> = Arc::new(react);
        let (kept, stopped) = (requests.clone(), stop.clone());
        let accept = move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
                let (kept, stopped, react, tls) = (kept.clone(), stopped.clone(), react.clone(), tls.clone());
                std::thread::spawn(move || serve(stream, tls, &kept, &stopped, &*react));
            }
        };
        let thread = Some(std::thread::spawn(accept));
        Receiver { addr: addr.into(), requests, stop, thread }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Received> {
        self.requests.lock().map(|requests| requests.clone()).unwrap_or_default()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(&self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn server_config(pair: &Pair) -> Arc<rustls::ServerConfig> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.cert.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()
        .zip(chain.ok().zip(key.ok()))
        .and_then(|(builder, (chain, key))| builder.with_no_client_auth().with_single_cert(chain, key).ok());
    match config {
        Some(config) => Arc::new(config),
        None => panic!("the certificate cannot be used"),
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    kept: &Mutex<Vec<Received>>,
    stop: &AtomicBool,
    react: &React,
) {
    match tls {
        None => serve_over(stream, kept, stop, react),
        Some(config) => {
            if let Ok(connection) = rustls::ServerConnection::new(config) {
                serve_over(rustls::StreamOwned::new(connection, stream), kept, stop, react);
            }
        }
    }
}

fn serve_over(mut stream: impl Read + Write, kept: &Mutex<Vec<Received>>, stop: &AtomicBool, react: &React) {
    let mut bytes = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut bytes, stop) {
        let is_last = request.header("connection").is_some_and(|wish| wish.eq_ignore_ascii_case("close"));
        let reaction = react(&request);
        if let Ok(mut kept) = kept.lock() {
            kept.push(request);
        }
        match reaction {
            Reaction::Answer(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
                headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
                head.push_str("\r\n");
                let is_written =
                    stream.write_all(&[head.as_bytes(), &body].concat()).and_then(|()| stream.flush());
                if is_last || is_written.is_err() {
                    return;
                }
            }
            Reaction::Cut => return,
            Reaction::HalfHead => {
                let _ = stream.write_all(b"HTTP/1.1 200 O");
                return;
            }
            Reaction::Hang => return drain(&mut stream, stop),
            Reaction::SlowBody => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx");
                let _ = stream.flush();
                return drain(&mut stream, stop);
            }
        }
    }
}

/// Reads until the client goes.
fn drain(stream: &mut impl Read, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if is_waiting(&error) => {}
            Err(_) => return,
        }
    }
}

fn is_waiting(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn read_request(stream: &mut impl Read, bytes: &mut Vec<u8>, stop: &AtomicBool) -> Option<Received> {
    loop {
        if let Some((request, length)) = parse(bytes) {
            bytes.drain(..length);
            return Some(request);
        }
        let mut buffer = [0; 64 * 1024];
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if is_waiting(&error) && !stop.load(Ordering::Relaxed) => {}
            Err(_) => return None,
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(Received, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers: Vec<(String, String)> = lines.filter_map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(Some(0), |(_, value)| value.parse().ok())?;
    let body = bytes.get(end + 4..end + 4 + length)?.to_vec();
    Some((Received { method, path, headers, body, at: now() }, end + 4 + length))
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
