//! Blocking WebSocket clients with deadlines: one for JSON, one for protobuf.
//!
//! The handshake is written by hand, so that a test sees refusals as plain HTTP answers and can offer what no
//! library would. Frames are read and written by tungstenite.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::http::{Http, connect};
use super::proto;
use super::wait::{Deadline, PATIENCE};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The next thing that happened on a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A text frame arrived.
    Text(String),
    /// A binary frame arrived.
    Binary(Vec<u8>),
    /// A close frame arrived. Holds its code, if it has one, and its reason.
    Close(Option<u16>, String),
    /// The connection ended without a close frame.
    Eof,
}

/// The answer to a handshake: an open connection, or a refusal.
pub enum Handshake {
    /// Status 101. Holds the connection and the chosen subprotocol.
    Open(Box<WebSocket<TcpStream>>, Option<String>),
    /// Any other answer.
    Refused(Http),
}

/// Makes a handshake at `path` that offers these subprotocols.
pub fn shake(addr: &str, path: &str, protocols: &[&str]) -> Handshake {
    shake_with(addr, path, protocols, &[("Host", addr)])
}

/// Makes a handshake that offers these subprotocols, with these header fields besides those of every handshake. `Host`
/// must be among them.
pub fn shake_with(addr: &str, path: &str, protocols: &[&str], fields: &[(&str, &str)]) -> Handshake {
    let mut stream = connect(addr);
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !protocols.is_empty() {
        request.push_str(&format!("Sec-WebSocket-Protocol: {}\r\n", protocols.join(", ")));
    }
    request.push_str("\r\n");
    let sent = stream.write_all(request.as_bytes());
    assert!(sent.is_ok(), "handshake at {path}: {sent:?}");
    let (head, rest) = read_head(&mut stream, path);
    if !head.starts_with("HTTP/1.1 101 ") {
        return Handshake::Refused(read_refusal(stream, head, rest));
    }
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .next()
    };
    let accept = tungstenite::handshake::derive_accept_key(KEY.as_bytes());
    assert_eq!(header("sec-websocket-accept"), Some(accept), "{head}");
    let protocol = header("sec-websocket-protocol");
    let mut config = WebSocketConfig::default().read_buffer_size(16 * 1024).write_buffer_size(0);
    config.max_frame_size = None;
    config.max_message_size = None;
    let socket = WebSocket::from_partially_read(stream, rest, Role::Client, Some(config));
    Handshake::Open(Box::new(socket), protocol)
}

fn read_head(stream: &mut TcpStream, path: &str) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return (String::from_utf8_lossy(&bytes).into_owned(), rest);
        }
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&chunk[..read]),
            other => panic!("handshake at {path}: {other:?} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
}

/// Reads the body of a refusal by its length, because the server may keep the connection open.
fn read_refusal(mut stream: TcpStream, head: String, mut body: Vec<u8>) -> Http {
    let mut headers = Vec::new();
    for line in head.lines().skip(1) {
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let mut answer = Http { status, headers, body: String::new() };
    let length = answer.header("content-length").and_then(|text| text.parse::<usize>().ok());
    let mut chunk = [0; 2048];
    while length.is_none_or(|length| body.len() < length) {
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => body.extend_from_slice(&chunk[..read]),
            _ => break,
        }
    }
    answer.body = String::from_utf8_lossy(&body).into_owned();
    answer
}

/// Makes a handshake that must be refused, and returns the refusal.
pub fn refused(addr: &str, path: &str, protocols: &[&str]) -> Http {
    match shake(addr, path, protocols) {
        Handshake::Refused(answer) => answer,
        Handshake::Open(..) => panic!("{path} was upgraded"),
    }
}

/// A client that expects JSON. It can send anything.
pub struct Client {
    socket: Box<WebSocket<TcpStream>>,
    /// The content of `connected` in the first message.
    pub connected: Value,
    /// The subprotocol that the server chose.
    pub protocol: Option<String>,
    waiting: VecDeque<Value>,
}

impl Client {
    /// Opens `path` and reads the first message.
    pub fn open(addr: &str, path: &str) -> Client {
        Client::offering(addr, path, &[])
    }

    /// Opens `path` with an offer of subprotocols, and reads the first message unless it is protobuf.
    pub fn offering(addr: &str, path: &str, protocols: &[&str]) -> Client {
        Client::with_fields(addr, path, protocols, &[])
    }

    /// Opens `path` with a token in the header.
    pub fn with_token(addr: &str, path: &str, token: &str) -> Client {
        Client::with_fields(addr, path, &[], &[("Authorization", &format!("Bearer {token}"))])
    }

    /// Opens `path` with an offer of subprotocols and further header fields, and reads the first message unless it is
    /// protobuf.
    pub fn with_fields(addr: &str, path: &str, protocols: &[&str], fields: &[(&str, &str)]) -> Client {
        let fields: Vec<(&str, &str)> = [("Host", addr)].iter().chain(fields).copied().collect();
        let (socket, protocol) = match shake_with(addr, path, protocols, &fields) {
            Handshake::Open(socket, protocol) => (socket, protocol),
            Handshake::Refused(answer) => panic!("{path} was refused: {answer:?}"),
        };
        let mut client = Client { socket, connected: Value::Null, protocol, waiting: VecDeque::new() };
        if client.protocol.as_deref() != Some("anode.v1.protobuf") {
            let first = client.json();
            assert!(first["connected"].is_object(), "first frame: {first}");
            client.connected = first["connected"].clone();
        }
        client
    }

    /// Makes a client from an open connection whose first message has not been read.
    pub fn over(socket: Box<WebSocket<TcpStream>>) -> Client {
        Client { socket, connected: Value::Null, protocol: None, waiting: VecDeque::new() }
    }

    /// Sends a message. Fails if it cannot be sent.
    pub fn send(&mut self, message: Message) {
        if let Err(error) = self.socket.send(message) {
            panic!("cannot send: {error}");
        }
    }

    /// Sends a message to a server that may be closing the connection. Returns whether it could be sent.
    pub fn try_send(&mut self, message: Message) -> bool {
        self.socket.send(message).is_ok()
    }

    /// Sends a text frame.
    pub fn send_text(&mut self, text: &str) {
        self.send(Message::text(text));
    }

    /// Sends a JSON value as a text frame.
    pub fn send_json(&mut self, value: Value) {
        self.send_text(&value.to_string());
    }

    /// Writes bytes to the socket, without a frame around them.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        // The server may have closed the connection already because of the bytes before.
        let _ = self.socket.get_mut().write_all(bytes);
    }

    /// Returns the next event; `None` if there is none within `within`. Pings are answered and not returned.
    pub fn event(&mut self, within: Duration) -> Option<Event> {
        let deadline = Deadline::after(within);
        while let Some(left) = deadline.left() {
            let _ = self.socket.get_mut().set_read_timeout(Some(left.max(Duration::from_millis(1))));
            match self.socket.read() {
                Ok(Message::Text(text)) => return Some(Event::Text(text.as_str().to_owned())),
                Ok(Message::Binary(bytes)) => return Some(Event::Binary(bytes.to_vec())),
                Ok(Message::Close(frame)) => return Some(closed(frame)),
                Ok(_) => {}
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return Some(Event::Eof),
            }
        }
        None
    }

    /// Returns the next text frame. Fails at any other event.
    pub fn text(&mut self) -> String {
        match self.event(PATIENCE) {
            Some(Event::Text(text)) => text,
            other => panic!("expected a text frame, got {other:?}"),
        }
    }

    /// Returns the next text frame as JSON.
    pub fn json(&mut self) -> Value {
        super::json(&self.text())
    }

    /// Returns the next message that is not a resume token. Messages that `ask` has set aside come first.
    pub fn next(&mut self) -> Value {
        if let Some(value) = self.waiting.pop_front() {
            return value;
        }
        loop {
            let value = self.json();
            if value.get("resume").is_none() {
                return value;
            }
        }
    }

    /// Returns the next message, which must be a record.
    pub fn record(&mut self) -> Value {
        let value = self.next();
        assert!(value["source"].is_string(), "expected a record, got {value}");
        value
    }

    /// Sends a request and returns the answer with its id. Other messages that arrive meanwhile are set
    /// aside.
    pub fn ask(&mut self, request: Value) -> Value {
        let id = request["id"].clone();
        self.send_json(request);
        let mut kept = VecDeque::new();
        let answer = loop {
            let value = self.next();
            if value.get("id") == Some(&id) {
                break value;
            }
            kept.push_back(value);
        };
        kept.append(&mut self.waiting);
        self.waiting = kept;
        answer
    }

    /// Publishes one record with an id that is chosen here, and returns the answer.
    pub fn publish(&mut self, mut record: Value) -> Value {
        record["id"] = json!("p");
        self.ask(record)
    }

    /// Reads up to the end of the snapshot. Returns its records and token, and the answer to the subscription
    /// if it arrives in between.
    pub fn snapshot(&mut self) -> Snapshot {
        let mut snapshot = Snapshot { result: Value::Null, records: Vec::new(), resume: String::new() };
        loop {
            match self.next() {
                Value::Array(items) => snapshot.records.extend(items),
                value if value.get("eos").is_some() => {
                    snapshot.resume = value["eos"]["resume"].as_str().unwrap_or_default().to_owned();
                    assert!(!snapshot.resume.is_empty(), "eos without a token: {value}");
                    return snapshot;
                }
                value if value.get("result").is_some() => snapshot.result = value["result"].clone(),
                value if value["source"].is_string() => snapshot.records.push(value),
                value => panic!("unexpected in a snapshot: {value}"),
            }
        }
    }

    /// Reads records, also those in arrays, until `done` returns true for the last one. Returns all of them.
    pub fn records_until(&mut self, within: Duration, mut done: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let deadline = Deadline::after(within);
        let mut records = Vec::new();
        loop {
            let left = deadline.left();
            assert!(
                left.is_some(),
                "not done within {within:?}; {} records, the last {:?}",
                records.len(),
                records.last()
            );
            let items = match self.next() {
                Value::Array(items) => items,
                value => vec![value],
            };
            for item in items {
                let is_last = done(&item);
                records.push(item);
                if is_last {
                    return records;
                }
            }
        }
    }

    /// Fails if anything but a resume token arrives within `length`.
    pub fn assert_silent(&mut self, length: Duration) {
        assert!(self.waiting.is_empty(), "was still waiting: {:?}", self.waiting);
        let deadline = Deadline::after(length);
        while let Some(left) = deadline.left() {
            match self.event(left) {
                None => {}
                Some(Event::Text(text)) if text.starts_with("{\"resume\"") => {}
                Some(event) => panic!("expected silence, got {event:?}"),
            }
        }
    }

    /// Reads until the connection is closed and returns the code of the close frame.
    pub fn close_code(&mut self) -> u16 {
        self.close_code_within(PATIENCE)
    }

    /// Reads until the connection is closed, at most for `within`, and returns the code of the close frame.
    pub fn close_code_within(&mut self, within: Duration) -> u16 {
        let deadline = Deadline::after(within);
        let mut last = None;
        while let Some(left) = deadline.left() {
            match self.event(left) {
                Some(Event::Close(Some(code), _)) => return code,
                Some(event @ (Event::Close(None, _) | Event::Eof)) => {
                    panic!("closed without a code ({event:?}); the last frame: {last:?}")
                }
                Some(event) => last = Some(event),
                None => {}
            }
        }
        panic!("not closed within {within:?}; the last frame: {last:?}");
    }

    /// Closes the connection with code 1000, waits for the server's close frame, and returns its code.
    pub fn close(mut self) -> Option<u16> {
        let frame = CloseFrame { code: 1000.into(), reason: "".into() };
        self.socket.close(Some(frame)).ok()?;
        loop {
            match self.event(PATIENCE)? {
                Event::Close(code, _) => return code,
                Event::Eof => return None,
                _ => {}
            }
        }
    }

    /// Returns the TCP stream under the WebSocket.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }
}

fn closed(frame: Option<CloseFrame>) -> Event {
    match frame {
        Some(frame) => Event::Close(Some(frame.code.into()), frame.reason.as_str().to_owned()),
        None => Event::Close(None, String::new()),
    }
}

/// The messages of a snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The answer to the subscription, if it arrived during the snapshot.
    pub result: Value,
    /// The records in the order of their arrival.
    pub records: Vec<Value>,
    /// The resume token at the end.
    pub resume: String,
}

impl Snapshot {
    /// Returns the names of the sources, sorted.
    pub fn sources(&self) -> Vec<String> {
        let names = self.records.iter().filter_map(|record| record["source"].as_str().map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

/// A client that uses protobuf.
pub struct ProtoClient {
    /// The connection, which reads and writes the frames.
    pub client: Client,
    /// The content of the first message.
    pub connected: proto::Connected,
}

impl ProtoClient {
    /// Opens `path` with the protobuf subprotocol and reads the first message.
    pub fn open(addr: &str, path: &str) -> ProtoClient {
        ProtoClient::with_fields(addr, path, &[])
    }

    /// Opens `path` with the protobuf subprotocol and further header fields, and reads the first message.
    pub fn with_fields(addr: &str, path: &str, fields: &[(&str, &str)]) -> ProtoClient {
        let client = Client::with_fields(addr, path, &["anode.v1.protobuf"], fields);
        assert_eq!(client.protocol.as_deref(), Some("anode.v1.protobuf"));
        let mut client = ProtoClient { client, connected: proto::Connected::default() };
        match client.next() {
            proto::server_message::Message::Connected(connected) => client.connected = connected,
            other => panic!("first message: {other:?}"),
        }
        client
    }

    /// Sends a message.
    pub fn send(&mut self, message: proto::client_message::Message) {
        let bytes = proto::ClientMessage { message: Some(message) }.encode_to_vec();
        self.client.send(Message::binary(bytes));
    }

    /// Publishes one record.
    pub fn publish(&mut self, publish: proto::Publish) {
        self.send(proto::client_message::Message::Publish(publish));
    }

    /// Returns the next message that is not a resume token.
    pub fn next(&mut self) -> proto::server_message::Message {
        loop {
            let bytes = match self.client.event(PATIENCE) {
                Some(Event::Binary(bytes)) => bytes,
                other => panic!("expected a binary frame, got {other:?}"),
            };
            match proto::ServerMessage::decode(bytes.as_slice()) {
                Ok(proto::ServerMessage { message: Some(proto::server_message::Message::Resume(_)) }) => {}
                Ok(proto::ServerMessage { message: Some(message) }) => return message,
                other => panic!("undecodable message: {other:?}"),
            }
        }
    }

    /// Returns the next message, which must be a record.
    pub fn record(&mut self) -> proto::Record {
        match self.next() {
            proto::server_message::Message::Record(record) => record,
            other => panic!("expected a record, got {other:?}"),
        }
    }

    /// Returns the next message, which must be an answer.
    pub fn answer(&mut self) -> proto::Answer {
        match self.next() {
            proto::server_message::Message::Answer(answer) => answer,
            other => panic!("expected an answer, got {other:?}"),
        }
    }
}
