//! A node in memory with one worker, whose mailbox, clock, store and sockets the tests move by hand.

mod filtered;
mod memory;
mod publisher;
mod seam;
mod subscriber;
mod tokens;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;
use serde_json::Value;

use super::*;
use crate::auth::Auth;
use crate::cluster::Heads;
use crate::cluster::members::MemberInfo;
use crate::cluster::outbox::Outbox;
use crate::ingest::{Accepted, Bounds, Downstream, Ingest};
use crate::latest::Latest;
use crate::memory::Budget;
use crate::metrics::Metrics;
use crate::protocol::AckLevel;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::token::cluster_key;
use crate::record::{NodeName, Now, SharedRecord};
use crate::server::account::WorkerAccount;
use crate::server::acks::{AnswerState, ByWhom, PublishHost};
use crate::server::inbox::{Inbox, Mail};
use crate::server::mailbox::{Mailbox, deliver};
use crate::server::outbound::Outbound;

const WALL_US: u64 = 1_700_000_000_000_000;
const DAY_US: u64 = 86_400_000_000;

/// The mailbox of the worker, and a store that takes everything.
struct Below {
    mailbox: Mailbox,
    /// The poll of the mailbox's waker. Nobody waits on it.
    _poll: mio::Poll,
    tickets: AtomicU64,
    sick: Mutex<Option<String>>,
}

impl Below {
    fn new(mailbox_bytes_max: usize) -> Below {
        let poll = mio::Poll::new().expect("poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("waker");
        let mailbox = Mailbox::bounded(waker, mailbox_bytes_max);
        mailbox.set_wanted(true);
        Below { mailbox, _poll: poll, tickets: AtomicU64::new(0), sick: Mutex::default() }
    }
}

impl Downstream for Below {
    fn deliver(&self, change: Change) {
        deliver(from_ref(&self.mailbox), change);
    }

    fn store(&self, _record: &SharedRecord) -> u64 {
        self.tickets.fetch_add(1, SeqCst) + 1
    }

    fn store_winner(&self, _: &SharedRecord) -> u64 {
        self.tickets.load(SeqCst)
    }

    fn forget(&self, _now: Now, _record: &SharedRecord) {}

    fn store_health(&self) -> Result<(), String> {
        self.sick.lock().clone().map_or(Ok(()), Err)
    }
}

struct Node {
    facts: Facts,
    boot: u64,
    ingest: Ingest<Below>,
    metrics: Arc<Metrics>,
    durable: Cell<u64>,
    /// The last token that was given to a record that every member is to hold.
    tokens: Cell<u64>,
    is_loaded: Cell<bool>,
    /// Heads of other origins, beside this node's own.
    others: RefCell<Heads>,
    members: RefCell<Arc<[MemberInfo]>>,
}

impl Host for Node {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn latest(&self) -> &Latest {
        self.ingest.latest()
    }

    fn is_loaded(&self) -> bool {
        self.is_loaded.get()
    }

    fn heads(&self) -> Arc<Heads> {
        let mut heads = self.others.borrow().clone();
        heads.insert((self.facts.node.clone(), self.boot), self.ingest.outbox().lock().last_seq());
        Arc::new(heads)
    }

    fn members(&self) -> Arc<[MemberInfo]> {
        self.members.borrow().clone()
    }

    fn auth(&self) -> Option<&Auth> {
        None
    }

    fn mailbox_end(&self) -> u64 {
        self.ingest.downstream().mailbox.position()
    }
}

impl PublishHost for Node {
    fn publish(&self, now: Now, draft: &Draft<'_>, by: ByWhom<'_>) -> Result<Accepted, Refusal> {
        self.ingest.publish_by(now, draft, by.rights)
    }

    fn publish_awaited(
        &self,
        now: Now,
        draft: &Draft<'_>,
        by: ByWhom<'_>,
    ) -> Result<(Accepted, u64), Refusal> {
        let token = self.tokens.get() + 1;
        self.tokens.set(token);
        self.ingest.publish_awaited(now, draft, by.rights, token).map(|accepted| (accepted, token))
    }

    fn state(&self) -> &dyn AnswerState {
        self
    }
}

impl AnswerState for Node {
    fn durable(&self) -> u64 {
        self.durable.get()
    }

    fn store_health(&self) -> Result<(), String> {
        self.ingest.downstream().store_health()
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn store_away(&self) -> Option<String> {
        None
    }
}

struct Client {
    session: Session,
    out: Outbound,
    closed: Option<CloseReason>,
    batch: bool,
}

/// The node, its one worker, and the connections.
struct World {
    node: Node,
    now: Now,
    work: Workspace,
    frames: EncodedChange,
    clients: Vec<Client>,
    inbox: Inbox,
}

impl World {
    fn new() -> World {
        World::named("n1", 1)
    }

    /// A world whose mailbox holds at most this number of bytes.
    fn with_mailbox(bytes_max: usize) -> World {
        World::built("n1", 1, bytes_max)
    }

    fn named(name: &str, boot: u64) -> World {
        World::built(name, boot, usize::MAX)
    }

    fn built(name: &str, boot: u64, mailbox_bytes_max: usize) -> World {
        let name = NodeName::parse(name).expect("name");
        let bounds = Bounds { record_bytes_max: 65_536, map_bytes_max: 1 << 30, tombstones_us: DAY_US };
        let outbox = Outbox::new(name.clone(), boot);
        let metrics = Arc::<Metrics>::default();
        World {
            node: Node {
                facts: Facts {
                    node: name,
                    cluster: cluster_key("anode"),
                    max_record_bytes: 65_536,
                    max_frame_bytes: 1 << 20,
                    max_subscriptions: 10_000,
                    tombstones_us: DAY_US,
                },
                boot,
                ingest: Ingest::new(bounds, outbox, metrics.clone(), Below::new(mailbox_bytes_max), 5),
                metrics,
                durable: Cell::new(0),
                tokens: Cell::new(0),
                is_loaded: Cell::new(true),
                others: RefCell::default(),
                members: RefCell::new(Arc::new([])),
            },
            now: Now { mono_us: 1, wall_us: WALL_US },
            work: Workspace::new(1, WorkerAccount::new(&Arc::new(Budget::new(1 << 30, 1 << 30)))),
            frames: EncodedChange::default(),
            clients: Vec::new(),
            inbox: Inbox::default(),
        }
    }

    fn turn<R>(&mut self, client: usize, act: impl FnOnce(&mut Session, &mut Turn<'_>) -> R) -> R {
        self.work.scans.begin_turn();
        self.act(client, act)
    }

    /// Lets a session work in a turn of the worker that has begun already.
    fn turn_in_the_same_turn(&mut self, client: usize) {
        self.act(client, |session, turn| session.handle_turn(turn));
    }

    fn act<R>(&mut self, client: usize, act: impl FnOnce(&mut Session, &mut Turn<'_>) -> R) -> R {
        let Client { session, out, .. } = &mut self.clients[client];
        let mut turn = Turn {
            now: self.now,
            host: &self.node,
            work: &mut self.work,
            connection: client,
            out,
            mailbox_position: self.inbox.position(),
        };
        act(session, &mut turn)
    }

    /// Opens a connection on `/publish?…` or `/subscribe?…`.
    fn open(&mut self, url: &str) -> usize {
        self.open_as(url, Codec::Json)
    }

    fn open_as(&mut self, url: &str, codec: Codec) -> usize {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let endpoint = if path == "/publish" { Endpoint::Publish } else { Endpoint::Subscribe };
        let session = Session::open(endpoint, codec, query, "s".into()).expect(url);
        let batch = query.contains("batch=true");
        self.clients.push(Client { session, out: Outbound::default(), closed: None, batch });
        let client = self.clients.len() - 1;
        self.turn(client, |session, turn| session.handle_open(turn));
        client
    }

    fn say(&mut self, client: usize, text: &str) {
        let done =
            self.turn(client, |session, turn| session.handle_message(turn, IncomingMessage::Text(text)));
        self.clients[client].closed = done.err();
    }

    /// Hands the oldest change of the mailbox out.
    fn drain_one(&mut self) -> bool {
        let (mailbox, latest) = (&self.node.ingest.downstream().mailbox, self.node.ingest.latest());
        let change = match self.inbox.next(mailbox, latest) {
            Mail::Change(change) => change,
            Mail::Overflow => {
                self.work.filters.handle_overflow();
                for client in &mut self.clients {
                    if let Err(close) = client.session.handle_overflow() {
                        client.closed = Some(close);
                    }
                }
                return true;
            }
            Mail::Scanned => return true,
            Mail::Empty => return false,
        };
        let audience = self.work.index.audience(&change.record.source).clone();
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        self.work.filters.begin_run();
        for &client in audience.iter() {
            if self.clients[client].closed.is_none() {
                let done =
                    self.turn(client, |session, turn| session.handle_change(turn, &mut frames, &change));
                self.clients[client].closed = done.err();
            }
        }
        self.frames = frames;
        true
    }

    fn turn_once(&mut self, client: usize) {
        self.turn(client, |session, turn| session.handle_turn(turn));
    }

    /// Runs the mailbox and the sessions until none has anything to do. No client's buffer is emptied.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            while self.drain_one() {}
            let busy: Vec<_> = (0..self.clients.len())
                .filter(|&client| {
                    let Client { session, out, closed, .. } = &self.clients[client];
                    closed.is_none() && session.wants_turn(out.len())
                })
                .collect();
            if busy.is_empty() {
                return;
            }
            busy.into_iter().for_each(|client| self.turn_once(client));
        }
        panic!("never settles");
    }

    fn pass(&mut self, us: u64) {
        self.now = self.now.plus_us(us);
        for client in 0..self.clients.len() {
            if self.clients[client].session.next_timeout_us().is_some_and(|at| at <= self.now.mono_us) {
                self.turn_once(client);
            }
        }
        self.settle();
    }

    /// Everything that waits in the client's buffer: its frames, with batches taken apart.
    fn read(&mut self, client: usize) -> Vec<Value> {
        let mut bytes = Vec::new();
        assert!(self.clients[client].out.flush(&mut bytes).expect("a Vec takes all"));
        let mut values = Vec::new();
        for payload in payloads(&bytes) {
            match serde_json::from_slice(payload).expect("json") {
                Value::Array(items) if self.clients[client].batch => values.extend(items),
                value => values.push(value),
            }
        }
        values
    }

    /// Reads and settles until nothing more comes.
    fn read_all(&mut self, client: usize) -> Vec<Value> {
        let mut values = Vec::new();
        loop {
            self.settle();
            let more = self.read(client);
            if more.is_empty() {
                return values;
            }
            values.extend(more);
        }
    }

    /// Publishes by another way than a session of this worker.
    fn publish(&self, source: &str, data: &str) -> u64 {
        self.publish_draft(source, None, DraftPayload::Json(data.as_bytes()), 0)
    }

    fn delete(&self, source: &str) -> u64 {
        self.publish_draft(source, None, DraftPayload::Deleted, 0)
    }

    fn publish_draft(&self, source: &str, ts: Option<u64>, payload: DraftPayload<'_>, ttl_ms: u64) -> u64 {
        let draft =
            Draft { source: Cow::Borrowed(source), ts, payload, ttl_ms, ack: Some(AckLevel::Accepted) };
        self.node.ingest.publish(self.now, &draft).expect("accepted").ts
    }
}

/// The payloads of unmasked frames.
fn payloads(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut payloads = Vec::new();
    while !bytes.is_empty() {
        assert!(matches!(bytes[0], 0x81 | 0x82), "a whole data frame");
        let (header, len) = match bytes[1] {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => (10, u64::from_be_bytes(bytes[2..10].try_into().expect("8 bytes")) as usize),
            short => (2, usize::from(short)),
        };
        payloads.push(&bytes[header..header + len]);
        bytes = &bytes[header + len..];
    }
    payloads
}

/// The records among what was read, as (source, ts).
fn records(values: &[Value]) -> Vec<(String, u64)> {
    let record = |value: &Value| {
        let source = value.get("source")?.as_str()?.to_owned();
        Some((source, value.get("ts")?.as_u64()?))
    };
    values.iter().filter_map(record).collect()
}

/// The token of the last eos or resume among what was read.
fn token_of(values: &[Value]) -> String {
    let token = |value: &Value| {
        let token = value.pointer("/eos/resume").or(value.get("resume"))?;
        token.as_str().map(str::to_owned)
    };
    values.iter().rev().find_map(token).expect("a token")
}
