//! TLS clients, and certificates made for a test: an authority, and what it signs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use serde_json::Value;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use super::http::{Http, connect};
use super::node::{Node, NodeConfig};
use super::ports;
use super::wait::{PATIENCE, eventually};

/// An authority that signs certificates, and a directory with their files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    dir: tempfile::TempDir,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, followed by nothing.
    pub cert: String,
    /// The private key.
    pub key: String,
}

fn must<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

impl Authority {
    /// Makes an authority with a name, and a directory with its certificate (`ca.pem`).
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = must("key", KeyPair::generate());
        let pem = must("authority", params.self_signed(&key)).pem();
        let dir = must("directory", tempfile::tempdir());
        must("written", std::fs::write(dir.path().join("ca.pem"), &pem));
        Authority { issuer: Issuer::new(params, key), pem, dir }
    }

    /// Makes a certificate with a common name and these DNS names and addresses.
    pub fn pair(&self, common_name: &str, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = must("names", CertificateParams::new(names));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = must("key", KeyPair::generate());
        let cert = must("certificate", params.signed_by(&key, &self.issuer)).pem();
        Pair { cert, key: key.serialize_pem() }
    }

    /// Makes a certificate for nodes on loopback.
    pub fn of_node(&self) -> Pair {
        self.pair("a node", &["localhost", "127.0.0.1", "::1"])
    }

    /// The path of a file in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of a file in the directory, as text.
    pub fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a pair to `cert.pem` and `key.pem`.
    pub fn write(&self, pair: &Pair) {
        must("written", std::fs::write(self.path("cert.pem"), &pair.cert));
        must("written", std::fs::write(self.path("key.pem"), &pair.key));
    }

    /// The settings of a client that trusts this authority.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        Arc::new(self.builder(versions).with_no_client_auth())
    }

    /// The settings of a client that trusts this authority and shows a certificate.
    pub fn client_as(&self, pair: &Pair) -> Arc<ClientConfig> {
        let chain = must("chain", CertificateDer::pem_slice_iter(pair.cert.as_bytes()).collect());
        let key = must("key", PrivateKeyDer::from_pem_slice(pair.key.as_bytes()));
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        Arc::new(must("client", self.builder(&versions).with_client_auth_cert(chain, key)))
    }

    fn builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.pem.as_bytes()) {
            must("root", roots.add(must("root", root)));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        must("versions", builder.with_protocol_versions(versions)).with_root_certificates(roots)
    }
}

/// A blocking connection with TLS, whose handshake is done as it is read and written.
pub struct TlsStream {
    /// The state of TLS.
    pub tls: ClientConnection,
    /// The socket that the encrypted bytes go through.
    pub socket: TcpStream,
    /// Bytes that are written to the socket at a time.
    pub piece_bytes: usize,
}

impl TlsStream {
    /// Connects to a node, and does not begin the handshake.
    pub fn connect(addr: &str, config: &Arc<ClientConfig>) -> TlsStream {
        let name = must("name", "localhost".try_into());
        let tls = must("client", ClientConnection::new(config.clone(), name));
        TlsStream { tls, socket: connect(addr), piece_bytes: usize::MAX }
    }

    /// Sends everything that TLS has to send.
    pub fn send_tls(&mut self) -> std::io::Result<()> {
        while self.tls.wants_write() {
            let mut bytes = Vec::new();
            self.tls.write_tls(&mut bytes)?;
            for piece in bytes.chunks(self.piece_bytes.min(bytes.len()).max(1)) {
                self.socket.write_all(piece)?;
            }
        }
        Ok(())
    }

    /// Goes on until the handshake is done.
    pub fn shake(&mut self) -> std::io::Result<()> {
        while self.tls.is_handshaking() {
            self.send_tls()?;
            if self.tls.is_handshaking() {
                self.read_tls()?;
            }
        }
        self.send_tls()
    }

    fn read_tls(&mut self) -> std::io::Result<()> {
        if self.tls.read_tls(&mut self.socket)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let handled = self.tls.process_new_packets().map_err(std::io::Error::other);
        // An alert of this side's own.
        let _ = self.send_tls();
        handled.map(drop)
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.send_tls()?;
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.read_tls()?,
                read => return read,
            }
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.shake()?;
        let written = self.tls.writer().write(bytes)?;
        self.send_tls()?;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.send_tls()
    }
}

/// A node that speaks TLS, with a plain port to watch it by.
pub struct TlsNode {
    /// The node's process, with its addresses and its log.
    pub node: Node,
    /// Address of the port with the health paths.
    pub watch: String,
    /// The settings of clients.
    pub client: Arc<ClientConfig>,
}

impl TlsNode {
    /// Starts a node with a certificate of this authority, and waits until it is ready.
    pub fn start(authority: &Authority, flags: &[&str]) -> TlsNode {
        authority.write(&authority.of_node());
        TlsNode::start_with(authority, NodeConfig::named("a").in_memory().with(flags))
    }

    /// Starts a node with the certificate in the authority's directory, and waits until it is ready.
    pub fn start_with(authority: &Authority, config: NodeConfig) -> TlsNode {
        let watch = format!("127.0.0.1:{}", ports::free());
        let (cert, key) = (authority.file("cert.pem"), authority.file("key.pem"));
        let config = config.with(&["--tls-cert", &cert, "--tls-key", &key, "--metrics", &watch]);
        let node = Node::spawn(config);
        eventually("the node is ready", PATIENCE, || {
            let answer = Http::attempt(&watch, "GET", "/readyz", &[], b"").ok()?;
            (answer.status == 200).then_some(())
        });
        let client = authority.client(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        TlsNode { node, watch, client }
    }

    /// Opens a connection. The handshake is done.
    pub fn connect(&self) -> TlsStream {
        let mut stream = TlsStream::connect(&self.node.http, &self.client);
        must("handshake", stream.shake());
        stream
    }

    /// Opens a WebSocket over a stream, and reads the first message.
    pub fn websocket(&self, stream: TlsStream, path: &str) -> TlsSocket {
        let url = format!("ws://{}{path}", self.node.http);
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        match tungstenite::client::client_with_config(url, stream, Some(config)) {
            Ok((socket, _)) => {
                let mut socket = TlsSocket(socket);
                let first = socket.json();
                assert!(first["connected"].is_object(), "{first}");
                socket
            }
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Opens a subscription and reads its snapshot.
    pub fn subscriber(&self, query: &str) -> TlsSocket {
        let mut socket = self.websocket(self.connect(), &format!("/subscribe?{query}"));
        while socket.json().get("eos").is_none() {}
        socket
    }

    /// Sends a request that closes the connection, and returns the whole answer.
    pub fn request(&self, request: &str) -> Http {
        let mut stream = self.connect();
        must("sent", stream.write_all(request.as_bytes()));
        must("answer", Http::read(&mut stream))
    }

    /// Sends `GET path`.
    pub fn get(&self, path: &str) -> Http {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    /// Publishes a frame over HTTP.
    pub fn post(&self, frame: &Value) -> Http {
        let body = frame.to_string();
        self.request(&format!(
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Publishes a record, which must be applied.
    pub fn put(&self, source: &str, data: Value) {
        let answer = self.post(&serde_json::json!({"source": source, "data": data}));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Returns the value of a metric; 0 if it has none yet.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        super::http::metric(&Http::get(&self.watch, "/metrics").body, name, labels).unwrap_or(0.0)
    }
}

/// A WebSocket over TLS.
pub struct TlsSocket(pub WebSocket<TlsStream>);

impl TlsSocket {
    /// Sends a JSON value.
    pub fn send(&mut self, value: &Value) {
        must("sent", self.0.send(Message::text(value.to_string())));
    }

    /// Returns the next text frame as JSON.
    pub fn json(&mut self) -> Value {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return super::json(&text),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("expected a text frame, got {other:?}"),
            }
        }
    }

    /// Returns the next record. Resume tokens are left out.
    pub fn record(&mut self) -> Value {
        loop {
            let value = self.json();
            if value["source"].is_string() {
                return value;
            }
            assert!(value.get("resume").is_some(), "expected a record, got {value}");
        }
    }

    /// Reads until the connection is closed, and returns the code of the close frame.
    pub fn close_code(&mut self, within: Duration) -> u16 {
        let _ = self.0.get_ref().socket.set_read_timeout(Some(within));
        loop {
            match self.0.read() {
                Ok(Message::Close(Some(frame))) => return frame.code.into(),
                Ok(Message::Close(None)) => panic!("closed without a code"),
                Ok(_) => {}
                Err(error) => panic!("no close frame: {error}"),
            }
        }
    }
}

/// Writes a file in one step, as those do who renew certificates.
pub fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    must("written", std::fs::write(&new, text));
    must("renamed", std::fs::rename(new, path));
}
