//! Blocking WebSocket clients with deadlines: one that speaks JSON, one that speaks protobuf.
//!
//! The handshake is made by hand, so that a test sees refusals as plain HTTP answers and can offer
//! what no library would; frames are tungstenite's.

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

/// What came next on a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Vec<u8>),
    /// A close frame, with its code if it has one.
    Close(Option<u16>, String),
    /// The connection ended without a close frame.
    Eof,
}

/// The answer to a handshake: an open connection, or a refusal.
pub enum Handshake {
    /// 101, and the subprotocol chosen.
    Open(Box<WebSocket<TcpStream>>, Option<String>),
    /// Anything else.
    Refused(Http),
}

/// Shakes hands at `path`, offering these subprotocols.
pub fn shake(addr: &str, path: &str, protocols: &[&str]) -> Handshake {
    let mut stream = connect(addr);
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
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

/// A refusal may keep the connection open, so its body is read by its length.
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

/// Shakes hands where a refusal is expected.
pub fn refused(addr: &str, path: &str, protocols: &[&str]) -> Http {
    match shake(addr, path, protocols) {
        Handshake::Refused(answer) => answer,
        Handshake::Open(..) => panic!("{path} was upgraded"),
    }
}

/// A connection that speaks JSON, or whatever the test sends.
pub struct Client {
    socket: Box<WebSocket<TcpStream>>,
    /// The first frame: the value of `connected`.
    pub connected: Value,
    /// The subprotocol the server chose.
    pub protocol: Option<String>,
    waiting: VecDeque<Value>,
}

impl Client {
    /// Opens `path` and reads the greeting.
    pub fn open(addr: &str, path: &str) -> Client {
        Client::offering(addr, path, &[])
    }

    /// Opens `path` offering subprotocols, and reads the greeting (of JSON connections).
    pub fn offering(addr: &str, path: &str, protocols: &[&str]) -> Client {
        let (socket, protocol) = match shake(addr, path, protocols) {
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

    /// A connection whose greeting is still to be read.
    pub fn over(socket: Box<WebSocket<TcpStream>>) -> Client {
        Client { socket, connected: Value::Null, protocol: None, waiting: VecDeque::new() }
    }

    /// Sends a message.
    pub fn send(&mut self, message: Message) {
        if let Err(error) = self.socket.send(message) {
            panic!("cannot send: {error}");
        }
    }

    /// Sends a message to a server that may be closing the connection.
    pub fn try_send(&mut self, message: Message) -> bool {
        self.socket.send(message).is_ok()
    }

    /// Sends a text frame.
    pub fn send_text(&mut self, text: &str) {
        self.send(Message::text(text));
    }

    /// Sends a value as a text frame.
    pub fn send_json(&mut self, value: Value) {
        self.send_text(&value.to_string());
    }

    /// Writes bytes beneath the frames.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        // A server that has seen enough may have closed already.
        let _ = self.socket.get_mut().write_all(bytes);
    }

    /// The next event within `within`; `None` if there was none. Pings are answered on the way.
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

    /// The next text frame.
    pub fn text(&mut self) -> String {
        match self.event(PATIENCE) {
            Some(Event::Text(text)) => text,
            other => panic!("expected a text frame, got {other:?}"),
        }
    }

    /// The next text frame as JSON.
    pub fn json(&mut self) -> Value {
        super::json(&self.text())
    }

    /// The next frame that is neither a resume token nor kept from before; kept ones come first.
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

    /// The next record; fails at anything else.
    pub fn record(&mut self) -> Value {
        let value = self.next();
        assert!(value["source"].is_string(), "expected a record, got {value}");
        value
    }

    /// Sends a request and waits for the answer of its id; what else comes meanwhile is kept.
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

    /// Publishes one record with an id of its own making; its answer.
    pub fn publish(&mut self, mut record: Value) -> Value {
        record["id"] = json!("p");
        self.ask(record)
    }

    /// Reads to the end of the snapshot: the answer of the subscription if it comes on the way,
    /// the records, the token.
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

    /// Records as they come (out of arrays too) until `done` says so of the newest.
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

    /// Fails if anything but a resume token comes within `length`.
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

    /// Reads on until the connection is closed; the code of the close frame.
    pub fn close_code(&mut self) -> u16 {
        self.close_code_within(PATIENCE)
    }

    /// As `close_code`, with another deadline.
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

    /// Closes in good order and waits for the echo; its code.
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

    /// The socket beneath.
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

/// What came with a snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The answer to the subscription, if it came here.
    pub result: Value,
    /// The records, in order of arrival.
    pub records: Vec<Value>,
    /// The token of its end.
    pub resume: String,
}

impl Snapshot {
    /// The names of the sources, sorted.
    pub fn sources(&self) -> Vec<String> {
        let names = self.records.iter().filter_map(|record| record["source"].as_str().map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

/// A connection that speaks protobuf.
pub struct ProtoClient {
    /// The connection.
    pub client: Client,
    /// The greeting.
    pub connected: proto::Connected,
}

impl ProtoClient {
    /// Opens `path` with the subprotocol and reads the greeting.
    pub fn open(addr: &str, path: &str) -> ProtoClient {
        let client = Client::offering(addr, path, &["anode.v1.protobuf"]);
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

    /// The next message that is no resume token.
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

    /// The next record.
    pub fn record(&mut self) -> proto::Record {
        match self.next() {
            proto::server_message::Message::Record(record) => record,
            other => panic!("expected a record, got {other:?}"),
        }
    }

    /// The next answer.
    pub fn answer(&mut self) -> proto::Answer {
        match self.next() {
            proto::server_message::Message::Answer(answer) => answer,
            other => panic!("expected an answer, got {other:?}"),
        }
    }
}
