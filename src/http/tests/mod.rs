//! The control plane over real sockets: a listener hands every connection over, as an event loop would.

mod connections;
mod node;
mod publishing;
mod reading;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::auth::{Peer, Resource, Right};
use crate::cluster::members::{Identity, State};
use crate::config::{Hardware, Raw, check};
use crate::memory::{Budget, MemoryUse};
use crate::protocol::answer::{Outcome, Published};
use crate::protocol::draft::{DraftPayload, Item, RequestId};
use crate::protocol::refusal::Code;
use crate::protocol::reply::ItemReply;
use crate::record::{Birth, HistoryCursor, NodeName, Payload, Record, Source, Stamp};

pub(super) use self::node::Few;

const WALL_US: u64 = 1_000_000;
const OPTIONS: HttpOptions =
    HttpOptions { body_bytes_max: 1024, record_bytes_max: 64 << 10, layer_bytes_max: 0 };

/// A layer that changes nothing, but holds what it is said to have read of the socket before.
#[derive(Default)]
pub(super) struct Held(Vec<u8>);

impl SocketLayer for Held {
    fn read(&mut self, socket: &mut (impl Read + Write), buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() {
            return socket.read(buffer);
        }
        let count = self.0.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0.drain(..count);
        Ok(count)
    }

    fn write(&mut self, socket: &mut (impl Read + Write), bytes: &[u8]) -> std::io::Result<usize> {
        socket.write(bytes)
    }

    fn flush(&mut self, socket: &mut (impl Read + Write)) -> std::io::Result<()> {
        socket.flush()
    }

    fn end(&mut self, _: &mut (impl Read + Write)) -> std::io::Result<()> {
        Ok(())
    }

    fn bytes_max(&self) -> usize {
        0
    }
}

/// A client that nothing is known of but its address.
fn stranger() -> serve::HandedClient {
    (Peer { address: [127, 0, 0, 1].into(), certificate: None }, None)
}

/// A connection as an event loop hands it over.
fn handed(socket: TcpStream, layer: Held) -> ClientSocket<Held> {
    socket.set_nonblocking(true).expect("nonblocking");
    ClientSocket { socket, layer }
}

/// A control plane behind a listener that reads only the first bytes of a connection.
struct Served {
    http: Option<Http<Held>>,
    node: Arc<Few>,
    address: SocketAddr,
}

impl Served {
    fn start() -> Served {
        let node = Arc::new(Few::default());
        let json = |text: &'static str| Payload::Json(Bytes::from_static(text.as_bytes()));
        node.put("a/b", 5, json("{ \"x\": 1.0 }"), 0);
        node.put("a/c", 9, json("2"), 0);
        node.put("a/gone", 6, Payload::Deleted, 0);
        node.put("a/over", 7, json("3"), 1);
        node.put("b/history", 200, json("4"), 0);
        let http = Http::start(node.clone(), OPTIONS).expect("starts");
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("address");
        let hand_over = http.hand_over();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepts");
                let mut head = vec![0; 16];
                let count = stream.read(&mut head).expect("reads");
                head.truncate(count);
                let place = hand_over.reserve().expect("a place");
                place.take_over(handed(stream, Held::default()), head, stranger());
            }
        });
        Served { http: Some(http), node, address }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Answered {
        let mut stream = TcpStream::connect(self.address).expect("connects");
        let length = body.len();
        let text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).expect("writes");
        answer(&mut stream, method == "HEAD")
    }

    /// Sends a request without a body, with these lines of header fields.
    fn ask_with(&self, method: &str, path: &str, fields: &str) -> Answered {
        let mut stream = TcpStream::connect(self.address).expect("connects");
        stream.write_all(format!("{method} {path} HTTP/1.1\r\n{fields}\r\n").as_bytes()).expect("writes");
        answer(&mut stream, false)
    }

    fn get(&self, path: &str) -> Answered {
        self.ask("GET", path, "")
    }
}

#[derive(Debug)]
struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn field(&self, pointer: &str) -> serde_json::Value {
        let value: serde_json::Value = serde_json::from_str(&self.body).expect(&self.body);
        value.pointer(pointer).cloned().unwrap_or_default()
    }

    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.field("/status").as_u64()), (status, Some(status.into())), "{self:?}");
        assert_eq!(self.field("/code"), code, "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
    }
}

/// Reads one answer and leaves the connection open.
fn answer(stream: &mut TcpStream, is_head: bool) -> Answered {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("head");
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).expect("utf-8").to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.filter(|_| !is_head).map_or(0, |length| length.parse().expect("length"))];
    stream.read_exact(&mut body).expect("body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("status");
    Answered { status, head, body: String::from_utf8(body).expect("utf-8") }
}
