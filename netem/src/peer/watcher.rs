//! A subscriber: watches all keys of the bucket, as the function `Watch` of NATS' client libraries does.
//!
//! It lets the servers make an ordered push consumer: one replica, in memory, without acknowledgements, that begins with
//! the last value of every key and sends a sign of life every 5 s. When a number is missing, or the consumer was silent for
//! twice that time, the watcher lets them make another one, which begins after the last value that came. When it loses its
//! connection, it begins anew. A plain subscription would be faster, and would also get puts that were never accepted and
//! miss those that came while it was away, so it does not suit a program that wants the newest value of each key.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

use super::bucket::{self, Contents, Refusal, STREAM};
use super::protocol::{Message, Place, publish, subscribe, unsubscribe};
use super::socket::Socket;
use crate::checker::{Connection, Delivery, Mode, Seen, Version};
use crate::load::Shared;

/// Pause after a connection was lost or refused.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a server may be silent, though it is asked every 2 s whether it is there.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a read waits, so that the watcher sees that the run ends.
const READ: Duration = Duration::from_millis(100);
/// Time between two signs of life of a consumer that has nothing to send.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a consumer may be silent.
const CONSUMER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long the servers may take to make a consumer.
const MADE_MAX: Duration = Duration::from_secs(5);
/// Pause before another consumer is asked for after one was refused.
const AGAIN: Duration = Duration::from_millis(250);
/// Number of the subscription for answers to requests.
const ANSWERS: u64 = 1;
/// Status of signs of life and of questions whether the watcher keeps up.
const CONTROL: u16 = 100;

/// Everything that a watcher has got so far.
#[derive(Debug, Default)]
pub struct Held {
    /// The last value of each key that came.
    pub contents: Mutex<Contents>,
    /// Number of values that came after a newer one of their key.
    pub older: AtomicU64,
}

/// Watches until the run ends.
pub fn run(shared: &Shared, number: usize, held: &Held) {
    let inbox = format!("_INBOX.netem.watch.{}.{number}", std::process::id());
    let mut watcher = Watcher { shared, held, number, inbox, connections: 0, consumers: ANSWERS };
    while shared.is_running.load(Relaxed) {
        let had_begun = watcher.connections;
        // Every end of a connection is the same to a watcher: it connects again.
        let _ = watcher.watch();
        if watcher.connections > had_begun && shared.is_running.load(Relaxed) {
            shared.recorder.see(Seen::Disconnected { subscriber: number as u32 });
        }
        std::thread::sleep(PAUSE);
    }
}

struct Watcher<'a> {
    shared: &'a Shared,
    held: &'a Held,
    number: usize,
    /// Begin of the subjects to which the servers send.
    inbox: String,
    connections: u32,
    /// Number of the last consumer, which is also that of its subscription.
    consumers: u64,
}

/// A consumer that was asked for.
struct Consumer {
    sid: u64,
    asked: Instant,
    heard: Instant,
    is_made: bool,
    /// Time from which another one is asked for, if this one is of no more use.
    again: Option<Instant>,
    /// Sequence of the last value that came; 0 before the first.
    sequence: u64,
    /// Number of values that came.
    number: u64,
    /// Number of values that were there when it was made, as far as it is known.
    snapshot: Option<u64>,
    is_snapshot: bool,
}

#[derive(Deserialize)]
struct ConsumerAnswer {
    error: Option<Refusal>,
    #[serde(default)]
    num_pending: u64,
}

/// Returns the request for a consumer. `after` is the sequence of the last value that is known; 0 for none.
pub fn request(deliver_to: &str, after: u64) -> serde_json::Value {
    let mut config = json!({
        "deliver_subject": deliver_to,
        "deliver_policy": if after > 0 { "by_start_sequence" } else { "last_per_subject" },
        "ack_policy": "none",
        "max_deliver": 1,
        "replay_policy": "instant",
        "filter_subject": bucket::subject(">"),
        "flow_control": true,
        "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
        "mem_storage": true,
        "num_replicas": 1,
    });
    if after > 0 {
        config["opt_start_seq"] = (after + 1).into();
    }
    json!({ "stream_name": STREAM, "config": config })
}

impl Watcher<'_> {
    /// Connects to the server of its own, or else to the next one that is there.
    fn connect(&self) -> Outcome<(usize, Socket)> {
        let nodes = &self.shared.plan.nodes;
        let mut why = "there is no server".into();
        for node in (0..nodes.len()).map(|next| (self.number + next) % nodes.len()) {
            match Socket::open(&nodes[node].1) {
                Ok(socket) => return Ok((node, socket)),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Holds one connection until it ends.
    fn watch(&mut self) -> Outcome<()> {
        let (node, mut socket) = self.connect()?;
        self.shared.counts.connections.fetch_add(1, Relaxed);
        self.connections += 1;
        let connection = Connection {
            number: self.connections,
            node: self.shared.plan.nodes[node].0.clone(),
            mode: Mode::Latest,
            patterns: vec![format!("{}/**", crate::load::ROOT).into()],
            recovered: None,
        };
        self.shared.recorder.see(Seen::Connected { subscriber: self.number as u32, connection });
        subscribe(&mut socket.out, &format!("{}.made.*", self.inbox), ANSWERS);
        let mut consumer = self.ask(&mut socket, 0);
        while self.shared.is_running.load(Relaxed) {
            socket.keep_alive();
            socket.flush()?;
            if let Some(message) = socket.read(READ)? {
                self.handle(&message, &mut consumer, &mut socket);
            }
            if socket.silent_for() > SILENCE_MAX {
                return Err("the server is silent".into());
            }
            if consumer.is_over() {
                unsubscribe(&mut socket.out, consumer.sid);
                consumer = self.ask(&mut socket, consumer.sequence);
            }
        }
        Ok(())
    }

    /// Asks for a consumer that begins after a sequence.
    fn ask(&mut self, socket: &mut Socket, after: u64) -> Consumer {
        self.consumers += 1;
        let sid = self.consumers;
        let deliver_to = format!("{}.values.{sid}", self.inbox);
        subscribe(&mut socket.out, &deliver_to, sid);
        let reply = format!("{}.made.{sid}", self.inbox);
        let request = request(&deliver_to, after).to_string();
        publish(
            &mut socket.out,
            &format!("$JS.API.CONSUMER.CREATE.{STREAM}"),
            Some(&reply),
            request.as_bytes(),
        );
        let now = Instant::now();
        Consumer {
            sid,
            asked: now,
            heard: now,
            is_made: false,
            again: None,
            sequence: after,
            number: 0,
            snapshot: None,
            is_snapshot: true,
        }
    }

    fn handle(&self, message: &Message, consumer: &mut Consumer, socket: &mut Socket) {
        if message.sid == ANSWERS {
            let is_about = message.subject.rsplit('.').next() == Some(consumer.sid.to_string().as_str());
            if is_about {
                consumer.made(message);
            }
            return;
        }
        if message.sid != consumer.sid {
            return;
        }
        consumer.heard = Instant::now();
        match (message.status(), message.place(), bucket::key(&message.subject)) {
            (Some(CONTROL), ..) => {
                let stalled = message.header("Nats-Consumer-Stalled");
                if let Some(to) = message.reply.as_deref().or(stalled) {
                    publish(&mut socket.out, to, None, b"");
                }
                let last = message.header("Nats-Last-Consumer").and_then(|number| number.parse().ok());
                if last.is_some_and(|last: u64| last > consumer.number) {
                    consumer.end();
                }
            }
            (Some(_), ..) => consumer.end(),
            (None, Some(place), _) if place.number != consumer.number + 1 => consumer.end(),
            (None, Some(place), Some(key)) => self.take(key, place, &message.payload, consumer),
            (None, ..) => self.shared.surprise(format!("a watcher got {}", message.subject)),
        }
    }

    fn take(&self, key: &str, place: Place, data: &[u8], consumer: &mut Consumer) {
        let version = Version::of_data(place.sequence, data);
        let is_snapshot = consumer.is_snapshot;
        consumer.take(place);
        let before = self.held.contents.lock().insert(key.into(), version);
        if before.is_some_and(|before| before.ts > version.ts) {
            self.held.older.fetch_add(1, Relaxed);
        }
        self.shared.counts.delivered.fetch_add(1, Relaxed);
        let delivery = Delivery { source: key.into(), version, is_snapshot };
        self.shared.recorder.see(Seen::Delivered { subscriber: self.number as u32, delivery });
    }
}

impl Consumer {
    /// Takes the answer to the request for it.
    fn made(&mut self, answer: &Message) {
        let made = answer.status().is_none().then(|| serde_json::from_slice(&answer.payload).ok()).flatten();
        match made {
            Some(ConsumerAnswer { error: None, num_pending }) => {
                self.is_made = true;
                self.heard = Instant::now();
                self.snapshot = Some(num_pending);
                self.is_snapshot &= self.number < num_pending;
            }
            _ => self.end(),
        }
    }

    /// Takes a value that is in its place.
    fn take(&mut self, place: Place) {
        self.number = place.number;
        self.sequence = place.sequence;
        let is_through = place.pending == 0 || self.snapshot.is_some_and(|all| self.number >= all);
        self.is_snapshot &= !is_through;
    }

    fn end(&mut self) {
        self.again.get_or_insert(Instant::now() + AGAIN);
    }

    fn is_over(&self) -> bool {
        let is_late = match self.is_made {
            true => self.heard.elapsed() > CONSUMER_SILENCE_MAX,
            false => self.asked.elapsed() > MADE_MAX,
        };
        is_late || self.again.is_some_and(|again| Instant::now() >= again)
    }
}
