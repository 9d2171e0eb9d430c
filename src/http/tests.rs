//! The control plane over real sockets: a listener hands every connection over, as an event loop would.

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

/// Memory enough for as many connections as there may be, of which one request may have 64 KiB.
struct Memory(Arc<Budget>);

impl Default for Memory {
    fn default() -> Memory {
        Memory(Arc::new(Budget::new(512 << 20, 64 << 10)))
    }
}

/// A door without a file of rights.
struct TestDoor(Door);

impl Default for TestDoor {
    fn default() -> TestDoor {
        let machine = Hardware { cores: 1, memory_bytes: 1 << 30 };
        let raw = Raw { allow_host: Some("x".into()), ..Raw::default() };
        TestDoor(Door::new(check(&raw, machine).expect("a configuration").access, None))
    }
}

/// A node of a few records.
#[derive(Default)]
pub(super) struct Few {
    records: Mutex<BTreeMap<String, SharedRecord>>,
    metrics: Metrics,
    memory: Memory,
    door: TestDoor,
    not_ready: Mutex<Option<String>>,
    /// The requests that have waited for changes.
    watched: Mutex<Vec<(String, Nudge)>>,
    /// Bytes that were leased whenever a part of a history was read.
    leased_at_reads: Mutex<Vec<usize>>,
    /// The monotonic clock, in microseconds.
    mono_us: Arc<AtomicU64>,
}

fn record(source: &str, ts: u64, payload: Payload, ttl_ms: u64) -> Record {
    let stamp = match &payload {
        Payload::Deleted => Stamp::of_deletion(ts),
        data => Stamp::of_data(ts, data.bytes()),
    };
    let birth = Birth { origin: NodeName::parse("n1").expect("name"), boot: 1, seq: 1 };
    Record::new(Source::parse(source).expect("source"), stamp, payload, birth, ts, ttl_ms)
}

impl Few {
    /// Publishes one item. `None` means that there will be no answer.
    fn publish_item(&self, item: &Item<'_>, level: AckLevel) -> Option<Result<Published, Refusal>> {
        let draft = match &item.draft {
            Ok(draft) => draft,
            Err(refusal) => return Some(Err(refusal.clone())),
        };
        let ts = draft.ts.unwrap_or(WALL_US);
        if &*draft.source == "lost" {
            return None;
        }
        if &*draft.source == "late" {
            let refusal = Refusal::new(Code::Timeout, "2 of 3 nodes").after_applying(ts);
            return Some(Err(Refusal { nodes: Some(2), ..refusal }));
        }
        if let DraftPayload::Json(bytes) = &draft.payload {
            self.put(&draft.source, ts, Payload::Json(Bytes::copy_from_slice(bytes)), draft.ttl_ms);
        }
        Some(Ok(Published { ts, outcome: Outcome::Applied, level, nodes: None }))
    }

    fn put(&self, source: &str, ts: u64, payload: Payload, ttl_ms: u64) {
        self.records.lock().insert(source.into(), Arc::new(record(source, ts, payload, ttl_ms)));
        self.watched.lock().iter().filter(|(name, _)| name == source).for_each(|(_, nudge)| nudge.wake());
    }
}

/// A page that was found at once, and takes some turns all the same.
struct Found {
    records: Vec<SharedRecord>,
    parts: usize,
    /// The clock, and how much later it is after each turn, in microseconds.
    clock: (Arc<AtomicU64>, u64),
}

impl PageSearch for Found {
    fn advance(&mut self) -> bool {
        self.clock.0.fetch_add(self.clock.1, Ordering::Relaxed);
        self.parts -= 1;
        self.parts == 0
    }

    fn into_records(self: Box<Self>) -> Vec<SharedRecord> {
        self.records
    }
}

/// A walk that has found everything, and returns one record at a time.
struct Walked(Vec<SharedRecord>);

impl RecordWalk for Walked {
    fn next_part(&mut self, _: usize) -> Vec<SharedRecord> {
        self.0.drain(..1).collect()
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// A watch that nobody counts.
struct Unwatched;

impl SourceWatch for Unwatched {}

impl NodeService for Few {
    fn now(&self) -> Now {
        Now { mono_us: self.mono_us.load(Ordering::Relaxed), wall_us: WALL_US }
    }

    fn readiness(&self) -> Result<(), String> {
        self.not_ready.lock().clone().map_or(Ok(()), Err)
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn is_turning(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        "n1"
    }

    fn subscribe(&self, _: &str, _: Option<Access>, _: IpAddr) -> Result<UnixStream, Refusal> {
        Err(Refusal::new(Code::Overloaded, "no subscriptions here"))
    }

    fn members(&self) -> Vec<MemberInfo> {
        let (name, gossip) =
            (NodeName::parse("n1").expect("name"), "10.0.0.1:7946".parse().expect("address"));
        let identity = Identity::new(name, 7, gossip, "10.0.0.1:7070", "z\"1", "0.1.0");
        let mut other = identity.clone();
        other.name = NodeName::parse("n2").expect("name");
        let member = |identity, state, rtt_us| MemberInfo {
            identity: Arc::new(identity),
            state,
            cannot_reach_us: false,
            keys: None,
            incarnation: 3,
            rtt_us,
        };
        vec![member(identity, State::Alive, None), member(other, State::Suspect, Some(310))]
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.records.lock().get(source).cloned()
    }

    fn search(&self, wanted: PageRequest<'_>) -> Box<dyn PageSearch> {
        let PageRequest { pattern, after, limit, updated_since, reader } = wanted;
        let records = self.records.lock();
        let is_after = |name: &str| {
            after.is_none_or(|after| name > after)
                && reader.as_ref().is_none_or(|reader| reader.rights().may_read(name))
        };
        let found = records
            .iter()
            .filter(|(name, record)| is_after(name) && pattern.matches(name) && record.is_visible(WALL_US))
            .filter(|(_, record)| updated_since.is_none_or(|since| record.stamp.ts > since))
            .map(|(_, record)| record.clone())
            .take(limit)
            .collect();
        // A search that takes long, as far as the clock tells.
        let (parts, step_us) = if pattern.as_str() == "a/*" && limit == 8 { (50, 100_000) } else { (3, 0) };
        Box::new(Found { records: found, parts, clock: (self.mono_us.clone(), step_us) })
    }

    fn walk(&self, pattern: Pattern, _: Option<Access>) -> Box<dyn RecordWalk> {
        let records = self.records.lock();
        let found = records.iter().filter(|(name, _)| pattern.matches(name));
        Box::new(Walked(found.map(|(_, record)| record.clone()).collect()))
    }

    fn watch(&self, source: &str, nudge: Nudge) -> Option<Box<dyn SourceWatch>> {
        self.watched.lock().push((source.into(), nudge));
        Some(Box::new(Unwatched))
    }

    /// The history of a source is one record for each number up to its latest `ts`.
    fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, Refusal> {
        self.leased_at_reads.lock().push(self.memory.0.taken());
        let latest = self.get(&query.source).map_or(0, |record| record.stamp.ts);
        let payload = Payload::Json(Bytes::from_static(b"0"));
        let counted = (1..=latest).rev().map(|ts| record(&query.source, ts, payload.clone(), 0));
        let mut shown: Vec<Record> = counted.filter(|record| query.selects(record.stamp)).collect();
        let has_more = shown.len() > query.limit;
        shown.truncate(query.limit);
        let last = shown.last().filter(|_| has_more);
        Ok(HistoryPage { after: last.map(|record| HistoryCursor(record.stamp)), records: shown })
    }

    fn door(&self) -> &Door {
        &self.door.0
    }

    fn publish(&self, frame: &PublishFrame<'_>, level: AckLevel, reply: Reply, _: Option<&PublishRights>) {
        let mut items = Vec::new();
        for (index, item) in frame.items.iter().enumerate() {
            let Some(answer) = self.publish_item(item, level) else { return };
            if item.id.is_some() || answer.is_err() || !frame.is_batch {
                items.push(ItemReply { id: item.id.as_ref().map(RequestId::to_owned), index, answer });
            }
        }
        let told = if items.is_empty() && frame.items.is_empty() {
            FrameReply::One(Err(Refusal::new(Code::BadRequest, "an empty batch")))
        } else if frame.is_batch {
            FrameReply::Batch(items)
        } else {
            FrameReply::One(items.remove(0).answer)
        };
        // From another thread, as the store does it.
        std::thread::spawn(move || reply.send(told));
    }

    fn publish_if(
        &self,
        condition: &Precondition,
        frame: &PublishFrame<'_>,
        level: AckLevel,
        reply: Reply,
        rights: Option<&PublishRights>,
    ) {
        let Some(Ok(draft)) = frame.items.first().map(|item| &item.draft) else { return };
        match condition.check(self.get(&draft.source).as_deref(), WALL_US) {
            Ok(()) => self.publish(frame, level, reply, rights),
            Err(refusal) => reply.send(FrameReply::One(Err(refusal))),
        }
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn drain(&self) {
        *self.not_ready.lock() = Some("draining".into());
    }

    fn forget(&self, member: &str) -> Result<u64, ForgetError> {
        if member == "n2" { Err(ForgetError::Alive) } else { Err(ForgetError::Unknown) }
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn memory(&self) -> &Arc<Budget> {
        &self.memory.0
    }

    fn refused(&self, status: u16, _: &Refusal, _: IpAddr) {
        self.metrics.clients.refused(status);
    }

    fn memory_refused(&self, wanted: MemoryUse) {
        self.metrics.memory_refused(wanted);
    }
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

#[test]
fn health_and_readiness() {
    let served = Served::start();
    assert_eq!(served.get("/healthz").status, 200);
    assert_eq!(served.get("/readyz").status, 200);
    *served.node.not_ready.lock() = Some("the store is loading".into());
    let answer = served.get("/readyz");
    answer.is_problem(503, "not_ready");
    assert_eq!(answer.field("/detail"), "the store is loading");
}

#[test]
fn members_and_metrics() {
    let served = Served::start();
    let members = served.get("/v1/members");
    assert_eq!(
        members.field("/members/1").to_string(),
        concat!(
            r#"{"boot":7,"gossip":"10.0.0.1:7946","http":"10.0.0.1:7070","id":"n2","incarnation":3,"#,
            r#""rtt_us":310,"state":"suspect","version":"0.1.0","zone":"z\"1"}"#
        )
    );
    assert!(members.field("/members/0/rtt_us").is_null());
    assert!(!members.head.contains("access-control"), "{members:?}");
    let asked =
        |origin: &str| served.ask_with("GET", "/v1/members", &format!("Host: x\r\nOrigin: {origin}\r\n"));
    assert!(asked("http://x").head.contains("access-control-allow-origin: http://x\r\n"));
    assert!(!asked("http://y").head.contains("access-control"), "another page sees nothing");
    let metrics = served.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{metrics:?}");
    assert!(metrics.body.contains("\nanode_connections{endpoint=\"http\"} "), "{}", metrics.body);
}

#[test]
fn records_are_verbatim_and_absent_ones_404() {
    let served = Served::start();
    for path in ["/v1/sources/a/b", "/v1/sources/a%2Fb"] {
        let answer = served.get(path);
        assert_eq!(answer.body, r#"{"source":"a/b","ts":5,"origin":"n1","data":{ "x": 1.0 }}"#);
        assert!(answer.head.contains("content-type: application/json"), "{answer:?}");
    }
    served.get("/v1/sources/never").is_problem(404, "not_found");
    assert!(served.get("/v1/sources/never").field("/deleted").is_null());
    for gone in ["/v1/sources/a/gone", "/v1/sources/a/over"] {
        let answer = served.get(gone);
        answer.is_problem(404, "not_found");
        assert_eq!(answer.field("/deleted"), true);
        assert!(answer.field("/ts").is_u64() && answer.field("/source").is_string(), "{answer:?}");
    }
    served.get("/v1/sources/").is_problem(400, "bad_source");
    served.get("/v1/sources/a//b").is_problem(400, "bad_source");
    served.get("/v1/sources/a?x=1").is_problem(400, "bad_request");
}

#[test]
fn lists_in_order_of_name_page_by_page() {
    let served = Served::start();
    let names = |answer: &Answered| -> Vec<String> {
        let records = answer.field("/records");
        let names = records.as_array().expect("array").iter().map(|record| record["source"].to_string());
        names.collect()
    };
    let all = served.get("/v1/sources");
    assert_eq!(names(&all), [r#""a/b""#, r#""a/c""#, r#""b/history""#]);
    assert!(all.field("/after").is_null());
    let first = served.get("/v1/sources?pattern=a/*&limit=1");
    assert_eq!((names(&first), first.field("/after")), (vec![r#""a/b""#.to_owned()], "a/b".into()));
    let second = served.get("/v1/sources?pattern=a%2F*&limit=1&after=a/b");
    assert_eq!((names(&second), second.field("/after").is_null()), (vec![r#""a/c""#.to_owned()], true));
    served.get("/v1/sources?pattern=a**").is_problem(400, "bad_pattern");
    served.get("/v1/sources?limit=0").is_problem(400, "bad_request");
    served.get("/v1/sources?limti=1").is_problem(400, "bad_request");
}

#[test]
fn history_newest_first_page_by_page() {
    let served = Served::start();
    let stamps = |answer: &Answered| -> Vec<u64> {
        let records = answer.field("/records");
        records.as_array().expect("array").iter().filter_map(|record| record["ts"].as_u64()).collect()
    };
    // The source is called `b/history`: only a literal last `/history` asks for one.
    assert_eq!(served.get("/v1/sources/b%2Fhistory").field("/ts"), 200);
    let all = served.get("/v1/sources/b%2Fhistory/history?limit=500");
    assert_eq!(stamps(&all), (1..=200).rev().collect::<Vec<u64>>());
    assert!(all.field("/after").is_null());
    let first = served.get("/v1/sources/b/history/history?limit=3");
    let cursor = HistoryCursor(Stamp::of_data(198, b"0")).to_string();
    assert_eq!((stamps(&first), first.field("/after")), (vec![200, 199, 198], cursor.as_str().into()));
    let next = served.get(&format!("/v1/sources/b/history/history?limit=3&after={cursor}&from=196"));
    assert_eq!((stamps(&next), next.field("/after").is_null()), (vec![197, 196], true));
    served.get("/v1/sources/b/history/history?after=x").is_problem(400, "bad_request");
    served.get("/v1/sources/a/b/history?from=-1").is_problem(400, "bad_timestamp");
}

/// A history was counted only when all of it was read: up to 8 MiB of each request were not. Later a part of it was
/// counted only when it was in memory.
#[test]
fn a_history_counts_while_it_is_read() {
    let served = Served::start();
    assert_eq!(served.get("/v1/sources/b/history/history?limit=60").status, 200);
    let leased = served.node.leased_at_reads.lock().clone();
    assert_eq!(leased.len(), 60, "a chunk is one record here, since it might be as large as a chunk");
    let connection_and_part = (28 << 10) + OPTIONS.record_bytes_max;
    assert!(leased[0] >= connection_and_part, "the part is leased before it is read: {leased:?}");
    assert!(leased.is_sorted() && leased[59] > leased[0] + 2_000, "{leased:?}");
}

#[test]
fn a_page_of_nothing_is_json() {
    let served = Served::start();
    assert_eq!(served.get("/v1/sources?pattern=none/*").body, r#"{"records":[],"after":null}"#);
}

#[test]
fn publishes_one() {
    let served = Served::start();
    let answer = served.ask("POST", "/v1/publish?ack=stored", r#"{"id":7,"source":"new","data":[1, 2]}"#);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, r#"{"ts":1000000,"outcome":"applied","level":"stored"}"#)
    );
    assert!(served.get("/v1/sources/new").body.contains("[1, 2]"));
    let post = |body: &str| served.ask("POST", "/v1/publish", body);
    post("{").is_problem(400, "bad_json");
    post("{}").is_problem(400, "bad_request");
    post("[]").is_problem(400, "bad_request");
    post(r#"{"source":"a//b","data":1}"#).is_problem(400, "bad_source");
    post(&format!(r#"{{"source":"a","data":"{}"}}"#, "x".repeat(2000))).is_problem(413, "too_large");
    post(r#"{"source":"lost","data":1}"#).is_problem(503, "overloaded");
    let late = post(r#"{"source":"late","data":1,"ts":3}"#);
    late.is_problem(504, "timeout");
    assert_eq!(
        (late.field("/applied"), late.field("/ts"), late.field("/nodes")),
        (true.into(), 3.into(), 2.into())
    );
    served.ask("POST", "/v1/publish?ack=best", r#"{"source":"a","data":1}"#).is_problem(400, "bad_request");
}

#[test]
fn publishes_a_batch() {
    let served = Served::start();
    let batch = r#"[{"source":"p","data":1},{"id":"x","source":"q","data":2},{"source":"r"}]"#;
    let answer = served.ask("POST", "/v1/publish", batch);
    assert_eq!(answer.status, 200);
    assert_eq!((answer.field("/0/id"), answer.field("/0/index")), ("x".into(), 1.into()));
    assert_eq!(answer.field("/0/result/outcome"), "applied");
    assert_eq!((answer.field("/1/index"), answer.field("/1/error/code")), (2.into(), "bad_request".into()));
    assert!(answer.field("/2").is_null());
    assert!(served.node.records.lock().contains_key("p"));
}

#[test]
fn wrong_methods_unknown_paths_and_websockets() {
    let served = Served::start();
    for (method, path) in [("PATCH", "/v1/sources/a/b"), ("PUT", "/v1/sources/a/history")] {
        let answer = served.ask(method, path, "");
        answer.is_problem(405, "method_not_allowed");
        assert!(answer.head.contains("allow: get,head"), "{answer:?}");
    }
    let answer = served.get("/v1/publish");
    answer.is_problem(405, "method_not_allowed");
    assert!(answer.head.contains("allow: post"), "{answer:?}");
    served.get("/v2").is_problem(404, "not_found");
    served.get("/publish").is_problem(426, "upgrade_required");
    let head = served.ask("HEAD", "/v1/sources/a/b", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn connections_are_kept_and_malformed_ones_answered_400() {
    let served = Served::start();
    let mut stream = TcpStream::connect(served.address).expect("connects");
    for _ in 0..3 {
        stream.write_all(b"GET /v1/sources/a/c HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
        assert_eq!(answer(&mut stream, false).status, 200);
    }
    let mut stream = TcpStream::connect(served.address).expect("connects");
    stream.write_all(b"NONSENSE\x01 \r\n\r\n").expect("writes");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reads to the end");
    assert!(text.starts_with("HTTP/1.1 400 "), "{text:?}");
}

#[test]
fn a_place_is_kept_until_it_is_dropped_and_none_is_left_when_the_node_goes() {
    let mut served = Served::start();
    let hand_over = served.http.as_ref().expect("running").hand_over();
    let places: Vec<_> = std::iter::from_fn(|| hand_over.reserve()).collect();
    assert_eq!(places.len(), 1_024);
    drop(places);
    assert!(hand_over.reserve().is_some());
    served.http.take().expect("running").stop();
    assert!(hand_over.reserve().is_none());
}

/// Bytes that a layer above the socket has read already come without any event of the socket.
#[test]
fn what_lies_above_the_socket_is_read_without_waiting_for_it() {
    let http = Http::start(Arc::new(Few::default()), OPTIONS).expect("starts");
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let mut client = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
    let (socket, _) = listener.accept().expect("accepts");
    let (read, held) = (b"GET /healthz HT".to_vec(), b"TP/1.1\r\nHost: x\r\n\r\n".to_vec());
    http.hand_over().reserve().expect("a place").take_over(handed(socket, Held(held)), read, stranger());
    assert_eq!(answer(&mut client, false).status, 200);
    http.stop();
}

#[test]
fn stopping_ends_idle_connections_and_killing_does_not_wait() {
    let mut served = Served::start();
    let mut stream = TcpStream::connect(served.address).expect("connects");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
    assert_eq!(answer(&mut stream, false).status, 200);
    served.http.take().expect("running").stop();
    assert_eq!(stream.read(&mut [0]).expect("closed in order"), 0);
    drop(Served::start());
}

/// openobserve#13676: a reconnect storm leaves hundreds of watchers behind.
#[test]
fn a_storm_of_connections_leaves_none_behind() {
    let mut served = Served::start();
    let clients: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(served.address).expect("connects");
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
            assert_eq!(answer(&mut stream, false).status, 200);
            stream
        })
        .collect();
    assert_eq!(served.node.metrics.connections.http.get(), 100);
    drop(clients);
    served.http.take().expect("running").stop();
    assert_eq!(served.node.metrics.connections.http.get(), 0);
}

#[test]
fn an_answer_beyond_the_memory_for_clients_is_refused() {
    let served = Served::start();
    let text = Bytes::from(format!("\"{}\"", "x".repeat(30_000)));
    for number in 0..3 {
        served.node.put(&format!("big/{number}"), 5, Payload::Json(text.clone()), 0);
    }
    let page = served.get("/v1/sources?pattern=big/*");
    assert_eq!(page.field("/after"), "big/1", "a page is not larger than what a request may have");
    let (mut others, memory) = (served.node.memory.0.lease(), &served.node.memory.0);
    others.resize(memory.limit(), 0).expect("small ones are never refused");
    served.get("/v1/sources?pattern=big/*").is_problem(503, "overloaded");
    assert_eq!(served.get("/v1/sources/a/b").status, 200, "a short answer is never refused");
    drop(others);
    assert_eq!(served.get("/v1/sources/big/1").status, 200);
    let zeros = format!("[{}0]", "0,".repeat(199));
    served.ask("POST", "/v1/publish", &zeros).is_problem(413, "too_large");
    let mut text = String::new();
    served.node.metrics.write(&mut text);
    for counted in ["pages", "answers"] {
        let line = format!("anode_client_memory_refusals_total{{use=\"{counted}\"}} 1\n");
        assert!(text.contains(&line), "{text}");
    }
    // The node may notice a little later that the last answer was read.
    for _ in 0..500 {
        if served.node.memory.0.taken() == 0 {
            return;
        }
        crate::server::clock::sleep(10_000);
    }
    panic!("{} bytes are still leased", served.node.memory.0.taken());
}

/// The router is made of the table of all paths, and nothing else is answered.
#[test]
fn every_path_of_the_table_is_answered_and_no_other_is() {
    let served = Served::start();
    for resource in Resource::ALL {
        let method = resource.methods().first().expect("a method");
        if resource == Resource::WebPage {
            // It is there for browsers only, as the black-box tests check.
            continue;
        }
        let answer = served.ask(method, resource.path(), "");
        assert_ne!(answer.status, 403, "{resource:?}");
        let is_unknown = answer.status == 404 && answer.body.contains("there is nothing at");
        assert!(!is_unknown, "{resource:?}: {answer:?}");
        let is_for_all =
            matches!(resource, Resource::Live | Resource::Ready | Resource::GraphqlPage | Resource::WebAsset);
        assert_eq!(resource.right() == Right::Public, is_for_all, "{resource:?}");
    }
    for path in ["/", "/v1", "/v1/", "/admin", "/healthz/", "/v1/publish/"] {
        served.get(path).is_problem(404, "not_found");
    }
}

/// A node went on to make pages for a minute after the thousand clients that had asked for them had gone: one that has
/// ended its side of the connection may still wait for its answer, so its page was made in any case.
#[test]
fn no_page_is_made_for_long_for_a_client_that_may_have_gone() {
    let served = Served::start();
    // One record more than this limit is looked for.
    for (path, ends, status) in [
        ("/v1/sources?pattern=a/*&limit=7", true, 503),
        ("/v1/sources?pattern=a/*&limit=7", false, 200),
        ("/v1/sources?pattern=a/*&limit=9", true, 200),
    ] {
        let mut stream = TcpStream::connect(served.address).expect("connects");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
        if ends {
            stream.shutdown(std::net::Shutdown::Write).expect("ends its side");
        }
        let answer = answer(&mut stream, false);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
}
